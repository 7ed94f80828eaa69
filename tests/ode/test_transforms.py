"""Transforms of torch.func and forward mode go through `backprop`; the other gradients refuse them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torchdiffeq
from torch import Tensor
from torch.autograd import forward_ad

from neuralode_exp.ode import make_method, solve

METHODS = {"rk4": make_method("rk4", step_size=0.02), "dopri5": make_method("dopri5", rtol=1e-10)}
REPEATING = ("checkpoint", "adjoint", "reversible")
F64: dict[str, Any] = {"dtype": torch.float64}
TIMES = [0.0, 0.3, 1.0]


def states(contiguous: bool) -> tuple[Tensor, Tensor]:
    """An initial state and a weight."""
    generator = torch.Generator().manual_seed(0)
    weight = 0.7 * torch.randn(3, 3, generator=generator, **F64)
    z0 = torch.randn(3, 2, generator=generator, **F64).T
    return z0.contiguous() if contiguous else z0, weight


def field(weight: Tensor) -> Any:
    return lambda t, z: torch.tanh(z @ weight) * (1 + t)


def by_torchdiffeq(z0: Tensor, weight: Tensor) -> Tensor:
    z: Tensor = torchdiffeq.odeint(field(weight), z0, torch.tensor(TIMES, **F64), rtol=1e-11, atol=1e-11)
    return z[1:]


@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("transform", [torch.func.jacrev, torch.func.jacfwd])
@pytest.mark.parametrize("argument", [0, 1], ids=["z0", "weight"])
def test_jacobians_agree_with_torchdiffeq(argument: int, transform: Any, method: str, contiguous: bool) -> None:
    def ours(z0: Tensor, weight: Tensor) -> Tensor:
        return solve(field(weight), z0, TIMES, METHODS[method]).z[1:]

    z0, weight = states(contiguous)
    found = transform(ours, argnums=argument)(z0, weight)
    exact = torch.autograd.functional.jacobian(by_torchdiffeq, (z0, weight))[argument]
    torch.testing.assert_close(found, exact, rtol=0.0, atol=1e-7)


@pytest.mark.parametrize("contiguous", [True, False])
@pytest.mark.parametrize("method", METHODS)
def test_derivatives_of_a_loss_agree_with_torchdiffeq(method: str, contiguous: bool) -> None:
    z0, weight = states(contiguous)
    direction = torch.linspace(-1.0, 1.0, 6, **F64).reshape(2, 3)

    def ours(z0: Tensor) -> Tensor:
        return solve(field(weight), z0, TIMES, METHODS[method]).z.square().sum()

    def theirs(z0: Tensor) -> Tensor:
        return z0.square().sum() + by_torchdiffeq(z0, weight).square().sum()

    gradient = torch.autograd.functional.jacobian(theirs, z0)
    torch.testing.assert_close(torch.func.grad(ours)(z0), gradient, rtol=0.0, atol=1e-6)
    _, tangent = torch.func.jvp(ours, (z0,), (direction,))
    torch.testing.assert_close(tangent, (gradient * direction).sum(), rtol=0.0, atol=1e-6)
    with forward_ad.dual_level():
        dual = ours(forward_ad.make_dual(z0, direction))
        torch.testing.assert_close(forward_ad.unpack_dual(dual).tangent, tangent, rtol=0.0, atol=1e-12)
    hessian = torch.autograd.functional.hessian(theirs, z0)
    torch.testing.assert_close(torch.func.hessian(ours)(z0), hessian, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("argument", [0, 1], ids=["z0", "weight"])
@pytest.mark.parametrize("gradient", REPEATING)
def test_the_others_say_that_backprop_can(gradient: str, argument: int) -> None:
    def loss(z0: Tensor, weight: Tensor) -> Tensor:
        return solve(field(weight), z0, TIMES, METHODS["rk4"], gradient).z.sum()

    z0, weight = states(True)
    message = f"gradient='{gradient}' must be differentiated by backward, got .*; use gradient='backprop'"
    with pytest.raises(ValueError, match=message):
        torch.func.grad(loss, argnums=argument)(z0, weight)
    with pytest.raises(ValueError, match=message), forward_ad.dual_level():
        loss(forward_ad.make_dual(z0, z0), weight)


def test_times_are_differentiated_by_backward_alone() -> None:
    with pytest.raises(ValueError, match=r"`t` must be differentiated by backward, got a transform of torch\.func"):
        torch.func.grad(lambda t: solve(lambda t, z: -z, torch.ones(2, **F64), t, METHODS["rk4"]).z.sum())(
            torch.tensor(TIMES, **F64)
        )


@pytest.mark.parametrize("gradient", ["backprop", *REPEATING])
def test_f_may_use_a_transform_itself(gradient: str) -> None:
    z0 = torch.ones(2, **F64, requires_grad=True)
    energy = torch.func.grad(lambda x: x.square().sum() / 2)
    z = solve(lambda t, z: -energy(z), z0, [0.0, 1.0], METHODS["dopri5"], gradient).z[-1]
    assert torch.autograd.grad(z.sum(), z0)[0].tolist() == pytest.approx(z.tolist(), rel=1e-6)
