"""Systems of a function alone: the fixed point is found where there is one, trajectories are accurate."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from neuralode_exp.data.systems import make_system, system_of


def pendulum(t: Tensor, z: Tensor) -> Tensor:
    assert t.dim() == 0
    return torch.stack((z[..., 1], -torch.sin(z[..., 0])), -1)


def stack(*parts: Tensor) -> Tensor:
    return torch.stack(parts, -1)


def test_the_fixed_point_nearest_to_the_centre_is_found_with_its_eigenvalues() -> None:
    system = system_of(pendulum, 2, low=[2.5, -1.0], high=[4.5, 1.0])
    assert system.fixed_point is not None
    assert system.eigenvalues is not None
    torch.testing.assert_close(system.fixed_point, torch.tensor([math.pi, 0.0], dtype=torch.float64))
    torch.testing.assert_close(system.eigenvalues.real.sort().values, torch.tensor([-1.0, 1.0], dtype=torch.float64))


@pytest.mark.parametrize(
    "f",
    [
        lambda t, z: stack(torch.ones_like(z[..., 0]), z[..., 0]),  # no root
        lambda t, z: stack(z[..., 1], t - z[..., 0]),  # moves with t
        lambda t, z: stack(z[..., 1] - 50.0, -z[..., 0]),  # far away
        lambda t, z: z**3,  # its Jacobian is 0 there
    ],
    ids=["none", "moving", "far", "flat"],
)
def test_where_there_is_no_fixed_point_none_is_made_up(f) -> None:
    assert system_of(f, 2).fixed_point is None


@pytest.mark.parametrize("stiff", [False, True])
def test_trajectories_are_those_of_the_systems_own_solve(stiff: bool) -> None:
    own = make_system("van-der-pol", mu=2.0)
    system = system_of(lambda t, z: own.f(t, z), 2, stiff=stiff)
    z0 = torch.tensor([[1.0, 0.5], [-2.0, 0.1]], dtype=torch.float64)
    t = torch.linspace(0, 5, 11)
    # Both solve at rtol 1e-10.
    torch.testing.assert_close(system.flow(z0, t), own.flow(z0, t), rtol=1e-7, atol=1e-8)


def test_a_box_of_another_dimension_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`low` and `high` must be one number or 2"):
        system_of(pendulum, 2, low=[0.0, 0.0, 0.0])
