"""Planar flows: the determinant against autograd's, the inverse, and the mass of the density."""

import math

import pytest
import torch

from neuralode_exp.models.planar import PlanarFlow


def planar(dim: int, layers: int) -> PlanarFlow:
    torch.manual_seed(dim)
    flow = PlanarFlow(dim, layers).double()
    with torch.no_grad():  # w . v far below -1, where only the constraint keeps the layers invertible
        flow.w.mul_(3.0)
        flow.v.copy_(-2.0 * flow.w)
        flow.b.uniform_(-1, 1)
    return flow


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_log_density_is_that_of_the_change_of_variables(dim: int) -> None:
    flow, x = planar(dim, 6), torch.randn(7, dim, dtype=torch.float64)
    jacobian = torch.stack([torch.autograd.functional.jacobian(lambda x: flow.to_base(x[None])[0], row) for row in x])
    z = flow.to_base(x)
    log_normal = -(z.square().sum(1) + dim * math.log(2 * math.pi)) / 2
    torch.testing.assert_close(flow.log_prob(x), log_normal + torch.linalg.slogdet(jacobian)[1])


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_layers_are_undone(dim: int) -> None:
    flow, x = planar(dim, 6), torch.randn(7, dim, dtype=torch.float64)
    torch.testing.assert_close(flow.to_data(flow.to_base(x)), x)
    samples, log_prob = flow.sample_with_log_prob(50, torch.Generator().manual_seed(0))
    torch.testing.assert_close(log_prob, flow.log_prob(samples))


def test_gradients_of_the_inverse_are_those_of_its_differences() -> None:
    """Of points, samples, densities and paths, to the base points and all parameters, also the second ones."""
    flow, z0 = planar(2, 3), torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        flow.v.mul_(0.5)
    inputs = (z0, *flow.parameters())  # gradcheck moves the parameters themselves, which the flow sees
    assert torch.autograd.gradcheck(lambda z0, *parameters: flow.to_data(z0), inputs)
    assert torch.autograd.gradcheck(lambda z0, *parameters: flow.on_the_way(z0, [0.0, 0.4, 1.0]), inputs)
    assert torch.autograd.gradcheck(lambda z0, *parameters: flow.to_data_with_log_prob(z0), inputs)
    assert torch.autograd.gradgradcheck(lambda z0, *parameters: flow.to_data(z0), inputs)
    seeded = lambda *parameters: flow.sample_with_log_prob(4, torch.Generator().manual_seed(0))  # noqa: E731
    assert torch.autograd.gradcheck(seeded, tuple(flow.parameters()))


@pytest.mark.parametrize("dim", [1, 3])
def test_the_jacobian_of_the_inverse_is_the_inverse_of_the_jacobian(dim: int) -> None:
    flow, x = planar(dim, 6), torch.randn(dim, dtype=torch.float64)
    z = flow.to_base(x[None])[0]
    for jacobian in (torch.autograd.functional.jacobian, lambda f, at: torch.func.jacrev(f)(at)):
        there = jacobian(lambda x: flow.to_base(x[None])[0], x)
        back = jacobian(lambda z: flow.to_data(z[None])[0], z)
        torch.testing.assert_close(back @ there, torch.eye(dim, dtype=torch.float64))


def test_a_path_undoes_layer_after_layer() -> None:
    flow, x = planar(2, 4), torch.randn(7, 2, dtype=torch.float64)
    path = flow.on_the_way(flow.to_base(x), [0.0, 0.25, 0.5, 1.0])
    first = PlanarFlow(2, 3).double()
    first.load_state_dict({name: value[:3] for name, value in flow.state_dict().items()})
    torch.testing.assert_close(path[1], first.to_base(x))  # all layers but the last
    torch.testing.assert_close(path[-1], x)
    assert flow.stats.nfe_forward == 4


def test_density_integrates_to_one() -> None:
    flow, side = planar(2, 6), torch.linspace(-30, 30, 1201, dtype=torch.float64)
    with torch.no_grad():
        mass = flow.log_prob(torch.cartesian_prod(side, side)).exp().sum() * float(side[1] - side[0]) ** 2
    assert float(mass) == pytest.approx(1.0, abs=1e-3)
