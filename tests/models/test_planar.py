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
