"""Networks on vectors: stacks of replicas, exact flows, counts of parameters and gradients."""

import math

import pytest
import torch
from torch import Tensor

from neuralode_exp.models.neural_ode import NeuralODE
from neuralode_exp.models.vectors import ACTIVATIONS, MLPField, ResidualFlow
from neuralode_exp.ode import make_method

T0 = torch.tensor(0.0)
A = torch.tensor([[-1.0, -1.0], [1.0, -1.0]], dtype=torch.float64)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def states(replicas: int, n: int = 7, dim: int = 2) -> Tensor:
    return torch.randn(replicas, n, dim, generator=torch.Generator().manual_seed(99))


def linear_field(matrix: Tensor, replicas: int = 1, **units: Tensor) -> MLPField:
    """The field A z."""
    field = MLPField(len(matrix), depth=0, generators=generators(*range(replicas)), **units).double()
    with torch.no_grad():
        field.weights[0].copy_((matrix * field.scale / field.rate[:, None]).T.expand(replicas, -1, -1))
        field.biases[0].copy_((matrix @ field.centre / field.rate).expand(replicas, 1, -1))
    return field


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_replica_equals_separate_network(activation: str) -> None:
    stack = MLPField(2, width=16, activation=activation, generators=generators(3, 4, 5))
    z = states(3)
    for k, seed in enumerate((3, 4, 5)):
        alone = MLPField(2, width=16, activation=activation, generators=generators(seed))
        # A batched product may sum in another order.
        torch.testing.assert_close(stack(T0, z)[k], alone(T0, z[k : k + 1])[0], rtol=1e-5, atol=1e-6)


def test_field_equals_torch_layers() -> None:
    field = MLPField(3, width=8, depth=2, activation="tanh", generators=generators(0))
    h = states(1, dim=3)[0]
    expected = h
    for weight, bias in zip(field.weights, field.biases, strict=True):
        h = torch.nn.functional.linear(expected, weight[0].T, bias[0, 0])
        expected = torch.tanh(h)
    torch.testing.assert_close(field(T0, states(1, dim=3))[0], h, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("depth", "expected"),
    [(0, 2 * 2 + 2), (1, (2 * 64 + 64) + (64 * 2 + 2)), (2, (2 * 64 + 64) + (64 * 64 + 64) + (64 * 2 + 2))],
)
def test_number_of_parameters(depth: int, expected: int) -> None:
    field = MLPField(2, width=64, depth=depth, generators=generators(0, 1))
    assert sum(p.numel() for p in field.parameters()) == 2 * expected


def test_units_scale_inputs_and_outputs() -> None:
    centre, scale, rate = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 0.5]), torch.tensor([10.0, 0.1])
    plain = MLPField(2, generators=generators(0))
    field = MLPField(2, generators=generators(0), centre=centre, scale=scale, rate=rate)
    z = states(1)
    torch.testing.assert_close(field(T0, z), rate * plain(T0, (z - centre) / scale))


@pytest.mark.parametrize("gradient", ["backprop", "checkpoint", "adjoint"])
def test_linear_field_follows_matrix_exponential(gradient: str) -> None:
    units = {"centre": torch.tensor([1.0, -2.0]), "scale": torch.tensor([3.0, 0.5]), "rate": torch.tensor([10.0, 0.1])}
    flow = NeuralODE(linear_field(A, 2, **units), make_method("dopri5", rtol=1e-9, atol=1e-9), gradient)
    z0, t = states(2).double(), torch.tensor([0.0, 0.3, 2.0], dtype=torch.float64)
    expected = torch.einsum("tij,rbj->trbi", torch.linalg.matrix_exp(A * t[:, None, None]), z0)
    torch.testing.assert_close(flow(z0, t), expected, rtol=0, atol=1e-7)  # 1e-9 for each step


@pytest.mark.parametrize("name", ["dopri5", "rk4"])
def test_advance_gives_each_state_its_own_time(name: str) -> None:
    settings = {"rtol": 1e-9, "atol": 1e-9} if name == "dopri5" else {"step_size": 0.01}
    flow = NeuralODE(linear_field(A), make_method(name, **settings))
    z0 = states(1, 3).double()
    duration = torch.tensor([0.1, 0.5, 1.5], dtype=torch.float64)[None, :, None]
    expected = torch.einsum("rbij,rbj->rbi", torch.linalg.matrix_exp(A * duration[..., None]), z0)
    torch.testing.assert_close(flow.advance(z0, duration), expected, rtol=0, atol=1e-7)


def test_step_size_is_in_units_of_time_in_advance() -> None:
    flow = NeuralODE(linear_field(A), make_method("rk4", step_size=0.25))
    flow.advance(states(1).double(), torch.full((1, 7, 1), 1.0, dtype=torch.float64))
    assert flow.stats.nfe_forward == 4 * 4  # four stages, four steps


def test_frozen_replica_stays_and_leaves_the_others_alone() -> None:
    field = linear_field(A, 3)
    flow = NeuralODE(field, make_method("rk4", step_size=0.1))
    z0, t = states(3).double(), torch.tensor([0.0, 1.0], dtype=torch.float64)
    free = flow(z0, t)[-1]
    with torch.no_grad():
        field.weights[0][1] = 1e12  # would overflow
    field.freeze(torch.tensor([False, True, False]))
    z = flow(z0, t)[-1]
    assert torch.equal(z[1], z0[1])
    assert torch.equal(z[[0, 2]], free[[0, 2]])
    z.sum().backward()
    assert torch.equal(field.weights[0].grad[1], torch.zeros(2, 2))
    field.freeze(torch.zeros(3, dtype=torch.bool))
    assert torch.equal(field.active, torch.ones(3, 1, 1, dtype=torch.float64))


def test_eigenvalues_of_linear_field_and_residual_map() -> None:
    field = linear_field(A, 2)
    at = torch.zeros(2, 2, dtype=torch.float64)
    expected = torch.tensor([-1 - 1j, -1 + 1j], dtype=torch.complex128).expand(2, 2)
    ode = NeuralODE(field, make_method("rk4", step_size=0.1)).eigenvalues(at)
    torch.testing.assert_close(sorted_by_imag(ode), expected)
    dt = 0.1
    residual = ResidualFlow(field, dt).eigenvalues(at)
    torch.testing.assert_close(sorted_by_imag(residual), (1 + dt * expected).log() / dt)


def sorted_by_imag(x: Tensor) -> Tensor:
    return torch.gather(x, -1, x.imag.argsort(dim=-1))


def test_eigenvalues_are_those_of_the_jacobian() -> None:
    field = MLPField(3, generators=generators(0, 1))
    z = torch.tensor([0.3, -0.2, 1.0])
    learned = NeuralODE(field, make_method("rk4", step_size=0.1)).eigenvalues(z.expand(2, -1))
    for k in range(2):
        jacobian = torch.func.jacrev(lambda z, k=k: field(T0, z.expand(2, 1, 3))[k, 0])(z)
        expected = torch.linalg.eigvals(jacobian.double())
        torch.testing.assert_close(learned[k].real.sort().values, expected.real.sort().values, rtol=1e-4, atol=1e-5)


def test_residual_flow_applies_one_block_per_step() -> None:
    field = MLPField(2, generators=generators(0))
    flow = ResidualFlow(field, 0.1)
    z0 = states(1)
    z = flow(z0, torch.arange(4) * 0.1)
    expected = [z0]
    for _ in range(3):
        expected.append(expected[-1] + 0.1 * field(T0, expected[-1]))
    torch.testing.assert_close(z, torch.stack(expected))
    torch.testing.assert_close(flow.advance(z0, torch.full((1, 7, 1), 0.3)), z[-1])
    assert (flow.stats.nfe_forward, flow.stats.nfe_backward) == (3, 3)


def test_residual_flow_refuses_irregular_times() -> None:
    flow = ResidualFlow(MLPField(2, generators=generators(0)), 0.1)
    with pytest.raises(ValueError, match="sampling=regular"):
        flow(states(1), torch.tensor([0.0, 0.1, 0.25]))
    with pytest.raises(ValueError, match=r"got 0\.15"):
        flow.advance(states(1, 2), torch.tensor([0.15, 0.3])[None, :, None])


@pytest.mark.parametrize("flow_of", ["ode", "residual"])
def test_gradients(flow_of: str) -> None:
    field = MLPField(2, width=4, depth=1, generators=generators(0, 1)).double()
    flow = NeuralODE(field, make_method("rk4", step_size=0.1)) if flow_of == "ode" else ResidualFlow(field, 0.1)
    z0 = states(2, 3).double().requires_grad_()
    duration = torch.full((2, 3, 1), 0.2, dtype=torch.float64)
    # gradcheck moves the parameters themselves, which the flow sees.
    assert torch.autograd.gradcheck(lambda z0, *parameters: flow.advance(z0, duration), (z0, *flow.parameters()))


def test_mistakes_are_named() -> None:
    with pytest.raises(ValueError, match="`activation` must be one of tanh, softplus, silu, got 'relu'"):
        MLPField(2, activation="relu", generators=generators(0))
    with pytest.raises(ValueError, match="one for each replica"):
        MLPField(2, generators=[])
    with pytest.raises(ValueError, match="`dt` must be > 0"):
        ResidualFlow(MLPField(2, generators=generators(0)), 0.0)


def test_initial_range() -> None:
    field = MLPField(2, width=256, generators=generators(0))
    for weight in field.weights:
        bound = 1 / math.sqrt(weight.shape[1])
        assert 0.98 * bound < weight.abs().max() <= bound
