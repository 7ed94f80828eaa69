"""A field that is no longer the same when backward evaluates it again: right or refused, never a wrong number."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from neuralode_exp.ode import Method, make_method, solve
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


ONE_STEP = make_method("dopri5", rtol=1e6, atol=1e6, first_step=10.0)
CHANGES = {
    "everywhere": lambda t: 1.2,
    "late": lambda t: 2.0 if t > 0.95 else 1.0,
    "at the end": lambda t: 2.0 if t > 0.9999 else 1.0,
    "to nan": lambda t: math.nan,
}


def gradient_after_a_change(
    method: Method, change: Callable[[Any], float], times: list[float], *, second: bool, errors: bool
) -> float:
    """The gradient of w for dz/dt = w c(t) z, where c = 1 changes before the first backward or before a second one."""
    w, c = torch.ones((), **F64, requires_grad=True), [lambda t: 1.0]
    solution = solve(lambda t, z: w * c[0](t) * z, torch.ones(1, **F64), times, method, "checkpoint", errors=errors)
    loss = solution.z.sum() + (solution.errors.sum() if errors else 0.0)
    if second:
        torch.autograd.grad(loss, w, retain_graph=True)
    c[0] = change
    return float(torch.autograd.grad(loss, w)[0])


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("times", [[0.0, 1.0], [0.0, 0.97, 1.0]], ids=["ends", "inside"])
@pytest.mark.parametrize("name", ["one step", "dopri5", "bosh3", "dop853", "rk4"])
def test_a_last_step_that_is_evaluated_again_must_end_where_it_ended(
    name: str, times: list[float], change: Any
) -> None:
    """The first backward has the graphs of the last step; a second one repeats it, and so does one of errors=True."""
    methods = {"one step": ONE_STEP, "rk4": make_method("rk4", step_size=0.2)}
    method = methods.get(name) or make_method(name, rtol=1e-4)
    refused = 0
    for second, errors in [(False, False), (True, False), *([] if name == "rk4" else [(False, True), (True, True)])]:
        found = partial(gradient_after_a_change, method, times=times, second=second, errors=errors)
        right = found(lambda t: 1.0)
        try:
            assert found(change) == pytest.approx(right, rel=1e-9)
        except ValueError as error:
            refused += "must be the same in backward as in the solve" in str(error)
    # The stages of bosh3 lie before the end of a step.
    assert refused > 0 or (name == "bosh3" and change is CHANGES["at the end"])


@pytest.mark.parametrize("name", ["bosh3", "dopri5"])
def test_the_first_stage_of_the_last_step_is_compared_too(name: str) -> None:
    """Its graph belongs to the step before; only f at that state differs, which no other stage sees."""
    w, states, factor = torch.ones((), **F64, requires_grad=True), [], [1.0]
    method = make_method(name, rtol=1e6, first_step=0.5, max_step=0.5)

    def f(t: Tensor, z: Tensor) -> Tensor:
        states.append((float(t), float(z.detach())))
        return w * z * (factor[0] if states[-1] == middle else 1.0)

    middle = (0.5, math.nan)
    solve(f, torch.ones(1, **F64), [0.0, 1.0], method, "checkpoint")
    middle = next((t, z) for t, z in reversed(states) if t == 0.5)
    z = solve(f, torch.ones(1, **F64), [0.0, 1.0], method, "checkpoint").z
    factor[0] = 1.5
    with pytest.raises(ValueError, match="must be the same in backward as in the solve"):
        z[-1].sum().backward()


def test_dropout_that_only_later_times_have_is_refused_by_a_second_backward() -> None:
    torch.manual_seed(0)
    w = torch.ones((), **F64, requires_grad=True)

    def f(t: Tensor, z: Tensor) -> Tensor:
        return w * (torch.nn.functional.dropout(z, 0.5) if t > 0.85 else z)

    z = solve(f, torch.ones(50, **F64), [0.0, 1.0], make_method("rk4", step_size=0.2), "checkpoint").z[-1]
    (first,) = torch.autograd.grad(z.mean(), w, retain_graph=True)
    assert math.isfinite(first)
    with pytest.raises(ValueError, match="must be the same in backward as in the solve"):
        torch.autograd.grad(z.mean(), w)


def test_large_values_are_compared_without_a_false_alarm() -> None:
    """In float32 the norm of 1e20 is infinite."""
    for gradient in ("checkpoint", "adjoint"):
        z0 = torch.full((3,), 1e20, requires_grad=True)
        z = solve(lambda t, z: -z, z0, [0.0, 1.0], make_method("bosh3", rtol=1e-3, first_step=0.1), gradient).z
        assert torch.autograd.grad(z[-1].sum(), z0)[0].tolist() == pytest.approx([math.exp(-1.0)] * 3, rel=1e-2)
