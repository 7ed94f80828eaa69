"""A field and its solves against the matrix exponential, and the residual flow beside it."""

import pytest
import torch
from torch import Tensor, nn

from neuralode_exp.data.inputs import coefficients
from neuralode_exp.models.fields.mlp import MLPField
from neuralode_exp.models.fields.scaled import Scaled, Units
from neuralode_exp.models.neural_ode import NeuralODE
from neuralode_exp.models.replicas import Replicas, stack
from neuralode_exp.models.residual_flow import ResidualFlow
from neuralode_exp.ode import SolverError, make_method

T0 = torch.tensor(0.0)
A = torch.tensor([[-1.0, -1.0], [1.0, -1.0]], dtype=torch.float64)
RK4 = make_method("rk4", step_size=0.1)


def states(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(99))


def mlp(dim: int = 2, seed: int = 0, **settings: int) -> MLPField:
    torch.manual_seed(seed)
    return MLPField(dim, **settings)


def linear(matrix: Tensor = A, units: Units | None = None) -> nn.Module:
    """The field A z, in any units."""
    units = units or Units.none(len(matrix))
    field = Scaled(mlp(len(matrix), depth=0), units).double()
    with torch.no_grad():
        field.field.weights[0].copy_((matrix * field.scale / field.rate[:, None]).T)
        field.field.biases[0].copy_(matrix @ field.centre / field.rate)
    return field


@pytest.mark.parametrize("gradient", ["backprop", "checkpoint", "adjoint"])
def test_linear_field_follows_matrix_exponential(gradient: str) -> None:
    units = Units(torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.5]), torch.tensor([10.0, 0.1]))
    ode = NeuralODE(linear(A, units), make_method("dopri5", rtol=1e-9, atol=1e-9), gradient)
    z0, t = states(7, 2).double(), torch.tensor([0.0, 0.3, 2.0], dtype=torch.float64)
    expected = torch.einsum("tij,bj->tbi", torch.linalg.matrix_exp(A * t[:, None, None]), z0)
    torch.testing.assert_close(ode(z0, t), expected, rtol=0, atol=1e-7)  # 1e-9 for each step


@pytest.mark.parametrize("name", ["dopri5", "rk4"])
def test_advance_gives_each_state_its_own_time(name: str) -> None:
    settings = {"rtol": 1e-9, "atol": 1e-9} if name == "dopri5" else {"step_size": 0.01}
    ode = NeuralODE(linear(), make_method(name, **settings))
    z0 = states(3, 2).double()
    duration = torch.tensor([0.1, 0.5, 1.5], dtype=torch.float64)[:, None]
    expected = torch.einsum("bij,bj->bi", torch.linalg.matrix_exp(A * duration[..., None]), z0)
    torch.testing.assert_close(ode.advance(z0, duration), expected, rtol=0, atol=1e-7)


def test_step_size_is_in_units_of_time_in_advance() -> None:
    ode = NeuralODE(linear(), make_method("rk4", step_size=0.25))
    ode.advance(states(7, 2).double(), torch.full((7, 1), 1.0, dtype=torch.float64))
    assert ode.stats.nfe_forward == 4 * 4  # four stages, four steps


def test_another_f_takes_the_place_of_the_field() -> None:
    ode = NeuralODE(linear(), make_method("rk4", step_size=0.01))
    z0 = states(3, 2).double()
    z1 = ode(z0, [0.0, 1.0], lambda t, z: ode.field(t, z) - z)[-1]
    expected = z0 @ torch.linalg.matrix_exp(A - torch.eye(2, dtype=torch.float64)).T
    torch.testing.assert_close(z1, expected, rtol=0, atol=1e-7)  # rk4 at 0.01


def test_eigenvalues_of_linear_field_and_residual_flow() -> None:
    at = torch.zeros(2, dtype=torch.float64)
    expected = torch.tensor([-1 - 1j, -1 + 1j], dtype=torch.complex128)
    torch.testing.assert_close(sorted_by_imag(NeuralODE(linear(), RK4).eigenvalues(at)), expected)
    dt = 0.1
    residual = ResidualFlow(linear(), dt).eigenvalues(at)
    torch.testing.assert_close(sorted_by_imag(residual), (1 + dt * expected).log() / dt)


def sorted_by_imag(x: Tensor) -> Tensor:
    return torch.gather(x, -1, x.imag.argsort(dim=-1))


def test_eigenvalues_are_those_of_the_jacobian_of_each_replica() -> None:
    fields, replicas = [mlp(3, seed) for seed in (0, 1)], Replicas(2)
    z = torch.tensor([0.3, -0.2, 1.0])
    learned = NeuralODE(stack(fields, replicas), RK4).eigenvalues(replicas.expand(z))
    for field, found in zip(fields, learned, strict=True):
        jacobian = torch.func.jacrev(lambda z, field=field: field(T0, z))(z)
        expected = torch.linalg.eigvals(jacobian.double())
        torch.testing.assert_close(found.real.sort().values, expected.real.sort().values, rtol=1e-4, atol=1e-5)


def test_residual_flow_applies_one_block_per_step() -> None:
    field = mlp()
    flow = ResidualFlow(field, 0.1)
    z0 = states(7, 2)
    z = flow(z0, torch.arange(4) * 0.1)
    expected = [z0]
    for _ in range(3):
        expected.append(expected[-1] + 0.1 * field(T0, expected[-1]))
    torch.testing.assert_close(z, torch.stack(expected))
    torch.testing.assert_close(flow.advance(z0, torch.full((7, 1), 0.3)), z[-1])
    assert (flow.stats.nfe_forward, flow.stats.nfe_backward) == (3, 3)


def test_residual_flow_refuses_irregular_times() -> None:
    flow = ResidualFlow(mlp(), 0.1)
    with pytest.raises(ValueError, match="sampling=regular"):
        flow(states(7, 2), torch.tensor([0.0, 0.1, 0.25]))
    with pytest.raises(ValueError, match=r"got 0\.15"):
        flow.advance(states(2, 2), torch.tensor([0.15, 0.3])[:, None])
    with pytest.raises(ValueError, match="`dt` must be > 0"):
        ResidualFlow(mlp(), 0.0)


@pytest.mark.parametrize("make", [lambda field: NeuralODE(field, RK4), lambda field: ResidualFlow(field, 0.1)])
def test_gradients(make: object) -> None:
    flow = make(mlp(width=4, depth=1).double())
    z0, duration = states(3, 2).double().requires_grad_(), torch.full((3, 1), 0.2, dtype=torch.float64)
    # gradcheck moves the parameters themselves, which the flow sees.
    assert torch.autograd.gradcheck(lambda z0, *parameters: flow.advance(z0, duration), (z0, *flow.parameters()))


def test_a_solve_in_training_starts_as_the_last_one_did() -> None:
    ode = NeuralODE(linear(), make_method("dopri5", rtol=1e-6, atol=1e-6))
    assert "first_step" not in ode.state_dict()
    z0 = states(7, 2).double()
    ode(z0, [0.0, 2.0])
    chosen, nfe = ode.stats.first_step, ode.stats.nfe_forward
    ode.start_from_previous()
    for _ in range(4):  # each first step is as long as the error of the one before permits
        ode(z0, [0.0, 2.0])
        started = ode.stats.opening
        assert float(ode.state_dict()["first_step"]) == pytest.approx(started)
    ode(z0, [0.0, 2.0])
    assert ode.stats.first_step == pytest.approx(started)  # a buffer in float32
    assert ode.stats.first_step > 1.5 * chosen
    assert ode.stats.rejected == 0
    assert ode.stats.nfe_forward < nfe
    ode.eval()
    ode(z0, [0.0, 2.0])
    assert (ode.stats.first_step, ode.stats.nfe_forward) == (chosen, nfe)
    assert float(ode.first_step) == pytest.approx(started, rel=1.0)


def test_a_solve_that_fails_leaves_the_first_step() -> None:
    ode = NeuralODE(linear(), make_method("dopri5", rtol=1e-6, atol=1e-6))
    ode.start_from_previous()
    ode(states(7, 2).double(), [0.0, 2.0])
    before = float(ode.first_step)
    ode.method = make_method("dopri5", rtol=1e-12, atol=1e-12, max_steps=2)
    with pytest.raises(SolverError):
        ode(states(7, 2).double(), [0.0, 2.0])
    assert float(ode.first_step) == before


def test_fixed_steps_have_no_first_step_to_go_on_from() -> None:
    ode = NeuralODE(linear(), RK4)
    ode.start_from_previous()
    for _ in range(2):
        ode(states(7, 2).double(), [0.0, 1.0])
        assert ode.stats.accepted == 10


def test_weights_fit_a_solver_that_keeps_no_first_step() -> None:
    kept = NeuralODE(nn.Linear(2, 2), make_method("dopri5"))
    kept.start_from_previous()
    other = NeuralODE(nn.Linear(2, 2), make_method("rk4", step_size=0.5))
    other.load_state_dict(kept.state_dict())
    kept.load_state_dict(other.state_dict())
    for name, value in other.state_dict().items():
        assert torch.equal(kept.state_dict()[name], value)


@pytest.mark.parametrize("reading", ["hold", "linear"])
def test_gradients_of_durations(reading: str) -> None:
    """A state that has the longest duration gets its gradient too."""
    ode = NeuralODE(Driven(), make_method("rk4", step_size=0.05))
    durations = torch.tensor([[[0.97], [0.53]], [[0.43], [0.81]]], dtype=torch.float64, requires_grad=True)
    z0, u = torch.ones(2, 1, dtype=torch.float64), torch.tensor([0.3, -0.2, 0.7], dtype=torch.float64)
    pieces = coefficients(torch.arange(3.0), u.view(3, 1, 1).expand(3, 2, 1), reading)
    torch.autograd.gradcheck(lambda d: ode.advance_driven(z0, d, pieces), durations)
    free = NeuralODE(Quadratic(), make_method("rk4", step_size=0.05))
    torch.autograd.gradcheck(lambda d: free.advance(z0, d), durations[0])


def test_times_whose_gradient_is_unknown_are_refused() -> None:
    t = torch.tensor([0.0, 1.0], dtype=torch.float64, requires_grad=True)
    z0, u = torch.ones(2, 1, dtype=torch.float64), torch.ones(2, 2, 1, dtype=torch.float64)
    ode = NeuralODE(Driven(), make_method("rk4", step_size=0.1))
    with pytest.raises(ValueError, match="`t` must not require a gradient where inputs"):
        ode(z0, t, u=u)
    free = NeuralODE(Quadratic(), make_method("rk4", step_size=0.1))
    free.steer = 0.1
    with pytest.raises(ValueError, match="`t` must not require a gradient where `steer`"):
        free(z0, t)


def test_inputs_need_increasing_times_and_the_field() -> None:
    z0, u = torch.ones(2, 1, dtype=torch.float64), torch.ones(3, 2, 1, dtype=torch.float64)
    ode = NeuralODE(Driven(), make_method("rk4", step_size=0.1))
    for t in ([1.0, 0.5, 0.0], [0.0, 0.5, 0.5]):
        with pytest.raises(ValueError, match=r"`t` must increase where inputs are read, got t\[\d\]=0\.5 after"):
            ode(z0, t, u=u)
    with pytest.raises(ValueError, match="`f` must be None where inputs `u` are given"):
        ode(z0, [0.0, 0.5, 1.0], lambda t, z: -z, u=u)


@pytest.mark.parametrize("name", ["dopri5", "rk4"])
def test_an_empty_batch_stays_empty(name: str) -> None:
    settings = {} if name == "dopri5" else {"step_size": 0.1}
    z0 = torch.ones(0, 1, requires_grad=True)
    ode = NeuralODE(Quadratic(), make_method(name, **settings), "checkpoint")
    for end in (ode.advance(z0, torch.ones(0, 1)), ResidualFlow(mlp(1), 0.1).advance(z0, torch.ones(0, 1))):
        assert end.shape == (0, 1)
    assert ode.stats.nfe_forward == 0
    driven = NeuralODE(Driven(), make_method(name, **settings))
    assert driven.advance_driven(z0, torch.ones(2, 0, 1), torch.ones(2, 1, 0, 1)).shape == (0, 1)


class Driven(nn.Module):
    def forward(self, t: Tensor, z: Tensor, u: Tensor) -> Tensor:
        return u - z**2


class Quadratic(nn.Module):
    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return -(z**2)
