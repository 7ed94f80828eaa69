"""Stacks of networks: any module by vmap, the MLP by its own products; who is left out, and what is clipped."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn

from neuralode_exp.models.fields.mlp import MLPField
from neuralode_exp.models.neural_ode import NeuralODE
from neuralode_exp.models.replicas import Replicas, Stack, stack
from neuralode_exp.ode import make_method

T0 = torch.tensor(0.0)
RK4 = make_method("rk4", step_size=0.25)
GRADIENTS = ("backprop", "checkpoint", "adjoint")


class Plain(nn.Module):
    """A field that nobody has prepared for replicas; with a buffer."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.inner, self.outer = nn.Linear(2, 8), nn.Linear(8, 2)
        self.register_buffer("slope", torch.tensor(float(seed)))

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return self.outer(torch.tanh(self.inner(z))) + self.slope * torch.sin(t)


def mlp(seed: int) -> MLPField:
    torch.manual_seed(seed)
    return MLPField(2, width=8)


def states(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(99))


def mask(*flags: int) -> Tensor:
    return torch.tensor(flags, dtype=torch.bool)


def test_one_replica_is_the_plain_module() -> None:
    field = mlp(0)
    assert stack([field], Replicas(1)) is field


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("make", [mlp, Plain])
def test_each_replica_is_the_network_alone(make: type[nn.Module], gradient: str) -> None:
    fields = [make(seed) for seed in (3, 4, 5)]
    stacked = NeuralODE(stack(copy.deepcopy(fields), Replicas(3)), RK4, gradient).double()
    z0 = states(3, 7, 2).double()
    z = stacked(z0, [0.0, 0.5, 1.0])
    z.square().sum().backward()
    gradients = {name: p.grad for name, p in stacked.field.stacked.named_parameters()}
    for k, field in enumerate(fields):
        alone = NeuralODE(field, RK4, gradient).double()
        z_k = alone(z0[k], [0.0, 0.5, 1.0])
        z_k.square().sum().backward()
        torch.testing.assert_close(z[:, k], z_k, rtol=0, atol=1e-13)
        for name, p in field.named_parameters():
            torch.testing.assert_close(gradients[name][k], p.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("make", [mlp, Plain])
def test_who_is_left_out_stays_and_leaves_the_others_alone(make: type[nn.Module], gradient: str) -> None:
    replicas = Replicas(3)
    ode = NeuralODE(stack([make(seed) for seed in (3, 4, 5)], replicas), RK4, gradient)
    z0 = states(3, 7, 2)
    free = ode(z0, [0.0, 1.0])[-1]
    with torch.no_grad():
        for p in ode.parameters():
            p[1] = math.nan
    replicas.leave_out(mask(0, 1, 0))
    z = ode(z0, [0.0, 1.0])[-1]
    assert torch.equal(z[1], z0[1])
    torch.testing.assert_close(z[[0, 2]], free[[0, 2]])
    z.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in ode.parameters())
    assert all(not p.grad[1].any() for p in ode.parameters())
    replicas.take_back()
    assert not replicas.some_out


def test_a_stack_keeps_the_names_of_one_network() -> None:
    stacked = Stack([Plain(0), Plain(1)], Replicas(2))
    assert [name.removeprefix("stacked.") for name in stacked.state_dict()] == list(Plain(0).state_dict())
    assert stacked.stacked.inner.weight.shape == (2, 8, 2)
    assert stacked.stacked.slope.tolist() == [0.0, 1.0]


def test_the_frozen_stay_out() -> None:
    replicas = Replicas(3)
    replicas.freeze(mask(1, 0, 0))
    replicas.leave_out(mask(0, 1, 0))
    assert replicas.out.tolist() == [True, True, False]
    assert replicas.masked(torch.full((3, 2), math.nan)).isnan().all(1).tolist() == [False, False, True]
    replicas.take_back()
    assert replicas.out.tolist() == replicas.frozen.tolist() == [True, False, False]


def test_blame_falls_on_the_infinite_then_on_the_largest_then_on_all() -> None:
    replicas, state = Replicas(3), torch.ones(3, 4, 2)
    state[1, 2, 0] = math.inf
    assert replicas.blame(state).tolist() == [False, True, False]
    finite = torch.ones(5, 3, 4, 2)  # several times
    finite[0, 2, 0, 0] = -7.0
    assert replicas.blame(finite).tolist() == [False, False, True]
    assert replicas.out.tolist() == [False, True, True]
    assert replicas.blame(finite).tolist() == [False, False, False]
    assert replicas.out.all()
    assert Replicas(1).blame(torch.ones(4, 2)).tolist() == [True]


def test_clipping_is_by_replica_and_removes_nan() -> None:
    replicas = Replicas(3)
    p = nn.Parameter(torch.zeros(3, 2))
    p.grad = torch.tensor([[3.0, 4.0], [0.3, 0.4], [math.nan, 1.0]])
    norms = replicas.gradient_norms([p])
    torch.testing.assert_close(norms[:2], torch.tensor([5.0, 0.5]))
    replicas.clip([p], norms, 1.0, torch.isfinite(norms))
    torch.testing.assert_close(p.grad, torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]]))


def test_one_network_is_clipped_as_by_torch() -> None:
    layer = nn.Linear(3, 2)
    layer(torch.ones(4, 3)).square().sum().backward()
    other = copy.deepcopy(layer)
    for p, q in zip(layer.parameters(), other.parameters(), strict=True):
        q.grad = p.grad.clone()
    norms = Replicas().gradient_norms(layer.parameters())
    Replicas().clip(layer.parameters(), norms, 0.1, mask(1))
    expected = nn.utils.clip_grad_norm_(other.parameters(), 0.1)
    torch.testing.assert_close(norms[0], expected)
    for p, q in zip(layer.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-4, atol=0)  # torch adds 1e-6 to the norm


def test_weights_and_moments_of_the_others_stay() -> None:
    replicas, p = Replicas(2), nn.Parameter(torch.ones(2, 3))
    optimizer = torch.optim.Adam([p], lr=0.1)
    p.grad = torch.ones(2, 3)
    optimizer.step()
    before = [p.detach().clone(), optimizer.state[p]["exp_avg"].clone()]
    with replicas.only(mask(1, 0), [p], optimizer):
        optimizer.step()
    for x, y in zip(before, (p, optimizer.state[p]["exp_avg"]), strict=True):
        assert torch.equal(x[1], y[1])
        assert not torch.equal(x[0], y[0])
