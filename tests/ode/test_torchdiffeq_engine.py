"""torchdiffeq's methods behind our interface: values, gradients, statistics and typed failures."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch import Tensor

from neuralode_exp.ode import (
    SOLVERS,
    MaxStepsExceeded,
    Method,
    NonFiniteState,
    SolverError,
    StepSizeUnderflow,
    make_method,
    solve,
)
from tests.ode.problems import Z0, Linear, Spy, TimeMLP, gradients

SCIPY = ("lsoda", "radau", "bdf")
STEP_SIZED = ("euler", "midpoint", "heun2", "heun3", "rk4", "explicit-adams", "implicit-adams")
ENGINE_METHODS = [name for name, solver in SOLVERS.items() if "torchdiffeq" in solver.engines]
ADAPTIVE = [name for name in ENGINE_METHODS if name not in SCIPY + STEP_SIZED]
TIMES = {"increasing": [0.1, 0.35, 0.4, 1.0], "decreasing": [1.0, 0.8, 0.3, 0.2]}

pytestmark = [
    pytest.mark.filterwarnings("error"),
    # torchdiffeq's own word on implicit-adams where values are huge or NaN.
    pytest.mark.filterwarnings("ignore:Functional iteration did not converge"),
]


def engine(name: str, *, tolerance: float = 1e-7, step_size: float = 0.01, **settings: float) -> Method:
    if name in STEP_SIZED:
        # Tolerances of the corrector of implicit-adams, which warns where they are out of its reach.
        tolerances = {"rtol": 1e-3, "atol": 1e-4} if name == "implicit-adams" else {}
        return make_method(name, step_size=step_size, engine="torchdiffeq", **tolerances, **settings)
    return make_method(name, rtol=tolerance, atol=tolerance, engine="torchdiffeq", **settings)


@pytest.mark.parametrize("t", TIMES.values(), ids=TIMES)
@pytest.mark.parametrize("name", ENGINE_METHODS)
def test_matrix_exponential(name: str, t: list[float]) -> None:
    f = Linear().requires_grad_(False)
    times = torch.tensor(t, dtype=torch.float64)
    tolerance = 1e-4 if name in ("adaptive-heun", "fehlberg2") else 1e-7
    # Of order 12, explicit-adams is stable up to |lambda| dt = 0.002 or so.
    step_size = 0.001 if name == "explicit-adams" else 0.01
    solution = solve(f, Z0, times, engine(name, tolerance=tolerance, step_size=step_size))
    # Global errors of the low orders: (|lambda| dt)^order with |lambda| dt = 0.02. adaptive-heun and fehlberg2 carry a
    # stage over that is not f at the accepted state, which costs them their order; bosh3 and dopri8 interpolate with a
    # quartic through a state at the middle of the step that is less accurate than their steps.
    loose = {"euler": 4e-2, "midpoint": 4e-4, "heun2": 4e-4, "adaptive-heun": 3e-3, "fehlberg2": 6e-2}
    loose |= {"bosh3": 1e-4, "dopri8": 1e-4}
    assert (solution.z - f.exact(times, Z0)).abs().max() < loose.get(name, 2e-5)
    assert torch.allclose(solution.z[0], Z0, rtol=0, atol=1e-12)  # lsoda interpolates there too
    assert solution.z.dtype == torch.float64


@pytest.mark.parametrize("t", TIMES.values(), ids=TIMES)
@pytest.mark.parametrize("name", [*ADAPTIVE, *STEP_SIZED])
def test_f_stays_inside_and_is_counted(name: str, t: list[float]) -> None:
    f = Spy(TimeMLP())
    stats = solve(f, Z0, t, engine(name, tolerance=1e-4, step_size=0.07)).stats
    assert len(f.times) == stats.nfe_forward > 0
    assert min(t) <= min(f.times)
    assert max(f.times) <= max(t)


@pytest.mark.parametrize("name", ["euler", "midpoint", "heun2", "heun3", "rk4"])
def test_fixed_steps_are_those_of_the_native_engine(name: str) -> None:
    t = [0.0, 0.3, 0.35, 1.0]
    native = solve(TimeMLP(), Z0, t, make_method(name, step_size=0.1))
    theirs = solve(TimeMLP(), Z0, t, engine(name, step_size=0.1))
    assert torch.allclose(native.z, theirs.z, rtol=0, atol=1e-14)
    assert theirs.stats.accepted == native.stats.accepted == 11
    assert theirs.stats.nfe_forward == native.stats.nfe_forward


@pytest.mark.parametrize("name", ["dopri5", "bosh3"])
def test_adaptive_steps_are_those_of_the_native_engine(name: str) -> None:
    t = [0.0, 0.1, 2.0, 2.01, 5.0]
    native = solve(TimeMLP(), Z0, t, make_method(name, rtol=1e-6, atol=1e-6), record=True).stats
    theirs = solve(TimeMLP(), Z0, t, engine(name, tolerance=1e-6), record=True).stats
    assert (theirs.accepted, theirs.rejected, theirs.nfe_forward) == (
        native.accepted,
        native.rejected,
        native.nfe_forward,
    )
    assert native.records is not None
    assert theirs.records is not None
    for (start, dt, _, accepted), (start2, dt2, ratio, accepted2) in zip(native.records, theirs.records, strict=True):
        assert (start2, accepted2) == (pytest.approx(start, abs=1e-9), accepted)
        assert dt2 >= dt - 1e-9  # its callback tells the size before it is cut to the last time
        assert math.isnan(ratio)  # and not the error ratio


@pytest.mark.parametrize("t", TIMES.values(), ids=TIMES)
@pytest.mark.parametrize("name", ENGINE_METHODS)
def test_gradients(name: str, t: list[float]) -> None:
    f, z0 = TimeMLP(), Z0.clone().requires_grad_()
    times = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    inputs = (z0, times, *f.parameters())
    exact = gradients(solve(f, z0, times, make_method("dopri5", rtol=1e-10, atol=1e-10)).z, *inputs)
    low_order = name in ("euler", "midpoint", "heun2", "adaptive-heun", "fehlberg2")
    tolerance = {"adaptive-heun": 1e-3, "fehlberg2": 1e-4}.get(name, 1e-6)
    step_size = 0.002 if name == "explicit-adams" else 0.01
    for gradient in ("adjoint",) if name in SCIPY else ("backprop", "adjoint"):
        solution = solve(f, z0, times, engine(name, tolerance=tolerance, step_size=step_size), gradient)
        found = gradients(solution.z, *inputs)
        for g, g_exact in zip(found, exact, strict=True):
            # First- and second-order methods at 100 steps or loose tolerances, others at 1e-6.
            assert torch.allclose(g, g_exact, rtol=0.1 if low_order else 1e-3, atol=0.1 if low_order else 1e-3)
        assert (solution.stats.nfe_backward > 0) is (gradient == "adjoint")


def test_scipy_needs_the_adjoint() -> None:
    with pytest.raises(ValueError, match="lsoda runs outside autograd; use gradient='adjoint', or call it under"):
        solve(TimeMLP(), Z0, [0.0, 1.0], engine("lsoda"))
    with torch.no_grad():
        solve(TimeMLP(), Z0, [0.0, 1.0], engine("lsoda"))


def test_there_is_no_checkpoint() -> None:
    with pytest.raises(ValueError, match="torchdiffeq has no gradient='checkpoint'; use engine='native', or gradient="):
        solve(TimeMLP(), Z0, [0.0, 1.0], engine("dopri5"), "checkpoint")


def test_engines_do_not_mix() -> None:
    native = make_method("dopri5")
    with pytest.raises(ValueError, match="must be of the engine of `method`, torchdiffeq, got a native one"):
        solve(TimeMLP(), Z0, [0.0, 1.0], engine("dopri5"), "adjoint", adjoint_method=native)
    with pytest.raises(ValueError, match="must be of the engine of `method`, native, got dopri5 of torchdiffeq"):
        solve(TimeMLP(), Z0, [0.0, 1.0], native, "adjoint", adjoint_method=engine("dopri5"))


@pytest.mark.parametrize("name", ["dopri5", "rk4", "lsoda"])
def test_one_time_gives_z0_back(name: str) -> None:
    with torch.no_grad():
        solution = solve(TimeMLP(), Z0, [0.7], engine(name))
    assert torch.equal(solution.z, Z0[None])
    assert solution.stats.nfe_forward == 0


@pytest.mark.parametrize("name", ENGINE_METHODS)
def test_max_steps_bounds_the_whole_solve(name: str) -> None:
    """Ten observations of at least one step each: torchdiffeq's own limit would count each of them anew."""
    t = [i / 10 for i in range(11)]
    method = engine(name, tolerance=1e-3, step_size=0.1, max_steps=4)
    with torch.no_grad(), pytest.raises(MaxStepsExceeded, match="max_steps was reached at t=") as caught:
        solve(Linear(20 * Linear().matrix.detach()), Z0, t, method)
    assert caught.value.steps == 4
    assert caught.value.t < 1.0


@pytest.mark.parametrize("backwards", ["dopri5", "rk4", "lsoda"])
def test_max_steps_of_the_backward_solve_is_its_own(backwards: str) -> None:
    method = engine(backwards, tolerance=1e-6, step_size=0.1, max_steps=2)
    solution = solve(TimeMLP(), Z0, [0.0, 1.0], engine("dopri5"), "adjoint", adjoint_method=method)
    with pytest.raises(MaxStepsExceeded) as caught:
        solution.z.sum().backward()
    assert caught.value.steps == 2


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("name", ENGINE_METHODS)
def test_a_field_that_turns_bad(name: str, bad: float) -> None:
    def f(t: Tensor, z: Tensor) -> Tensor:
        return torch.where(t > 0.5, torch.full_like(z, bad), -z)

    with pytest.raises(NonFiniteState, match="the state became NaN or infinite"):
        solve(f, torch.ones(2, dtype=torch.float64), [0.0, 1.0], engine(name, tolerance=1e-4))


@pytest.mark.parametrize("name", [*ADAPTIVE, *SCIPY])
def test_blow_up_in_finite_time(name: str) -> None:
    with torch.no_grad(), pytest.raises(SolverError) as caught:
        solve(lambda t, z: z * z, torch.ones(2, dtype=torch.float64), [0.0, 0.5, 2.0], engine(name, tolerance=1e-3))
    # SciPy says no more than which observation it did not reach, unless z overflows first.
    assert 0.5 <= caught.value.t <= 1.1
    assert name in SCIPY or caught.value.t > 0.9


def test_a_jump_that_no_step_resolves_is_an_underflow() -> None:
    with pytest.raises(StepSizeUnderflow, match=r"the step size collapsed at t=1 "):
        solve(lambda t, z: -1e18 * torch.sign(z - 0.5), torch.ones(1, dtype=torch.float64), [1.0, 2.0], engine("bosh3"))


def test_lists_and_tensors_of_times_are_the_same() -> None:
    a = solve(Linear(), Z0, [0.0, 1.0], engine("dopri8"))
    b = solve(Linear(), Z0, torch.tensor([0.0, 1.0]), engine("dopri8"))
    assert torch.equal(a.z, b.z)


def test_settings_reach_its_constructor() -> None:
    stats = solve(Linear(), Z0, [0.0, 1.0], engine("dopri5", tolerance=1e-2, first_step=1e-3), record=True).stats
    assert stats.records is not None
    assert stats.records[0][1] == 1e-3


def test_warnings_of_others_are_still_heard() -> None:
    with torch.no_grad():
        solve(TimeMLP(), Z0, [0.0, 1.0], engine("radau"))
    with pytest.warns(UserWarning, match="something else"):
        warnings.warn("something else", stacklevel=1)


def test_scipy_sees_a_weight_that_is_no_parameter() -> None:
    w = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    with pytest.raises(ValueError, match="lsoda runs outside autograd"):
        solve(lambda t, z: -w * z, Z0, [0.0, 1.0], make_method("lsoda", engine="torchdiffeq"))


def test_the_adjoint_is_differentiated_once() -> None:
    z0 = Z0.clone().requires_grad_()
    z = solve(lambda t, z: -(z**2), z0, [0.0, 1.0], make_method("dopri5", engine="torchdiffeq"), "adjoint").z[-1]
    with pytest.raises(RuntimeError, match="can be differentiated once"):
        torch.autograd.grad(z.sum(), z0, create_graph=True)


def test_the_adjoint_refuses_a_weight_that_only_later_times_use() -> None:
    a, b = (torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in (1.0, 2.0))
    method = make_method("dopri5", engine="torchdiffeq")
    z = solve(lambda t, z: -(a if t < 0.5 else b) * z, Z0, [0.0, 0.5, 1.0], method, "adjoint").z[-1]
    with pytest.raises(ValueError, match="no other tensors than at its first evaluation"):
        z.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", ENGINE_METHODS)
def test_a_scalar_state_keeps_its_precision(name: str, dtype: torch.dtype) -> None:
    """z = exp(-w t): dz/dz0 = z, dz/dw = -z at t = 1."""
    step_size = 0.002 if name == "explicit-adams" else 0.01
    for gradient in ("adjoint",) if name in SCIPY else ("backprop", "adjoint"):
        z0, w = (torch.ones((), dtype=dtype, requires_grad=True) for _ in range(2))
        method = engine(name, tolerance=1e-5, step_size=step_size)
        z = solve(lambda t, z, w=w: -w * z, z0, [0.0, 0.5, 1.0], method, gradient).z
        assert (z.shape, z.dtype) == ((3,), dtype)
        z[-1].backward()
        found = [float(z[-1].detach()), float(z0.grad), -float(w.grad)]
        assert found == pytest.approx([math.exp(-1.0)] * 3, rel=2e-2)


@pytest.mark.parametrize("name", ENGINE_METHODS)
def test_an_empty_batch_stays_empty(name: str) -> None:
    z0 = torch.ones(0, 2, requires_grad=True)
    z = solve(lambda t, z: -z, z0, [0.0, 0.5, 1.0], engine(name), "adjoint").z
    assert z.shape == (3, 0, 2)
    z.sum().backward()
    assert z0.grad is not None
