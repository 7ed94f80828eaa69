"""Fields that jump at known times: with `stops` a jump costs no accuracy, with `max_step` a pulse is not missed."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from neuralode_exp.ode import Method, Solution, make_method, solve
from tests.ode.problems import Z0, TimeMLP

MODES = ("backprop", "checkpoint", "adjoint")
ADAPTIVE = ("adaptive-heun", "fehlberg2", "bosh3", "dopri5", "tsit5", "dopri8", "dop853")
FIXED = ("euler", "midpoint", "heun2", "heun3", "rk4")
STOPS = (4.9, 5.1)
# A time at a stop, times close to one on both sides, and times inside the pulse.
TIMES = [0.0, 4.8999, 4.9, 4.9001, 4.95, 5.03, 5.0999, 5.1001, 5.3, 10.0]
F64: dict[str, Any] = {"dtype": torch.float64}


def method_of(name: str, **settings: Any) -> Method:
    if name in FIXED:
        return make_method(name, step_size=3.0, **settings)
    return make_method(name, rtol=1e-5, atol=1e-5, **settings)


class Pulse:
    """dz/dt = height between the stops and 0 elsewhere."""

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        self.height = torch.full((), 5.0, dtype=dtype, requires_grad=True)
        self.z0 = torch.zeros(2, dtype=dtype, requires_grad=True)

    def __call__(self, t: Tensor, z: Tensor) -> Tensor:
        return (self.height if STOPS[0] < t < STOPS[1] else 0.0 * self.height).expand_as(z)

    def passed(self, t: Tensor, t0: float) -> Tensor:
        """Signed time inside the pulse between t0 and t."""
        low, high = STOPS
        return t.clamp(low, high) - min(max(t0, low), high)


def check_the_pulse(pulse: Pulse, solution: Solution, times: list[float], tolerance: float) -> None:
    """z(t) = z0 + height (signed time inside the pulse), and the gradients of a weighted sum of all observations."""
    passed = pulse.passed(torch.tensor(times, **F64), times[0])
    assert torch.allclose(solution.z.double(), (5.0 * passed)[:, None].expand(-1, 2), rtol=0, atol=tolerance)
    weights = torch.linspace(-1.0, 2.0, len(times), **F64)
    (weights.to(solution.z)[:, None] * solution.z).sum().backward()
    assert pulse.height.grad is not None
    assert pulse.z0.grad is not None
    assert float(pulse.height.grad) == pytest.approx(2 * float(weights @ passed), abs=2 * tolerance)
    assert pulse.z0.grad.tolist() == pytest.approx([float(weights.sum())] * 2, abs=2 * tolerance)


@pytest.mark.parametrize("times", [TIMES, TIMES[::-1], [0.0, 10.0]], ids=["forwards", "backwards", "none inside"])
@pytest.mark.parametrize("gradient", MODES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("name", [*FIXED, *ADAPTIVE])
def test_a_pulse_between_stops(name: str, dtype: torch.dtype, gradient: str, times: list[float]) -> None:
    """f is constant between stops, so that every method and every interpolant is exact."""
    pulse = Pulse(dtype)
    solution = solve(pulse, pulse.z0, times, method_of(name), gradient, stops=STOPS)
    # float32 tells times near 5 by 5e-7, and a slope of 5 makes 2.4e-6 of it; ten observations add up.
    check_the_pulse(pulse, solution, times, 1e-12 if dtype == torch.float64 else 3e-5)


@pytest.mark.parametrize("name", [*FIXED, *ADAPTIVE])
def test_a_step_ends_at_each_stop(name: str) -> None:
    pulse = Pulse()
    records = solve(pulse, pulse.z0, [0.0, 10.0], method_of(name), stops=STOPS, record=True).stats.records
    assert records is not None
    ends = [t + dt for t, dt, _, accepted in records if accepted]
    for stop in STOPS:
        assert min(abs(end - stop) for end in ends) < 1e-12


def test_without_stops_the_pulse_is_stepped_over() -> None:
    pulse = Pulse()
    z = solve(pulse, pulse.z0, [0.0, 10.0], method_of("dopri5")).z
    assert not z.any()


@pytest.mark.parametrize("times", [TIMES, TIMES[::-1]], ids=["forwards", "backwards"])
@pytest.mark.parametrize("gradient", MODES)
@pytest.mark.parametrize(("name", "dtype"), [*((name, torch.float64) for name in ADAPTIVE), ("dopri5", torch.float32)])
def test_a_pulse_that_a_largest_step_finds(name: str, dtype: torch.dtype, gradient: str, times: list[float]) -> None:
    """A step over an edge can be off by more than its tolerance: an edge between two stages is seen by neither."""
    pulse = Pulse(dtype)
    solution = solve(pulse, pulse.z0, times, method_of(name, max_step=0.15), gradient)
    check_the_pulse(pulse, solution, times, 1e-2)


class Jump:
    """dz/dt = -a z before s and b z after it; z(t1) = z(t0) exp(-a (s - t0) + b (t1 - s))."""

    s = 0.43

    def __init__(self) -> None:
        self.a, self.b = (torch.tensor(x, **F64, requires_grad=True) for x in (1.3, 0.8))
        self.parameters = (self.a, self.b)  # each is used on one side alone, and at the start one of them only
        self.z0 = torch.tensor([1.0, -0.5], **F64, requires_grad=True)

    def __call__(self, t: Tensor, z: Tensor) -> Tensor:
        return self.b * z if t > self.s else -self.a * z

    def exact(self, t0: float, t1: float) -> Tensor:
        before, after = min(t1, self.s) - min(t0, self.s), max(t1, self.s) - max(t0, self.s)
        return self.z0 * torch.exp(-self.a * before + self.b * after)

    def gradients(self, z: Tensor) -> list[float]:
        leaves = (self.a, self.b, self.z0)
        found = torch.autograd.grad((z * torch.tensor([1.0, 2.0], **F64)).sum(), leaves, materialize_grads=True)
        return torch.cat([g.flatten() for g in found]).tolist()


@pytest.mark.parametrize("span", [(0.0, 1.0), (1.0, 0.0), (0.43, 1.0), (0.0, 0.43)], ids=str)
@pytest.mark.parametrize("gradient", MODES)
@pytest.mark.parametrize("name", ["bosh3", "dopri5", "tsit5", "dopri8", "dop853", "rk4"])
def test_a_field_that_jumps(name: str, gradient: str, span: tuple[float, float]) -> None:
    jump = Jump()
    settings: dict[str, Any] = {"step_size": 0.01} if name == "rk4" else {"rtol": 1e-9, "atol": 1e-9}
    z = solve(
        jump, jump.z0, span, make_method(name, **settings), gradient, stops=[jump.s], parameters=jump.parameters
    ).z[-1]
    assert torch.allclose(z, jump.exact(*span), rtol=0, atol=1e-7)
    # Tolerances of 1e-9 over hundreds of steps of the lowest order; the adjoint's terms are no part of its error test.
    assert jump.gradients(z) == pytest.approx(jump.gradients(jump.exact(*span)), abs=1e-6)


def test_a_jump_does_not_lower_the_order() -> None:
    """Fixed steps divide the interval at a stop, which is on no grid of theirs."""
    jump, errors = Jump(), []
    for n in (10, 20, 40):
        z = solve(
            jump, jump.z0, [0.0, 1.0], make_method("rk4", step_size=1 / n), stops=[jump.s], parameters=jump.parameters
        ).z[-1]
        errors.append(float((z - jump.exact(0.0, 1.0)).detach().abs().max()))
    assert math.log2(errors[0] / errors[2]) / 2 == pytest.approx(4.0, abs=0.3)


def test_fixed_steps_on_both_sides_of_a_stop() -> None:
    """ceil(0.43 / 0.1) + ceil(0.57 / 0.1) = 5 + 6 steps of four evaluations."""
    jump = Jump()
    solution = solve(
        jump,
        jump.z0,
        [0.0, 1.0],
        make_method("rk4", step_size=0.1),
        "checkpoint",
        stops=[jump.s],
        parameters=jump.parameters,
    )
    solution.z[-1].sum().backward()
    assert (solution.stats.accepted, solution.stats.nfe_forward) == (11, 44)
    assert solution.stats.nfe_backward == 40


@pytest.mark.parametrize("name", ["rk4", "dopri5", "dopri8"])
def test_the_adjoint_stops_where_the_solve_did(name: str) -> None:
    """Each backward step sees one side of the jump: none evaluates f at it, and two evaluate f beside it."""
    jump, seen = Jump(), list[float]()

    def watched(t: Tensor, z: Tensor) -> Tensor:
        seen.append(float(t))
        return jump(t, z)

    z = solve(watched, jump.z0, [0.0, 1.0], method_of(name), "adjoint", stops=[jump.s], parameters=jump.parameters).z[
        -1
    ]
    seen.clear()
    z.sum().backward()
    assert jump.s not in seen
    assert any(jump.s - 1e-12 < t < jump.s for t in seen)
    assert any(jump.s < t < jump.s + 1e-12 for t in seen)


@pytest.mark.parametrize("stops", [(-1.0, 2.0), (0.0,), (1.0,), (0.0, 1.0), ()], ids=str)
@pytest.mark.parametrize("name", ["rk4", "dopri5", "dopri8"])
def test_stops_that_are_not_inside_change_nothing(name: str, stops: tuple[float, ...]) -> None:
    plain = solve(TimeMLP(), Z0, [0.0, 0.3, 1.0], method_of(name))
    stopped = solve(TimeMLP(), Z0, [0.0, 0.3, 1.0], method_of(name), stops=stops)
    assert torch.allclose(stopped.z, plain.z, rtol=1e-14, atol=1e-14)  # a time at the end may be its neighbour
    assert stopped.stats.accepted == plain.stats.accepted


@pytest.mark.parametrize("gradient", MODES)
@pytest.mark.parametrize("name", ["rk4", "dopri5", "dopri8"])
def test_a_stop_at_an_observation(name: str, gradient: str) -> None:
    jump = Jump()
    settings: dict[str, Any] = {"step_size": 0.01} if name == "rk4" else {"rtol": 1e-9, "atol": 1e-9}
    z = solve(
        jump,
        jump.z0,
        [0.0, jump.s, 1.0],
        make_method(name, **settings),
        gradient,
        stops=[jump.s],
        parameters=jump.parameters,
    ).z
    assert torch.allclose(z[1], jump.exact(0.0, jump.s), rtol=0, atol=1e-7)
    exact = jump.exact(0.0, jump.s) + jump.exact(0.0, 1.0)
    assert jump.gradients(z[1] + z[2]) == pytest.approx(jump.gradients(exact), abs=1e-6)


def test_the_order_of_stops_and_repeats_do_not_matter() -> None:
    pulse = Pulse()
    sorted_, mixed = (
        solve(pulse, pulse.z0, TIMES, method_of("dopri5"), stops=stops) for stops in (STOPS, [5.1, 4.9, 5.1])
    )
    assert torch.equal(sorted_.z, mixed.z)
    assert sorted_.stats.nfe_forward == mixed.stats.nfe_forward


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_stops_are_finite(bad: float) -> None:
    with pytest.raises(ValueError, match="stops"):
        solve(TimeMLP(), Z0, [0.0, 1.0], method_of("dopri5"), stops=[0.5, bad])


ENGINE = [("dopri5", {}), ("rk4", {"step_size": 0.1}), ("implicit-adams", {"step_size": 0.1}), ("radau", {})]


@pytest.mark.parametrize(("name", "settings"), ENGINE, ids=[name for name, _ in ENGINE])
def test_methods_of_torchdiffeq_and_scipy_refuse_both(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="max_step"):
        make_method(name, engine="torchdiffeq", max_step=0.1, **settings)
    method = make_method(name, engine="torchdiffeq", **settings)
    with pytest.raises(ValueError, match=r"stops.*torchdiffeq"):
        solve(TimeMLP(), Z0, [0.0, 1.0], method, stops=[0.5])


@pytest.mark.parametrize("name", FIXED)
def test_fixed_steps_have_no_largest_step(name: str) -> None:
    with pytest.raises(ValueError, match="has no max_step"):
        make_method(name, step_size=0.1, max_step=0.1)


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan])
def test_a_largest_step_is_positive(bad: float) -> None:
    with pytest.raises(ValueError, match="`max_step` must be >"):
        make_method("dopri5", max_step=bad)
