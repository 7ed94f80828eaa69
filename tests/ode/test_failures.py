"""Solves that cannot be finished say so: one typed error with where, how far, and what usually helps."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from neuralode_exp.ode import (
    TABLEAUS,
    MaxStepsExceeded,
    Method,
    NonFiniteState,
    SolverError,
    StepSizeUnderflow,
    make_method,
    solve,
)
from tests.ode.problems import Z0, TimeMLP

ADAPTIVE = [name for name, tableau in TABLEAUS.items() if tableau.e is not None]
MODES = ("backprop", "checkpoint", "adjoint")


def blow_up(t: Tensor, z: Tensor) -> Tensor:
    """z = 1 / (1 - t) from z(0) = 1: infinite at t = 1."""
    return z * z


@pytest.mark.parametrize("gradient", MODES)
@pytest.mark.parametrize("name", ADAPTIVE)
def test_blow_up_in_finite_time(name: str, gradient: str) -> None:
    method = make_method(name, rtol=1e-4, atol=1e-4)
    z0 = torch.ones(2, dtype=torch.float64, requires_grad=True)
    with pytest.raises(SolverError) as caught:
        solve(blow_up, z0, [0.0, 2.0], method, gradient, parameters=())
    error = caught.value
    # fehlberg2's estimate is far below its error, so it passes the singularity late.
    assert error.t == pytest.approx(1.0, abs=0.1 if name == "fehlberg2" else 1e-2)
    assert error.steps > 5
    assert error.max_abs_z > 1e6
    assert f"at t={error.t:.6g} (dt={error.dt:.3g}, {error.steps} steps so far, max|z|={error.max_abs_z:.3g}); " in str(
        error
    )


def test_a_singularity_with_finite_values_is_an_underflow() -> None:
    """z' = -1 / z, z = sqrt(1 - 2 t): the slope is infinite at t = 1/2, z itself is 0."""
    with pytest.raises(StepSizeUnderflow) as caught:
        solve(lambda t, z: -1 / z, torch.ones(1, dtype=torch.float64), [0.0, 1.0], make_method("dopri5", atol=1e-9))
    assert caught.value.t == pytest.approx(0.5, abs=1e-6)
    assert abs(caught.value.dt) < 1e-15
    assert "the step size collapsed at t=0.5 (" in str(caught.value)
    assert "stiff or singular there: try looser tolerances, or an implicit method (radau" in str(caught.value)


def test_a_jump_that_no_step_resolves_is_an_underflow() -> None:
    """z' = -10^18 sign(z - 1/2): it stays at 1/2, with an error that no representable step makes small."""
    with pytest.raises(StepSizeUnderflow, match="the step size collapsed"):
        solve(
            lambda t, z: -1e18 * torch.sign(z - 0.5),
            torch.ones(1, dtype=torch.float64),
            [1.0, 2.0],
            make_method("bosh3"),
        )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_field_that_turns_bad_is_not_called_stiff(name: str, bad: float) -> None:
    def f(t: Tensor, z: Tensor) -> Tensor:
        return torch.where(t > 0.5, torch.full_like(z, bad), -z)

    with pytest.raises(NonFiniteState) as caught:
        solve(f, torch.ones(2, dtype=torch.float64), [0.0, 1.0], make_method(name, rtol=1e-4, atol=1e-4))
    assert caught.value.t == pytest.approx(0.5, abs=1e-12)  # retried smaller until the last good time is found
    assert caught.value.max_abs_z == pytest.approx(math.exp(-0.5), abs=1e-2)
    assert str(caught.value).startswith("the state became NaN or infinite at t=0.5 (dt=")
    assert str(caught.value).endswith(
        "a lower learning rate, gradient clipping, a shorter time span or float64 usually helps"
    )


def test_a_trial_step_that_overflows_is_retried_smaller() -> None:
    """A first step that is much too long leaves the domain of the logarithm; the solve goes on."""
    method = make_method("dopri5", rtol=1e-6, atol=1e-6, first_step=5.0)
    solution = solve(lambda t, z: -torch.log(z), 5 * torch.ones(1, dtype=torch.float64), [0.0, 5.0], method)
    assert solution.stats.rejected > 0
    assert torch.isfinite(solution.z).all()


@pytest.mark.parametrize("gradient", MODES)
@pytest.mark.parametrize("name", ["rk4", "dopri5", "dopri8"])
def test_nan_parameters(name: str, gradient: str) -> None:
    f = TimeMLP()
    with torch.no_grad():
        f.w2[0, 0] = math.nan
    method = make_method(name, step_size=0.1) if name == "rk4" else make_method(name)
    with pytest.raises(NonFiniteState) as caught:
        solve(f, Z0, [0.2, 1.0], method, gradient)
    assert (caught.value.t, caught.value.max_abs_z) == (0.2, 1.0)
    where = "" if name == "rk4" else " (the initial state or f there)"
    assert str(caught.value).startswith(f"the state became NaN or infinite{where} at t=0.2 (")


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["rk4", "dopri5"])
def test_a_bad_initial_state(name: str, bad: float) -> None:
    z0 = torch.tensor([1.0, bad], dtype=torch.float64)
    method = make_method(name, step_size=0.1) if name == "rk4" else make_method(name)
    with pytest.raises(NonFiniteState, match=r"the state became NaN or infinite.* at t=0 "):
        solve(lambda t, z: -z, z0, [0.0, 1.0], method)


def test_the_offending_state_says_which_samples_diverged() -> None:
    z0 = torch.tensor([0.1, 1.0, 0.2])
    with pytest.raises(NonFiniteState) as caught:
        solve(blow_up, z0, [0.0, 4.0], make_method("euler", step_size=0.1))
    assert torch.isfinite(caught.value.state).tolist() == [True, False, True]
    assert not caught.value.state.requires_grad


@pytest.mark.parametrize("gradient", MODES)
def test_stiffness_under_fixed_steps_is_located(gradient: str) -> None:
    """Euler multiplies z' = -1000 z by 1 - 1000 dt = -99 each step: 1 -> 10^38 = max of float32 after 20 steps."""
    z0 = torch.ones(3, requires_grad=True)
    with pytest.raises(NonFiniteState) as caught:
        solve(
            lambda t, z: -1000 * z, z0, [0.0, 5.0, 10.0], make_method("euler", step_size=0.1), gradient, parameters=()
        )
    # 99^19 < 3.4e38 < 99^20, but 1000 z overflows at 99^18 already.
    assert caught.value.steps == 19
    assert caught.value.t == pytest.approx(1.8)
    assert caught.value.dt == pytest.approx(0.1)
    assert caught.value.max_abs_z == pytest.approx(99.0**18, rel=1e-4)


@pytest.mark.parametrize("gradient", MODES)
def test_max_steps_of_an_adaptive_solve(gradient: str) -> None:
    f = TimeMLP()
    needed = solve(f, Z0, [0.0, 0.4, 1.0], make_method("dopri5", rtol=1e-8, atol=1e-8)).stats.trials
    enough = make_method("dopri5", rtol=1e-8, atol=1e-8, max_steps=needed)
    assert solve(f, Z0, [0.0, 0.4, 1.0], enough, gradient).stats.trials == needed
    short = make_method("dopri5", rtol=1e-8, atol=1e-8, max_steps=needed - 1)
    with pytest.raises(MaxStepsExceeded) as caught:
        solve(f, Z0, [0.0, 0.4, 1.0], short, gradient)
    assert caught.value.steps == needed - 1
    assert 0.5 < caught.value.t < 1.0
    assert "max_steps was reached at t=" in str(caught.value)
    assert "; raise max_steps, loosen the tolerances (or enlarge step_size)" in str(caught.value)


def test_max_steps_of_fixed_steps_is_known_before_the_first() -> None:
    calls = []
    with pytest.raises(MaxStepsExceeded, match=r"max_steps was reached \(1000 steps > max_steps=999\) at t=0 "):
        solve(
            lambda t, z: calls.append(t), Z0, [0.0, 0.5, 1.0], make_method("rk4", step_size=1e-3, max_steps=999)
        )  # fmt: skip
    assert not calls


@pytest.mark.parametrize(
    "method",
    [make_method("dopri5", rtol=1e-6, atol=1e-6, max_steps=9), make_method("rk4", step_size=0.1, max_steps=9)],
    ids=["dopri5", "rk4"],
)
def test_max_steps_of_a_backward_solve_counts_all_its_intervals(method: Method) -> None:
    """Four observation intervals of three steps or so each: none needs 9 alone, together they do."""
    forward = make_method("dopri5", rtol=1e-3, atol=1e-3)
    solution = solve(TimeMLP(), Z0, [0.0, 0.25, 0.5, 0.75, 1.0], forward, "adjoint", adjoint_method=method)
    with pytest.raises(MaxStepsExceeded, match=r"^backward solve of the adjoint: max_steps was reached") as caught:
        solution.z.sum().backward()
    assert caught.value.steps == 9
    assert caught.value.t < 0.8


def test_a_nan_cotangent_is_found_in_backward() -> None:
    solution = solve(TimeMLP(), Z0, [0.0, 1.0], make_method("dopri5"), "adjoint")
    with pytest.raises(NonFiniteState, match=r"^backward solve of the adjoint: the state became NaN.* at t=1 "):
        (solution.z.sum() * math.nan).backward()


def test_a_slope_that_only_backward_sees() -> None:
    """z stays at 0, where sqrt|z| has an infinite derivative."""
    z0 = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    method = make_method("dopri5")
    solution = solve(lambda t, z: -torch.sqrt(z.abs()), z0, [0.0, 1.0], method, "adjoint", parameters=())
    assert torch.equal(solution.z, torch.zeros(2, 2))
    with pytest.raises(NonFiniteState, match=r"^backward solve of the adjoint: the state became NaN.* at t=1 "):
        solution.z.sum().backward()


@pytest.mark.parametrize("gradient", MODES)
@pytest.mark.parametrize("name", ["adaptive-heun", "fehlberg2"])
def test_a_closing_derivative_that_only_observations_use_is_checked(name: str, gradient: str) -> None:
    """f = z, and NaN from the last state on, where only the closing derivative of the last step is evaluated."""
    z0, method = torch.ones(1, dtype=torch.float64, requires_grad=True), make_method(name, rtol=1e-2, atol=1e-2)
    times = [0.0, 0.63, 0.69, 0.7]
    largest = float(solve(lambda t, z: z, z0.detach(), times, method).z[-1]) * (1 - 1e-9)
    ends = solve(lambda t, z: torch.where(z < largest, z, math.nan), z0, [0.0, 0.7], method, gradient)
    assert torch.isfinite(ends.z).all()
    with pytest.raises(NonFiniteState, match=r"where the error test does not look, at t=0\.6[0-9]* ") as caught:
        solve(lambda t, z: torch.where(z < largest, z, math.nan), z0, times, method, gradient)
    assert caught.value.state.isnan().all()


@pytest.mark.parametrize("gradient", [*MODES, "reversible"])
def test_the_search_for_the_first_bad_step_is_not_counted(gradient: str) -> None:
    """Ten steps of one evaluation, and of two in `reversible`; the seventh goes wrong."""
    z0 = torch.ones(1, dtype=torch.float64, requires_grad=True)
    with pytest.raises(NonFiniteState) as caught:
        solve(
            lambda t, z: torch.where(t > 0.55, math.nan, -z),
            z0,
            [0.0, 1.0],
            make_method("euler", step_size=0.1),
            gradient,
        )
    stats = caught.value.stats
    assert stats is not None
    evaluations = 20 if gradient == "reversible" else 10
    assert (stats.nfe_forward, stats.accepted, caught.value.steps) == (evaluations, 10, 7)


def test_the_search_in_a_backward_solve_is_not_counted_either() -> None:
    z0 = torch.ones(1, dtype=torch.float64, requires_grad=True)
    method = make_method("euler", step_size=0.1)
    solution = solve(lambda t, z: -z, z0, [0.0, 1.0], method, "adjoint")
    with pytest.raises(NonFiniteState, match="backward solve of the adjoint"):
        (solution.z[-1].sum() * math.nan).backward()
    assert solution.stats.nfe_backward == 10
