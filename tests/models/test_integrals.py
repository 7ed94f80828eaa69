"""Integrals along the trajectory, int |dz/dt|^2 dt, against a state that has the integral as one more column."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from neuralode_exp.models.fields.mlp import MLPField
from neuralode_exp.models.flows import BASE, DATA, Flow
from neuralode_exp.models.images import image_model
from neuralode_exp.models.neural_ode import Integrand, NeuralODE
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
