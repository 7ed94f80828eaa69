"""A stepper that the package does not know: every gradient, exact counts and typed failures from its first day."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neuralode_exp.ode import (
    Adaptive,
    FixedStep,
    MaxStepsExceeded,
    NonFiniteState,
    SolverError,
    Span,
    Stepper,
    Trial,
    make_method,
    solve,
)
from tests.ode.problems import MATRIX, Z0, Linear, Spy, TimeMLP, gradients

MODES = ("backprop", "checkpoint", "adjoint")
F64: dict[str, Any] = {"dtype": torch.float64}
TIMES = [0.0, 0.25, 0.5, 1.0]
NEWTON = 3


@dataclass(frozen=True)
class ImplicitMidpoint(Stepper):
    """z1 = z + dt f(t + dt / 2, x), x = (z + z1) / 2, by Newton's method with a Jacobian by differences.

    The last of Newton's steps has the derivative of the solution itself: its matrix may be a constant to autograd.
    The estimate is a third of the distance to the explicit rule, the interpolant a straight line.
    """

    estimate: bool = False
    order = 2
    interpolates = True

    def trial(self, f: Any, span: Span, z: Tensor, carry: Any) -> Trial:
        half = 0.5 * span.dt
        t, x = at(span.t + half, z), z
        for _ in range(NEWTON):
            k = f(t, x)
            x = x - torch.linalg.solve(self.matrix(f, t, x, k, half), (x - z - half * k).flatten()).view_as(z)
        z1 = 2 * x - z
        if not self.estimate:
            return Trial(z1, data=z1)
        with torch.no_grad():
            explicit = z + span.dt * f(t, z + half * f(at(span.t, z), z))
        return Trial(z1, (z1.detach() - explicit) / 3, data=z1)

    @torch.no_grad()
    def matrix(self, f: Any, t: Tensor, x: Tensor, k: Tensor, half: float) -> Tensor:
        """I - dt / 2 df/dz at x."""
        one = torch.eye(x.numel(), dtype=x.dtype)
        columns = [(f(t, x + 1e-7 * e.view_as(x)) - k).flatten() / 1e-7 for e in one]
        return one - half * torch.stack(columns, 1)

    def interpolate(self, trial: Trial, span: Span, z: Tensor, fractions: Sequence[float]) -> list[Tensor]:
        return [z + x * (trial.data - z) for x in fractions]


def at(t: float, z: Tensor) -> Tensor:
    return torch.full((), t, dtype=z.dtype)


FIXED = FixedStep(ImplicitMidpoint(), 0.125)
EVALUATIONS = NEWTON * (1 + Z0.numel())  # of a step


def solution_by_hand(f: Linear, z0: Tensor, dt: float, steps: int) -> Tensor:
    """((I - dt A / 2)^-1 (I + dt A / 2))^n z0, what the method gives for a linear field."""
    one, half = torch.eye(3, **F64), 0.5 * dt * f.matrix
    step = torch.linalg.solve(one - half, one + half)
    return z0 @ torch.linalg.matrix_power(step, steps).mT


def test_order_two() -> None:
    f, sizes, errors = Linear(), [0.1, 0.05, 0.025], []
    exact = f.exact(torch.tensor([0.0, 1.0], **F64), Z0)[-1]
    with torch.no_grad():
        for dt in sizes:
            z = solve(f, Z0, [0.0, 1.0], FixedStep(ImplicitMidpoint(), dt)).z[-1]
            errors.append(float((z - exact).abs().max()))
            assert torch.allclose(z, solution_by_hand(f, Z0, dt, round(1 / dt)), rtol=0, atol=1e-12)
    assert float(np.polyfit(np.log(sizes), np.log(errors), 1)[0]) == pytest.approx(2.0, abs=0.1)


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=["forwards", "backwards"])
@pytest.mark.parametrize("gradient", ["backprop", "checkpoint"])
def test_gradients_of_the_steps(gradient: str, sign: float) -> None:
    """Of z0 and of the matrix, through the rational function of the matrix that the steps are."""
    f, z0 = Linear(), Z0.clone().requires_grad_()
    weights = torch.linspace(-1.0, 1.0, 6, **F64).reshape(2, 3)
    z = solve(f, z0, [0.0, sign], FIXED, gradient).z[-1]
    found = torch.autograd.grad((weights * z).sum(), (z0, f.matrix))
    by_hand = solution_by_hand(f, z0, sign * 0.125, 8)
    exact = torch.autograd.grad((weights * by_hand).sum(), (z0, f.matrix))
    for g, g_exact in zip(found, exact, strict=True):
        assert torch.allclose(g, g_exact, rtol=0, atol=1e-9)  # a Jacobian by differences


@pytest.mark.parametrize(
    "method", [FIXED, Adaptive(ImplicitMidpoint(estimate=True), rtol=1e-3)], ids=["fixed", "adaptive"]
)
@pytest.mark.parametrize("times", [TIMES, TIMES[::-1]], ids=["increasing", "decreasing"])
def test_checkpoint_equals_backprop(method: Any, times: list[float]) -> None:
    results = []
    for gradient in ("backprop", "checkpoint"):
        f, z0 = TimeMLP(), Z0.clone().requires_grad_()
        results.append(gradients(solve(f, z0, times, method, gradient).z, z0, *f.parameters()))
    for g, g_exact in zip(*results, strict=True):
        assert torch.allclose(g, g_exact, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gradient", MODES)
def test_gradients_of_what_f_captures(gradient: str) -> None:
    """An encoder's output and a leaf, neither of them listed."""
    torch.manual_seed(0)
    encoder, gain = nn.Linear(2, 3, **F64), torch.tensor(0.8, **F64, requires_grad=True)
    leaves = (*encoder.parameters(), gain)
    code = encoder(torch.ones(2, 2, **F64))
    methods = (FixedStep(ImplicitMidpoint(), 0.02), make_method("dopri5", rtol=1e-10))
    found, exact = (
        torch.autograd.grad(
            solve(lambda t, z: torch.sin(gain * z + t) * code, Z0, [0.0, 0.5], method, mode).z[-1].square().sum(),
            leaves,
            retain_graph=True,
        )
        for method, mode in zip(methods, (gradient, "backprop"), strict=True)
    )
    for g, g_exact in zip(found, exact, strict=True):
        assert g_exact.any()
        assert torch.allclose(g, g_exact, rtol=1e-3, atol=1e-4)  # steps of order two


@pytest.mark.parametrize("times", [TIMES, TIMES[::-1]], ids=["increasing", "decreasing"])
def test_its_adjoint_converges_with_its_order(times: list[float]) -> None:
    """The parameters' integral is a part of the backward solve's state: the stepper has no quadrature weights."""
    sizes, errors = [0.125, 0.0625], []
    f, z0 = TimeMLP(), Z0.clone().requires_grad_()
    leaves = (z0, *f.parameters())
    exact = gradients(solve(f, z0, times, make_method("dopri5", rtol=1e-10)).z, *leaves)
    for dt in sizes:
        found = gradients(solve(f, z0, times, FixedStep(ImplicitMidpoint(), dt), "adjoint").z, *leaves)
        errors.append(max(float((g - e).abs().max()) for g, e in zip(found, exact, strict=True)))
    assert math.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.3)


def test_an_adjoint_method_of_another_kind() -> None:
    f, z0 = TimeMLP(), Z0.clone().requires_grad_()
    leaves = (z0, *f.parameters())
    tight = make_method("dopri5", rtol=1e-10)
    z = solve(f, z0, TIMES, FixedStep(ImplicitMidpoint(), 0.01), "adjoint", adjoint_method=tight).z
    exact = gradients(solve(f, z0, TIMES, tight).z, *leaves)
    for g, g_exact in zip(gradients(z, *leaves), exact, strict=True):
        assert torch.allclose(g, g_exact, rtol=1e-3, atol=1e-3)  # the states are those of order two


@pytest.mark.parametrize("gradient", MODES)
def test_counts_are_exact(gradient: str) -> None:
    f = Spy(TimeMLP())
    solution = solve(f, Z0, [0.0, 0.5, 1.0], FIXED, gradient)
    stats = solution.stats
    assert (stats.accepted, stats.rejected) == (8, 0)
    # One more than the steps' to see what f depends on, where that is asked for: this stepper evaluates none at z0.
    assert stats.nfe_forward == len(f.times) == 8 * EVALUATIONS + (gradient != "backprop")
    f.times.clear()
    solution.z[1:].sum().backward()
    assert stats.nfe_backward == len(f.times)
    if gradient != "adjoint":
        assert stats.nfe_backward == (8 * EVALUATIONS if gradient == "checkpoint" else 0)


def test_error_control() -> None:
    """A tolerance a hundred times smaller, errors about a hundred times smaller, ten times the steps."""
    f, exact = Linear(), Linear().exact(torch.tensor([0.0, 2.0], **F64), Z0)[-1]
    errors, steps = [], []
    for rtol in (1e-3, 1e-5):
        solution = solve(f, Z0, [0.0, 2.0], Adaptive(ImplicitMidpoint(estimate=True), rtol=rtol))
        errors.append(float((solution.z[-1] - exact).detach().abs().max()))
        steps.append(solution.stats.accepted)
    assert 20 < errors[0] / errors[1] < 500
    assert 3 < steps[1] / steps[0] < 15
    assert solution.stats.first_step is not None


def test_observations_inside_a_step_are_interpolated() -> None:
    method = Adaptive(ImplicitMidpoint(estimate=True), rtol=1e6, first_step=1.0)
    solution = solve(Linear(), Z0, [0.0, 0.25, 0.5, 1.0], method)
    assert solution.stats.accepted == 1
    z = solution.z
    assert torch.allclose(z[1], z[0] + 0.25 * (z[3] - z[0]), rtol=0, atol=1e-15)


@pytest.mark.parametrize("gradient", MODES)
def test_stops(gradient: str) -> None:
    """dz/dt = rate after the stop, 0 before it."""
    rate, z0 = torch.tensor([2.0, 3.0], **F64, requires_grad=True), torch.zeros(2, **F64, requires_grad=True)
    z = solve(lambda t, z: rate * (1.0 if t > 0.3 else 0.0), z0, [0.0, 1.0], FIXED, gradient, stops=[0.3]).z[-1]
    z.sum().backward()
    assert rate.grad is not None
    assert torch.allclose(z, 0.7 * rate, rtol=0, atol=1e-9)
    assert rate.grad.tolist() == pytest.approx([0.7, 0.7], abs=1e-9)


def test_it_damps_what_explicit_steps_do_not() -> None:
    """dz/dt = -1000 z with dt = 1/8: |1 - 62.5| / |1 + 62.5| < 1, where rk4 grows without bound."""
    z = solve(lambda t, z: -1000.0 * z, torch.ones(2, **F64), [0.0, 1.0], FIXED).z
    assert float(z[-1].abs().max()) < 1.0
    stiff = solve(lambda t, z: -1000.0 * z, torch.ones(2, **F64), [0.0, 1.0], make_method("rk4", step_size=0.125)).z
    assert float(stiff[-1].abs().max()) > 1e20


def nan_after_a_half(t: Tensor, z: Tensor) -> Tensor:
    return -z if t < 0.5 else z * math.nan


ADAPTIVE = Adaptive(ImplicitMidpoint(estimate=True), rtol=1e-4)


@pytest.mark.parametrize("gradient", MODES)
@pytest.mark.parametrize("method", [FIXED, ADAPTIVE], ids=["fixed", "adaptive"])
def test_a_state_that_is_not_finite(method: Any, gradient: str) -> None:
    with pytest.raises(NonFiniteState) as caught:
        solve(nan_after_a_half, Z0.clone().requires_grad_(), [0.0, 1.0], method, gradient)
    assert caught.value.t == pytest.approx(0.5, abs=0.13)


@pytest.mark.parametrize("method", [FIXED, ADAPTIVE], ids=["fixed", "adaptive"])
def test_too_many_steps(method: Any) -> None:
    few = type(method)(**{**vars(method), "max_steps": 3})
    with pytest.raises(MaxStepsExceeded):
        solve(Linear(10 * MATRIX), Z0, [0.0, 1.0], few)


def test_a_blow_up_in_finite_time() -> None:
    """z = 1 / (1 - t)."""
    with pytest.raises(SolverError) as caught:
        solve(lambda t, z: z * z, torch.ones(2, **F64), [0.0, 2.0], ADAPTIVE)
    assert caught.value.t == pytest.approx(1.0, abs=0.05)


def test_error_control_without_an_estimate_is_refused() -> None:
    with pytest.raises(ValueError, match="error estimate"):
        solve(Linear(), Z0, [0.0, 1.0], Adaptive(ImplicitMidpoint(), rtol=1e-3))
