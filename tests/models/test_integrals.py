"""Integrals along the trajectory, int |dz/dt|^2 dt, against a state that has the integral as one more column."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from neuralode_exp.models.fields.mlp import MLPField
from neuralode_exp.models.flows import BASE, DATA, Flow
from neuralode_exp.models.images import image_model
from neuralode_exp.models.neural_ode import Integrand, NeuralODE
from neuralode_exp.models.regularisers import kinetic, taylor
from neuralode_exp.models.replicas import Replicas, stack
from neuralode_exp.ode import Method, SolverError, make_method, solve

TIGHT = make_method("dopri5", rtol=1e-7, atol=1e-7)
Case = tuple[nn.Module, NeuralODE[nn.Module], Callable[[], object], Callable[[], Tensor], list[float]]


def of_states(f: object, z0: Tensor) -> Integrand:
    return lambda t, z, dz: dz.square().sum(-1)


def dynamics(gradient: str) -> Case:
    """Model, its solver, a solve, where that starts, from when to when."""
    ode = NeuralODE(MLPField(2, width=8), TIGHT, gradient).double()
    z0 = torch.randn(5, 2, dtype=torch.float64)
    ode.integrals = (of_states,)
    return ode, ode, lambda: ode(z0, [0.0, 0.3, 1.0]), lambda: z0, [0.0, 1.0]


def density(gradient: str) -> Case:
    flow = Flow(2, width=8, depth=2, method=TIGHT, gradient=gradient).double()
    x = torch.randn(5, 2, dtype=torch.float64)
    flow.ode.integrals = (of_states,)
    return flow, flow.ode, lambda: flow.log_prob(x), lambda: x, [DATA, BASE]


def images(gradient: str) -> Case:
    model = image_model("odenet", method=TIGHT, gradient=gradient, channels=4).double()
    x = torch.rand(3, 1, 28, 28, dtype=torch.float64)
    model.body.ode.integrals = (lambda f, z0: lambda t, z, dz: dz.square().flatten(1).sum(1),)
    return model, model.body.ode, lambda: model(x), lambda: model.features(x), [0.0, 1.0]


def by_one_more_column(field: nn.Module, z0: Tensor, t: list[float], method: Method = TIGHT) -> Tensor:
    def extended(t: Tensor, state: Tensor) -> Tensor:
        dz = field(t, state[:, :-1].view_as(z0)).flatten(1)
        return torch.cat((dz, dz.square().sum(1, keepdim=True)), 1)

    state = torch.cat((z0.flatten(1), z0.new_zeros(len(z0), 1)), 1)
    return solve(extended, state, t, method).z[-1, :, -1]


@pytest.mark.parametrize("gradient", ["backprop", "checkpoint", "adjoint"])
@pytest.mark.parametrize("make", [dynamics, density, images])
def test_the_integral_and_its_gradient(make: Callable[[str], Case], gradient: str) -> None:
    torch.manual_seed(0)
    model, ode, run, start, t = make(gradient)
    run()
    (value,) = ode.values
    expected = by_one_more_column(ode.field, start(), t)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=0)  # two ways of choosing steps, at 1e-7
    gradients = []
    for x in (value, expected):
        found = torch.autograd.grad(x.sum(), list(model.parameters()), allow_unused=True, materialize_grads=True)
        gradients.append(torch.cat([g.flatten() for g in found]))
    ours, true = gradients
    # The adjoint of a field with ReLUs meets a jump of its equation wherever one switches.
    tolerance = 0.03 if make is images and gradient == "adjoint" else 1e-4
    assert (ours - true).norm() < tolerance * true.norm()


class Decay(nn.Module):
    """dz/dt = -rate z, so that z = exp(-rate t) z0."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.8, dtype=torch.float64))

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return -self.rate * z


def closed_forms(rate: Tensor, durations: Tensor) -> list[Tensor]:
    """The integrals of |dz/dt|^2, |d^2z/dt^2|^2 and |df/dz|^2 over the durations from z0 = 1."""
    of_squares = (1 - torch.exp(-2 * rate * durations)) / (2 * rate)
    return [rate**2 * of_squares, rate**4 * of_squares, rate**2 * durations]


@pytest.mark.parametrize("gradient", ["backprop", "checkpoint", "adjoint", "reversible"])
@pytest.mark.parametrize("shape", [(2, 1), (3, 2, 1)])
def test_each_state_has_the_integrals_of_its_own_duration(shape: tuple[int, ...], gradient: str) -> None:
    ode = NeuralODE(Decay(), make_method("rk4", step_size=0.02), gradient)
    ode.integrals = (kinetic, taylor, of_jacobian)
    durations = 0.5 * (1 + torch.arange(math.prod(shape), dtype=torch.float64)).view(shape).requires_grad_()
    z = ode.advance(torch.ones(shape, dtype=torch.float64), durations)
    torch.testing.assert_close(z, torch.exp(-ode.field.rate * durations), rtol=1e-6, atol=0)
    exact = closed_forms(ode.field.rate, durations.squeeze(-1))
    for found, true in zip(ode.values, exact, strict=True):
        torch.testing.assert_close(found, true, rtol=1e-6, atol=0)
    both = [torch.autograd.grad(torch.stack(x).sum(), (ode.field.rate, durations)) for x in (list(ode.values), exact)]
    torch.testing.assert_close(*both, rtol=1e-5, atol=1e-8)


def of_jacobian(f: Callable[[Tensor, Tensor], Tensor], z0: Tensor) -> Integrand:
    """|v df/dz|^2 for v = 1 instead of a random one."""

    def integrand(t: Tensor, z: Tensor, dz: Tensor) -> Tensor:
        asked = torch.is_grad_enabled()
        with torch.enable_grad():
            z = z if z.requires_grad else z.detach().requires_grad_()
            (product,) = torch.autograd.grad(f(t, z).sum(), z, create_graph=asked)
        return product.square().sum(-1)

    return integrand


def test_another_f_and_inputs_are_refused() -> None:
    ode = NeuralODE(Decay(), make_method("rk4", step_size=0.5))
    ode.integrals = (kinetic,)
    z0, u = torch.ones(2, 1, dtype=torch.float64), torch.ones(2, 2, 1, dtype=torch.float64)
    with pytest.raises(ValueError, match="t and z alone, got another f"):
        ode(z0, [0.0, 1.0], lambda t, z: -2 * z)
    with pytest.raises(ValueError, match="t and z alone, got inputs"):
        ode(z0, [0.0, 1.0], u=u)
    with pytest.raises(ValueError, match="t and z alone, got inputs"):
        ode.advance_driven(z0, torch.ones(1, 2, 1), u[None, :1])
    ode((z0, z0), [0.0, 1.0], lambda t, z: (ode.field(t, z[0]), -z[1]))  # as a flow's
    assert len(ode.values) == 1


def test_a_solve_without_integrals_leaves_none_of_an_earlier_one() -> None:
    ode = NeuralODE(Decay(), make_method("rk4", step_size=0.5, max_steps=10))
    z0 = torch.ones(2, 1, dtype=torch.float64)
    for again in (
        lambda: ode(z0, [0.0, 1.0]),
        lambda: ode.advance(z0, torch.ones_like(z0)),
        lambda: ode(z0, [0.0, 1.0], lambda t, z: -z),
    ):
        ode.integrals = (kinetic,)
        ode(z0, [0.0, 1.0])
        assert len(ode.values) == 1
        ode.integrals = ()
        again()
        assert ode.values == ()
    ode.integrals = (kinetic,)
    ode(z0, [0.0, 1.0])
    with pytest.raises(SolverError):
        ode(z0, [0.0, 100.0])
    assert ode.values == ()


def test_the_error_norm_leaves_integrals_out() -> None:
    torch.manual_seed(0)
    ode = NeuralODE(MLPField(2, width=8), make_method("dopri5", rtol=1e-4, atol=1e-4))
    z0 = torch.randn(5, 2)
    alone, accepted = ode(z0, [0.0, 0.4, 1.0]), ode.stats.accepted
    ode.integrals = (
        lambda f, z0: lambda t, z, dz: 1e6 * dz.square().sum(-1),
        lambda f, z0: lambda t, z, dz: 1 + 0 * dz[..., 0],
    )
    torch.testing.assert_close(ode(z0, [0.0, 0.4, 1.0]), alone)
    assert ode.stats.accepted == accepted
    torch.testing.assert_close(ode.values[1], torch.ones(5))


def test_an_integrand_may_differentiate_the_field() -> None:
    """int |v^T df/dz|^2 dt of z' = A z is |A^T v|^2."""
    ode = NeuralODE(MLPField(2, depth=0), make_method("rk4", step_size=0.5), "checkpoint").double()
    v = torch.tensor([1.0, -1.0], dtype=torch.float64)

    def jacobian(t: Tensor, z: Tensor, dz: Tensor) -> Tensor:
        return torch.autograd.grad(dz, z, v.expand_as(dz), create_graph=True)[0].square().sum(-1)

    ode.integrals = (lambda f, z0: jacobian,)
    ode(torch.randn(5, 2, dtype=torch.float64), [0.0, 1.0])
    expected = (ode.field.weights[0] @ v).square().sum()
    torch.testing.assert_close(ode.values[0], expected.expand(5))
    ours, true = (torch.autograd.grad(x, ode.field.weights[0])[0] for x in (ode.values[0].mean(), expected))
    torch.testing.assert_close(ours, true)


def test_each_replica_has_its_own() -> None:
    fields, replicas = [MLPField(2, width=8).double() for _ in range(3)], Replicas(3)
    z0 = torch.randn(3, 5, 2, dtype=torch.float64)
    values = []
    for field, start in ((stack(fields, replicas), z0), (fields[1], z0[1])):
        ode = NeuralODE(field, make_method("rk4", step_size=0.25))
        ode.integrals = (of_states,)
        ode(start, [0.0, 1.0])
        values += ode.values
    assert values[0].shape == (3, 5)
    torch.testing.assert_close(values[0][1], values[1])


def test_a_solve_with_integrals_still_says_which_replica_failed() -> None:
    fields, replicas = [MLPField(2, width=8) for _ in range(3)], Replicas(3)
    ode = NeuralODE(stack(fields, replicas), make_method("rk4", step_size=0.25))
    ode.integrals = (of_states,)
    with torch.no_grad():
        ode.field.stacked.biases[-1][1] = 1e38
    with pytest.raises(SolverError) as failed:
        ode(torch.randn(3, 5, 2), [0.0, 10.0])
    assert replicas.blame(failed.value.state).tolist() == [False, True, False]
