"""Known equations: exact in any units, and their constants found from noisy points."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from neuralode_exp.config import Config, ConfigError
from neuralode_exp.config.preflight import preflight
from neuralode_exp.data import named_systems
from neuralode_exp.data.observed import Scale
from neuralode_exp.models.fields.hybrid import Hybrid
from neuralode_exp.models.fields.scaled import Scaled, Units
from neuralode_exp.models.in_user_units import InUserUnits
from neuralode_exp.models.neural_ode import NeuralODE
from neuralode_exp.ode import make_method
from neuralode_exp.run import run
from neuralode_exp.tracking.summary import read_summary

HYBRID = ("dataset=lotka-volterra", "model.field=hybrid", "model.residual=false", "solver=rk4")


@pytest.mark.parametrize("log", [None, torch.tensor([True, False])])
def test_in_units_of_a_table_it_is_the_equation_of_the_table(log: torch.Tensor | None) -> None:
    pair = torch.tensor
    scale = Scale(["x", "y"], pair([1.0, 2.0]).double(), pair([3.0, 0.5]).double(), 0.1, log)
    units = Units(pair([0.3, -0.2]).double(), pair([1.5, 0.7]).double(), pair([2.0, 4.0]).double())
    constants = {"alpha": 1.0, "beta": 0.5, "gamma": 0.7, "delta": 0.2}
    field = Scaled(Hybrid(named_systems.lotka_volterra, constants, (), units, scale), units)
    x = torch.rand(5, 2, dtype=torch.float64).requires_grad_()
    z = scale.outward(x)
    rates = [torch.autograd.grad(z[:, i].sum(), x, retain_graph=True)[0][:, i] for i in range(2)]
    exact = named_systems.lotka_volterra(0.0, z, **constants) * scale.step / torch.stack(rates, -1)
    torch.testing.assert_close(field(x.new_zeros(()), x), exact)


def cooling(t: Tensor, z: Tensor, *, k: float) -> Tensor:
    return -k * (z - 290.0)


def test_a_table_whose_exponential_overflows_has_gradients() -> None:
    """exp(302.5) is infinite in float32, and no column is a logarithm."""
    scale = Scale(["T"], torch.tensor([300.0]).double(), torch.tensor([5.0]).double(), 2.0)
    field = Hybrid(cooling, {"k": 0.1}, ("k",), Units.none(1), scale)
    x, k = torch.tensor([[0.5]], requires_grad=True), field.theta["k"]
    dx = field(torch.tensor(0.0), x)
    of_x, of_k = torch.autograd.grad(dx.sum(), (x, k))
    c = 0.1 * (1 + float(k.detach()))
    torch.testing.assert_close(dx, torch.tensor([[-c * 12.5 * 2 / 5]]))
    torch.testing.assert_close(of_x, torch.tensor([[-c * 2]]))
    torch.testing.assert_close(of_k, torch.tensor(-0.1 * 12.5 * 2 / 5))


def test_a_state_of_exactly_0_has_gradients_beside_a_logarithm() -> None:
    scale = Scale(
        ["x", "y"], torch.tensor([0.0, 0.3]).double(), torch.ones(2).double(), 1.0, torch.tensor([False, True])
    )
    field = Hybrid(cooling, {"k": 0.1}, (), Units.none(2), scale)
    x = torch.zeros(1, 2, requires_grad=True)
    dx = field(torch.tensor(0.0), x)
    (slopes,) = torch.autograd.grad(dx.sum(), x)
    torch.testing.assert_close(dx, torch.tensor([[29.0, -0.1 + 29 * math.exp(-0.3)]]))
    torch.testing.assert_close(slopes, torch.tensor([[-0.1, -29 * math.exp(-0.3)]]))


def test_a_model_without_parameters_is_solved_in_the_units_of_the_table() -> None:
    """Newton's law of cooling, known to the last constant."""
    scale = Scale(["T"], torch.tensor([300.0]).double(), torch.tensor([5.0]).double(), 2.0)
    field = Scaled(Hybrid(cooling, {"k": 0.1}, (), Units.none(1), scale), Units.none(1)).double()
    model = InUserUnits(NeuralODE(field, make_method("rk4", step_size=0.1)), scale)
    assert not list(model.parameters())
    t = torch.tensor([5.0, 7.0, 15.0], dtype=torch.float64)
    found = model(torch.tensor([[310.0]]), t)[:, 0, 0]
    torch.testing.assert_close(found, 290 + 20 * torch.exp(-0.1 * (t - 5)), rtol=1e-6, atol=0)


def test_constants_are_found_by_every_replica(tmp_path: Path, compose: Callable[..., Config]) -> None:
    words = ("model.free=[alpha,delta]", "trainer.replicas=2", "trainer.max_steps=150", "figures=false")
    config = compose(*HYBRID, *words, "dataset.trajectories=16", "dataset.points=40", "trainer.batch_size=64")
    (tmp_path / "run").mkdir()
    run(config, tmp_path / "run", config.model_dump(mode="json"))
    summary = read_summary(tmp_path / "run")
    assert summary is not None
    metrics = summary["metrics"]
    assert metrics["dynamics/constants_error"] < 0.03  # they start up to 50 % off
    assert metrics["constants/alpha"] == pytest.approx(2 / 3, rel=0.03)
    assert metrics["constants/alpha_std"] < 0.03
    assert "constants/beta" not in metrics


WRONG = {
    "model.free=[alpa]": "model.free must be one of alpha, beta, gamma, delta, got alpa; did you mean alpha?",
    "model.system=lorenz": "model.system must be a system of 2 dimensions, as the data, got lorenz of 3",
    "model.system=duffing": "model.system must have its inputs in the data, got duffing",
    "model.options.mu=1": "model.options.mu is not a key",
    "model.field=mlp model.free=[alpha]": "model.free is not read by model.field=mlp; add model.field=hybrid",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_request_is_one_line(words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        preflight([*HYBRID, *words.split()])
    assert str(caught.value).startswith(WRONG[words])
