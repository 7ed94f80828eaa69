"""Regularisers against closed forms of z' = A z + b t, and against each other in every way to differentiate."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from neuralode_exp.models.flows import Flow
from neuralode_exp.models.images import ConvField, image_model
from neuralode_exp.models.neural_ode import NeuralODE
from neuralode_exp.models.regularisers import REGULARISERS, jacobian, kinetic, taylor
from neuralode_exp.ode import make_method

TIGHT = make_method("dopri5", rtol=1e-8, atol=1e-8)


class Affine(nn.Module):
    """f(t, z) = A z + b t."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor([[-0.3, 1.2], [-0.7, 0.1]], dtype=torch.float64))
        self.b = nn.Parameter(torch.tensor([0.5, -1.0], dtype=torch.float64))

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return z @ self.a.T + self.b * t


def along(values: Callable[[float, Tensor], Tensor], z0: Tensor, f: Affine) -> Tensor:
    """int_0^1 of a function of (t, z(t)), by Simpson's rule on 201 points of the exact solution."""
    t = torch.linspace(0, 1, 201, dtype=torch.float64)
    augmented = torch.zeros(4, 4, dtype=torch.float64)  # of (z, t, 1): z' = A z + b t, t' = 1
    augmented[:2, :2], augmented[:2, 2], augmented[2, 3] = f.a.detach(), f.b.detach(), 1.0
    start = torch.cat((z0, z0.new_tensor([0.0, 1.0]).expand(len(z0), 2)), 1)
    g = torch.stack([values(float(s), (start @ torch.linalg.matrix_exp(s * augmented).T)[:, :2]) for s in t])
    weights = torch.ones(201, dtype=torch.float64)
    weights[1:-1:2], weights[2:-1:2] = 4.0, 2.0
    return (weights[:, None] * g).sum(0) / 600


def solved(integral, f: nn.Module, z0: Tensor, gradient: str = "backprop") -> Tensor:
    ode = NeuralODE(f, TIGHT, gradient)
    ode.integrals = (integral,)
    ode(z0, [0.0, 1.0])
    return ode.values[0]


def test_kinetic_energy_is_the_integral_of_the_exact_speed() -> None:
    f, z0 = Affine(), torch.randn(3, 2, dtype=torch.float64)
    exact = along(lambda t, z: f(torch.tensor(t), z).detach().square().sum(1), z0, f)
    torch.testing.assert_close(solved(kinetic, f, z0).detach(), exact, rtol=1e-6, atol=0)


def test_taylor_is_the_integral_of_the_exact_acceleration() -> None:
    f, z0 = Affine(), torch.randn(3, 2, dtype=torch.float64)
    a, b = f.a.detach(), f.b.detach()
    exact = along(lambda t, z: (b + (z @ a.T + b * t) @ a.T).square().sum(1), z0, f)
    torch.testing.assert_close(solved(taylor, f, z0).detach(), exact, rtol=1e-6, atol=0)


def test_jacobian_is_that_of_one_probe_a_solve() -> None:
    f, z0 = Affine(), torch.randn(20_000, 2, dtype=torch.float64)
    torch.manual_seed(0)
    found = solved(jacobian, f, z0).detach()
    torch.manual_seed(0)
    v = torch.randn(z0.shape, dtype=z0.dtype)
    torch.testing.assert_close(found, (v @ f.a.detach()).square().sum(1), rtol=1e-6, atol=0)
    assert float(found.mean()) == pytest.approx(float(f.a.detach().square().sum()), rel=0.05)  # five standard errors


@pytest.mark.parametrize("name", REGULARISERS)
@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint", "reversible"])
def test_gradients_are_those_of_backpropagation(name: str, gradient: str) -> None:
    f, z0, gradients = Affine(), torch.randn(3, 2, dtype=torch.float64), []
    for mode in ("backprop", gradient):
        torch.manual_seed(0)
        value = solved(REGULARISERS[name], f, z0, mode).sum()
        gradients.append(torch.autograd.grad(value, (f.a, f.b), allow_unused=True))
    for ours, true in zip(*reversed(gradients), strict=True):
        none = torch.zeros(2, dtype=torch.float64)
        torch.testing.assert_close(none if ours is None else ours, none if true is None else true, rtol=1e-5, atol=1e-9)


class Counted(Affine):
    calls = 0

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(t, z)


@pytest.mark.parametrize(("name", "more"), [("kinetic", 0), ("jacobian", 1), ("taylor", 1)])
def test_evaluations_of_a_penalty_are_few_and_are_not_counted_as_the_solvers(name: str, more: int) -> None:
    f, z0 = Counted(), torch.randn(3, 2, dtype=torch.float64)
    ode = NeuralODE(f, make_method("rk4", step_size=0.5))
    ode.integrals = (REGULARISERS[name],)
    ode(z0, [0.0, 1.0])
    assert ode.stats.nfe_forward == 8  # four stages, two steps
    assert f.calls == 8 + more * (8 + 1)  # one to find the shape of the integral


def test_taylor_under_autocast_is_that_of_the_weights_precision() -> None:
    """It is computed in float32, on states that an evaluation in bfloat16 has moved."""
    torch.manual_seed(0)
    field, z0 = ConvField(4), torch.randn(3, 4, 6, 6)
    ode, values = NeuralODE(field, make_method("rk4", step_size=1.0)), []
    ode.integrals = (partial(taylor, axes=3),)
    for lower in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=lower):
            ode(z0, [0.0, 1.0])
        values.append(ode.values[0].detach())
    torch.testing.assert_close(values[1], values[0], rtol=0.02, atol=0)


@pytest.mark.parametrize("name", REGULARISERS)
def test_flows_and_image_networks_have_them_too(name: str) -> None:
    torch.manual_seed(0)
    flow = Flow(2, width=8, depth=2, method=make_method("rk4", step_size=0.5), gradient="checkpoint")
    network = image_model("odenet", method=make_method("rk4", step_size=1.0), gradient="checkpoint", channels=4)
    for ode, axes, sign, run in (
        (flow.ode, 1, -1, lambda: flow.log_prob(torch.randn(5, 2))),  # from t = 1 to 0
        (network.body.ode, 3, 1, lambda: network(torch.rand(3, 1, 28, 28))),
    ):
        ode.integrals = (partial(REGULARISERS[name], axes=axes),)
        output = run()
        (value,) = ode.values
        assert value.shape == output.shape[:1]
        assert float((sign * value.detach()).min()) >= 0
        value.sum().backward()
        assert any(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in ode.field.parameters())
