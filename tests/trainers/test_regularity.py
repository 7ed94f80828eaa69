"""Penalties in training: what they weigh, and that measuring them changes nothing of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from neuralode_exp.build import build_task
from neuralode_exp.config import Config, without_meaning
from neuralode_exp.models.neural_ode import NeuralODE
from neuralode_exp.models.regularisers import REGULARISERS
from neuralode_exp.ode import make_method

CPU = torch.device("cpu")
MOONS = ("dataset=two-moons", "model=rknet", "solver=rk4", "model.width=8", "trainer.batch_size=16", "figures=false",
         "precision=float64", "dataset.validation=20", "dataset.test=20")  # fmt: skip
CIRCLE = ("dataset=circle", "model=rknet", "model.width=8", "figures=false", "dataset.trajectories=4",
          "dataset.validation=2", "precision=float64")  # fmt: skip


@pytest.mark.parametrize("words", [MOONS, CIRCLE, (*CIRCLE, "trainer.replicas=3")])
def test_the_penalty_is_the_weighted_mean_of_the_last_solve(words: tuple[str, ...], compose: Callable) -> None:
    torch.manual_seed(0)
    plain = build_task(compose(*words), CPU)
    torch.manual_seed(0)
    task = build_task(compose(*words, "trainer.kinetic=0.5", "trainer.taylor=0.25"), CPU)
    loss, penalised = task.penalised_loss(1)
    torch.testing.assert_close(loss, plain.penalised_loss(1)[1])
    (ode,) = (part for part in task.module.modules() if isinstance(part, NeuralODE))
    kinetic, taylor = (value.abs().mean(-1) for value in ode.values)
    torch.testing.assert_close((penalised - loss).view(-1), (0.5 * kinetic + 0.25 * taylor).view(-1))
    assert float(kinetic.detach().min()) > 0
    penalised.sum().backward()


@pytest.mark.parametrize("replicas", [1, 3])
def test_the_penalty_of_windows_is_the_mean_of_solves_alone(replicas: int, compose: Callable[..., Config]) -> None:
    """Windows of different lengths in one batch, each integrated over its own time."""
    words = (*CIRCLE, f"trainer.replicas={replicas}", "trainer.batch_size=6", "trainer.collocation=0", "solver=rk4",
             "dataset.sampling=random")  # fmt: skip
    torch.manual_seed(0)
    weights = {"kinetic": 0.5, "taylor": 0.25}
    penalties = (f"trainer.{name}={weight}" for name, weight in weights.items())
    task = build_task(compose(*words, "solver.step_size=0.05", *penalties), CPU)
    networks = list(task.networks())
    loss, penalised = task.penalised_loss(1)
    shooting = task.shooting
    drawn = shooting.draw(task._generators("batch", 1), task.batch_size).view(replicas, -1)
    assert float(shooting.duration[drawn].max()) > 1.2 * float(shooting.duration[drawn].min())
    expected = []
    for alone, batch in zip(networks, drawn, strict=True):
        alone.integrals = tuple(REGULARISERS[name] for name in weights)
        values = []
        for k in batch:
            alone(shooting.z[shooting.start[k]][None], [0.0, float(shooting.duration[k])])
            values.append(sum(w * x for w, x in zip(weights.values(), alone.values, strict=True)))
        expected.append(torch.stack(values).mean())
    torch.testing.assert_close((penalised - loss).view(-1), torch.stack(expected), rtol=1e-5, atol=0)


def test_measuring_draws_nothing_that_training_would_draw(compose: Callable[..., Config]) -> None:
    task = build_task(compose(*MOONS, "model.trace=hutchinson"), CPU)
    before = torch.get_rng_state()
    values = task.hardness()
    assert set(values) == {"regularity/kinetic", "regularity/jacobian", "regularity/taylor"}
    assert torch.equal(torch.get_rng_state(), before)
    (ode,) = (part for part in task.module.modules() if isinstance(part, NeuralODE))
    assert ode.integrals == ()


def test_the_end_time_is_drawn_in_training_alone(compose: Callable[..., Config]) -> None:
    task = build_task(compose(*MOONS, "trainer.steer=0.5"), CPU)
    x = torch.randn(4, 2, dtype=torch.float64)
    ends = []
    for training in (True, True, False, False):
        task.module.train(training)
        ends.append(task.module.to_base(x))  # type: ignore[operator]
    assert not torch.equal(ends[0], ends[1])
    assert torch.equal(ends[2], ends[3])


def test_steering_draws_the_end_evenly() -> None:

    class Clock(torch.nn.Module):  # z(t1) - z(t0) = t1 - t0
        def forward(self, t: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
            return torch.ones_like(z)

    ode = NeuralODE(Clock(), make_method("euler", step_size=10.0))
    ode.steer = 0.25
    torch.manual_seed(0)
    ends = [float(ode(torch.zeros(1), [0.0, 1.0])[-1]) for _ in range(400)]
    assert 0.75 <= min(ends) < 0.76
    assert 1.24 < max(ends) <= 1.25
    assert sum(ends) / 400 == pytest.approx(1.0, abs=4 * 0.25 / 3**0.5 / 20)  # four standard errors


@pytest.mark.parametrize(
    "words",
    [
        ("dataset=circle", "trainer.steer=0.1"),
        ("dataset=circle", "model=resnet", "trainer.kinetic=1"),
        ("dataset=circle", "trainer.error=1"),  # by the adjoint
        ("dataset=circle", "model=rknet", "solver=rk4", "trainer.error=1"),
    ],
)
def test_what_has_no_meaning_is_refused(words: tuple[str, ...], compose: Callable[..., Config]) -> None:
    assert without_meaning(compose(*words)) is not None


@pytest.mark.parametrize("gradient", ["backprop", "checkpoint"])
def test_error_estimates_are_penalised(gradient: str, compose: Callable[..., Config]) -> None:
    model = "rknet" if gradient == "backprop" else "odenet"
    words = (*MOONS, f"model={model}", f"model.gradient={gradient}", "solver=dopri5", "trainer.error=100")
    values = {}
    for at in ("sum", "sample"):
        torch.manual_seed(0)
        task = build_task(compose(*words, f"trainer.error_at={at}"), CPU)
        (ode,) = (part for part in task.module.modules() if isinstance(part, NeuralODE))
        loss, penalised = task.penalised_loss(1)
        assert ode.errors is not None
        assert len(ode.errors) == ode.stats.accepted
        values[at] = float((penalised - loss).detach())
        expected = 100 * (ode.errors.sum() if at == "sum" else len(ode.errors) * ode.errors).detach()
        assert values[at] > 0
        assert min(abs(float(x) - values[at]) for x in expected.view(-1)) < 1e-12  # of a loss of about 3
        (slope,) = torch.autograd.grad(penalised - loss, [next(ode.parameters())])
        assert float(slope.abs().max()) > 0
        assert not ode.with_errors
