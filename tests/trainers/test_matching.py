"""Flow matching against the velocity that is known where base and data are normal, and what is said of samples."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from neuralode_exp.build import build_task
from neuralode_exp.config import Config, without_meaning
from neuralode_exp.models.density_model import BASE, DATA
from neuralode_exp.models.flows import Flow
from neuralode_exp.ode import make_method
from neuralode_exp.trainers.density.matching import assignment, matching_loss, optimal_pairs, stratified_times
from neuralode_exp.trainers.density.task import DensityEstimation
from neuralode_exp.trainers.density.transport import sampling, wasserstein

MEAN, STD = 2.0, 0.5  # of the data, in each coordinate


class Velocity(nn.Module):
    """E[x1 - x0 | z] at z = (1 - t) x0 + t x1, for independent x0 ~ N(0, 1) and x1 ~ N(2, 1/4)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        variance = (1 - t) ** 2 + (t * STD) ** 2
        return self.scale * (MEAN + (t * STD**2 - (1 - t)) / variance * (z - t * MEAN))


def draws(n: int) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(2, n, 2, generator=generator, dtype=torch.float64)
    return x0, MEAN + STD * x1, stratified_times(n, generator)


def test_the_known_velocity_is_the_minimum_of_the_loss() -> None:
    field = Velocity()
    loss = matching_loss(field, *draws(200_000))
    loss.backward()
    # Its derivative is 0 at the minimum, where the second one is 2 E|v|^2 = 9.
    assert abs(float(field.scale.grad)) < 0.01
    # What is left is the variance of x1 - x0 given z, (STD / sigma)^2 for sigma^2 = (1 - t)^2 + (t STD)^2.
    t = torch.linspace(0, 1, 100_001, dtype=torch.float64)
    variance = STD**2 / ((1 - t) ** 2 + (t * STD) ** 2)
    assert float(loss.detach()) == pytest.approx(float(torch.trapezoid(variance, t)), rel=0.01)


def test_the_flow_of_that_velocity_carries_base_to_data() -> None:
    flow = Flow(2, field=Velocity(), method=make_method("dopri5", rtol=1e-8))
    z0 = draws(100)[0]
    torch.testing.assert_close(flow.ode(z0, [BASE, DATA])[-1], MEAN + STD * z0)


def test_pairs_are_the_best_of_all_permutations() -> None:
    x, y = torch.randn(2, 6, 2, generator=torch.Generator().manual_seed(1))
    costs = {p: float((y[list(p)] - x).square().sum()) for p in itertools.permutations(range(6))}
    assert tuple(assignment(x, y).tolist()) == min(costs, key=lambda p: costs[p])
    assert wasserstein(x, y) == pytest.approx((min(costs.values()) / 6) ** 0.5)


def test_pairing_keeps_the_points_and_shortens_the_lines() -> None:
    x0, x1, _ = draws(130)
    paired = optimal_pairs(x0, x1)
    assert sorted(paired[:, 0].tolist()) == sorted(x1[:, 0].tolist())
    assert float((paired - x0).square().sum()) < float((x1 - x0).square().sum())


def test_times_are_one_in_each_part() -> None:
    t = stratified_times(100, torch.Generator().manual_seed(0))
    assert (t * 100).floor().tolist() == list(range(100))


def test_path_energy_is_that_of_the_closed_form() -> None:
    class Swirl(nn.Module):  # a rotation by pi: |v|^2 = pi^2 |z|^2, and z goes to -z
        def forward(self, t: Tensor, z: Tensor) -> Tensor:
            return torch.pi * torch.stack((-z[..., 1], z[..., 0]), -1)

    z0 = torch.randn(200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    flow = Flow(2, field=Swirl(), method=make_method("rk4", step_size=1.0))
    values = sampling(flow, z0)
    energy, least = torch.pi**2 * float(z0.square().sum(1).mean()), wasserstein(z0, -z0) ** 2
    assert values["density/path_energy"] == pytest.approx((energy - least) / least, rel=2e-4)  # of a solve at 1e-5
    assert values["nfe/sample"] > 20
    assert flow.ode.integrals == ()


def test_path_energy_of_an_optimal_transport_is_zero_in_any_dimension() -> None:
    class Spread(nn.Module):  # dz/dt = a z / (1 + a t), the straight lines from z to (1 + a) z
        def forward(self, t: Tensor, z: Tensor) -> Tensor:
            return 0.5 * z / (1 + 0.5 * t)

    z0 = torch.randn(200, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    flow = Flow(64, field=Spread(), method=make_method("rk4", step_size=1.0))
    assert sampling(flow, z0)["density/path_energy"] == pytest.approx(0.0, abs=1e-4)


def test_path_energy_of_a_flow_that_moves_nothing_is_zero() -> None:
    class Rest(nn.Module):
        def forward(self, t: Tensor, z: Tensor) -> Tensor:
            return torch.zeros_like(z)

    flow = Flow(2, field=Rest(), method=make_method("rk4", step_size=1.0))
    assert sampling(flow, torch.ones(5, 2, dtype=torch.float64))["density/path_energy"] == 0.0


SMALL = ("dataset=two-moons", "trainer.batch_size=8", "model.width=4", "figures=false")


def test_the_likelihood_follows_matching(compose: Callable[..., Config]) -> None:
    words = ("trainer.loss=flow-matching+likelihood", "trainer.matching_steps=2", "trainer.pairing=optimal")
    task = build_task(compose(*SMALL, *words), torch.device("cpu"))
    assert isinstance(task, DensityEstimation)
    costs = []
    for step in (1, 2, 3):
        loss = task.loss(step)
        loss.backward()
        costs.append(task.stats.nfe_forward)
    assert costs[:2] == [1, 1]
    assert costs[2] > 6


@pytest.mark.parametrize(
    "words",
    [
        ("model=planar", "trainer.loss=flow-matching"),
        ("trainer.loss=flow-matching+likelihood", "trainer.matching_steps=50", "trainer.max_steps=50"),
    ],
)
def test_what_has_no_meaning_is_refused(words: tuple[str, ...], compose: Callable[..., Config]) -> None:
    assert without_meaning(compose(*SMALL, *words)) is not None
