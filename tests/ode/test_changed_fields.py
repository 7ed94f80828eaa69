"""A field that is no longer the same when backward evaluates it again: right or refused, never a wrong number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuralode_exp.ode import solve
from tests.ode.test_right_or_refused import METHODS, TIGHT, assert_right_or_refused
from tests.ode.uses import F64, SPAN, Conditioned, Loss, Run, leaf, mlp, named, size


@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
def test_a_captured_tensor_changed_before_backward_is_noticed(gradient: str) -> None:
    rate, z0 = leaf(2), leaf(3, 2)
    z = solve(lambda t, z: torch.sin(rate * z), z0, SPAN, METHODS["dopri5"], gradient).z
    with torch.no_grad():
        rate.add_(1.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        size(z).backward()


def intervals(run: Run, context_of: Callable[[Tensor], Any]) -> Loss:
    """One field for three intervals, with a context of its own in each; backward comes after all of them."""
    f, x, z0 = Conditioned(), torch.randn(3, 3, 2, **F64), leaf(3, 2)
    z = z0
    for i in range(3):
        f.ctx = context_of(x[i])
        z = run(f, z, [0.3 * i, 0.3 * (i + 1)])[-1]
    return size(z), {**named(f=f), "z0": z0}


@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
@pytest.mark.parametrize("method", ["rk4", "dopri5", "tight"])
def test_an_input_that_changes_from_solve_to_solve(method: str, gradient: str) -> None:
    """As held inputs have it: no gradient flows to them, but the weights' gradients depend on their values."""
    if gradient == "adjoint" and method != "tight":
        pytest.skip("the adjoint of coarse steps is not their derivative")
    step, tolerance = TIGHT if method == "tight" else METHODS[method], 1e-8 if gradient == "checkpoint" else 1e-5
    assert_right_or_refused(lambda run: intervals(run, lambda x: x), step, gradient, tolerance, "chang|same")


@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
@pytest.mark.parametrize("method", ["rk4", "dopri5", "tight"])
def test_a_code_that_changes_from_solve_to_solve(method: str, gradient: str) -> None:
    if gradient == "adjoint" and method != "tight":
        pytest.skip("the adjoint of coarse steps is not their derivative")
    step, tolerance = TIGHT if method == "tight" else METHODS[method], 1e-8 if gradient == "checkpoint" else 1e-5

    def encoded(run: Run) -> Loss:
        encoder = mlp()
        loss, leaves = intervals(run, encoder)
        return loss, {**leaves, **named(encoder=encoder)}

    assert_right_or_refused(encoded, step, gradient, tolerance, "call|chang|same")


@pytest.mark.parametrize("method", ["rk4", "rk4, one step"])
def test_noise_from_a_generator_of_its_own(method: str) -> None:
    """Backward cannot set back a generator that it does not know."""

    def noisy(run: Run) -> Loss:
        f, z0, generator = Conditioned(), leaf(3, 2), torch.Generator().manual_seed(0)
        f.ctx = leaf(2)

        def draw(t: Tensor, z: Tensor) -> Tensor:
            return f(t, z) * (1 + torch.randn(3, 2, generator=generator, **F64))

        return size(run(draw, z0, SPAN)[-1]), {**named(f=f), "ctx": f.ctx, "z0": z0}

    assert_right_or_refused(noisy, METHODS[method], "checkpoint", 1e-8, "chang|same|random|generator")


class Scale(torch.autograd.Function):
    """z * w, in a form that torch's functions do not see."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(z, w)
        return z * w

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, adj: Tensor) -> tuple[Tensor, Tensor]:
        z, w = ctx.saved_tensors
        return adj * w, (adj * z).sum(0)


@pytest.mark.parametrize("listed", [True, False])
@pytest.mark.parametrize("gradient", ["checkpoint", "adjoint"])
@pytest.mark.parametrize("computed", [True, False])
def test_a_captured_tensor_in_a_function_of_the_users(computed: bool, gradient: str, listed: bool) -> None:
    def scaled(run: Run) -> Loss:
        p, z0 = leaf(2), leaf(3, 2)
        w = torch.exp(p) if computed else p
        z = run(lambda t, z: torch.sin(Scale.apply(z, w)), z0, SPAN, **({"parameters": [w]} if listed else {}))
        return size(z[-1]), {"p": p, "z0": z0}

    reason = "it is listed, and must be right" if listed else "parameters="
    assert_right_or_refused(scaled, TIGHT, gradient, 1e-8 if gradient == "checkpoint" else 1e-5, reason)
