"""Tolerances, step sizes and the method of order eight: what a user notices first when it is wrong."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import scipy.integrate
import torch
from torch import Tensor

from neuralode_exp.ode import Method, make_method, solve
from tests.ode.problems import Z0, Linear, Spy, TimeMLP, hyperbola

MODES = ("backprop", "checkpoint", "adjoint")
STAGES = {"adaptive-heun": 2, "fehlberg2": 3, "bosh3": 3, "dopri5": 6, "tsit5": 6, "dopri8": 13, "dop853": 12}
F64: dict[str, Any] = {"dtype": torch.float64}


def slope_of(errors: list[float], sizes: list[float]) -> float:
    return float(np.polyfit(np.log(sizes), np.log(errors), 1)[0])


@pytest.mark.parametrize("gradient", MODES)
@pytest.mark.parametrize("name", STAGES)
def test_a_component_that_is_zero_needs_no_absolute_tolerance(name: str, gradient: str) -> None:
    """dz/dt = (-z_0, 0, z_2 z_1): the last two stay at 0, where the tolerance is 0 too."""
    z0 = torch.tensor([1.0, 0.0, 0.0], **F64, requires_grad=True)

    def f(t: Tensor, z: Tensor) -> Tensor:
        return torch.stack((-z[0], 0.0 * z[1], z[2] * z[1]))

    solution = solve(f, z0, [0.0, 0.5, 1.0], make_method(name, rtol=1e-5, atol=0.0), gradient)
    assert torch.allclose(solution.z[-1], torch.tensor([math.exp(-1), 0.0, 0.0], **F64), rtol=1e-2)
    assert not solution.z[:, 1:].any()
    solution.z[-1, 0].backward()
    assert z0.grad is not None
    assert float(z0.grad[0]) == pytest.approx(math.exp(-1), rel=1e-2)


@pytest.mark.parametrize("name", STAGES)
def test_a_component_that_starts_at_zero_needs_no_absolute_tolerance(name: str) -> None:
    """dz/dt = 1 - 0.7 z, z = (1 - exp(-0.7 t)) / 0.7."""
    method = make_method(name, rtol=1e-5, atol=0.0)
    z = solve(lambda t, z: 1 - 0.7 * z, torch.zeros(2, **F64), [0.0, 1.0], method).z[-1]
    assert z.tolist() == pytest.approx([(1 - math.exp(-0.7)) / 0.7] * 2, rel=1e-2)


@pytest.mark.parametrize("t_end", [1.0, -1.0, 1e6, 1e-9])
@pytest.mark.parametrize("size", [0.0, 1.0, 1e9])
@pytest.mark.parametrize("name", STAGES)
def test_a_field_of_zeros_costs_one_step(name: str, size: float, t_end: float) -> None:
    """Two evaluations choose the first step, and it is the last: whatever the units of z and t."""
    z0 = torch.full((3,), size, **F64)
    solution = solve(lambda t, z: torch.zeros_like(z), z0, [0.0, t_end], make_method(name))
    assert torch.equal(solution.z[-1], z0)
    assert solution.stats.nfe_forward <= STAGES[name] + 4


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("name", ["bosh3", "dopri5", "dop853"])
def test_the_first_step_knows_no_units_of_time(name: str, scale: float) -> None:
    """dz/dt = (1 - z) / scale from z = 0 to t = scale is one problem; its first step is a rule of thumb."""
    counts = []
    for unit in (1.0, scale):
        z0, method = torch.zeros(2, **F64), make_method(name, rtol=1e-5)
        counts.append(solve(lambda t, z, unit=unit: (1 - z) / unit, z0, [0.0, unit], method).stats.nfe_forward)
    assert max(counts) <= 1.4 * min(counts)


@pytest.mark.parametrize("name", ["bosh3", "dopri5", "tsit5", "dopri8", "dop853"])
def test_rtol_alone_moves_the_error_and_the_evaluations(name: str) -> None:
    node, z0, t = Linear(torch.diag(torch.tensor([-1.0, -2.0], **F64))), torch.ones(2, **F64), torch.tensor([0.0, 5.0])
    exact = node.exact(t.double(), z0)[-1]
    tolerances = [1e-2, 1e-4, 1e-6, 1e-8, 1e-10]
    solutions = [solve(node, z0, [0.0, 5.0], make_method(name, rtol=rtol)) for rtol in tolerances]
    errors = [float((s.z[-1] - exact).detach().abs().max()) for s in solutions]
    counts = [s.stats.nfe_forward for s in solutions]
    assert sorted(set(counts)) == counts
    assert sorted(set(errors), reverse=True) == errors
    assert errors[-1] < 1e-4 * errors[0]


@pytest.mark.parametrize("name", STAGES)
def test_atol_is_rtol_if_it_is_not_given(name: str) -> None:
    runs: list[dict[str, float]] = [{"rtol": 1e-4}, {"rtol": 1e-4, "atol": 1e-4}, {"rtol": 1e-4, "atol": 1e-9}]
    alone, same, other = (solve(TimeMLP(), Z0, [0.0, 3.0], make_method(name, **run)).z for run in runs)
    assert torch.equal(alone, same)
    assert not torch.equal(alone, other)
    tight, default = (solve(TimeMLP(), Z0, [0.0, 1.0], make_method(name, **run)).z for run in ({"rtol": 1e-7}, {}))
    assert torch.equal(tight, default)


def test_atol_of_torchdiffeq_is_rtol_if_it_is_not_given() -> None:
    settings: list[dict[str, float]] = [{"rtol": 1e-4}, {"rtol": 1e-4, "atol": 1e-4}]
    a, b = (solve(TimeMLP(), Z0, [0.0, 3.0], make_method("dopri5", engine="torchdiffeq", **s)).z for s in settings)
    assert torch.equal(a, b)


@pytest.mark.parametrize("times", [[0.0, 0.3, 2.0], [2.0, 0.3, 0.0]], ids=["increasing", "decreasing"])
@pytest.mark.parametrize("name", STAGES)
def test_no_step_is_larger_than_max_step(name: str, times: list[float]) -> None:
    method = make_method(name, rtol=1e-1, max_step=0.07)
    records = solve(TimeMLP(), Z0, times, method, record=True).stats.records
    assert records is not None
    assert max(abs(dt) for _, dt, _, _ in records) <= 0.07 * (1 + 1e-12)
    free = solve(TimeMLP(), Z0, times, make_method(name, rtol=1e-1), record=True).stats.records
    assert free is not None
    assert max(abs(dt) for _, dt, _, _ in free) > 0.07


@pytest.mark.parametrize("name", STAGES)
def test_max_step_bounds_a_first_step_that_is_given(name: str) -> None:
    method = make_method(name, rtol=1e3, max_step=0.125, first_step=0.5)
    assert solve(TimeMLP(), Z0, [0.0, 1.0], method).stats.accepted == 8


def test_max_step_bounds_the_backward_solve() -> None:
    solution = solve(TimeMLP(), Z0, [0.0, 1.0], make_method("dopri5", rtol=1e3, max_step=0.125), "adjoint")
    solution.z[-1].sum().backward()
    assert solution.stats.nfe_backward >= 8 * STAGES["dopri5"]


@pytest.mark.parametrize("times", [[0.0, 0.4, 1.0], [1.0, 0.4, 0.0]], ids=["increasing", "decreasing"])
@pytest.mark.parametrize("name", STAGES)
def test_the_first_accepted_step_can_open_the_next_solve(name: str, times: list[float]) -> None:
    """It saves the probe, one evaluation; the steps stay the same."""
    first = solve(TimeMLP(), Z0, times, make_method(name, rtol=1e-5), record=True).stats
    assert first.records is not None
    accepted = [abs(dt) for _, dt, _, ok in first.records if ok]
    assert first.first_step == accepted[0]
    again = solve(TimeMLP(), Z0, times, make_method(name, rtol=1e-5, first_step=first.first_step)).stats
    assert (again.first_step, again.accepted) == (first.first_step, first.accepted)
    assert again.nfe_forward < first.nfe_forward


def test_the_first_step_of_fixed_ones_is_their_size() -> None:
    stats = solve(TimeMLP(), Z0, [1.0, 0.0], make_method("rk4", step_size=0.25)).stats
    assert stats.first_step == 0.25


def steps_of(dt: float) -> Method:
    """dop853 in equal steps: everything is accepted and nothing is larger than dt."""
    return make_method("dop853", rtol=1e6, atol=1e6, first_step=dt, max_step=dt)


def test_dop853_is_of_order_eight() -> None:
    """dz/dt = z cos t, z = exp(sin t)."""
    sizes, errors = [0.5, 0.25, 0.125], []
    for dt in sizes:
        solution = solve(lambda t, z: z * torch.cos(t), torch.ones((), **F64), [0.0, 2.0], steps_of(dt))
        assert solution.stats.accepted == 2.0 / dt
        errors.append(abs(float(solution.z[-1]) - math.exp(math.sin(2.0))))
    assert errors[-1] > 1e-14
    assert slope_of(errors, sizes) == pytest.approx(8.0, abs=0.3)


def test_dense_output_of_dop853_is_of_order_seven() -> None:
    """The largest error inside the steps of a whole solve, all of them off the steps' ends."""
    sizes, errors = [0.25, 0.125, 0.0625], []
    times = torch.linspace(0.0, 2.0, 998, **F64)
    z0 = torch.tensor([1.0, 0.5, 2.0], **F64)
    for dt in sizes:
        z = solve(hyperbola, z0, times, steps_of(dt)).z
        errors.append(float((z - 1 / (1 / z0 + times[:, None] ** 2)).abs().max()))
    assert errors[-1] > 1e-14
    assert slope_of(errors, sizes) >= 6.7


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_dop853_and_its_dense_output_are_those_of_scipy(sign: float) -> None:
    """One step: state, and the interpolant at nine places."""
    f, h = TimeMLP(), 0.3 * sign
    state = Z0.flatten().numpy()

    def numpy_f(t: float, z: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return f(torch.tensor(t, **F64), torch.from_numpy(z).reshape(Z0.shape)).flatten().numpy()

    solver = scipy.integrate.DOP853(numpy_f, 0.1, state, 0.1 + h, first_step=abs(h), rtol=1e3, atol=1e3)
    solver.step()
    times = [0.1 + h * x for x in np.linspace(0.0, 1.0, 11)]
    expected = torch.from_numpy(solver.dense_output()(np.array(times)).T).reshape(-1, *Z0.shape)
    solution = solve(f, Z0, times, make_method("dop853", rtol=1e3, atol=1e3, first_step=1.0))
    assert solution.stats.accepted == 1
    assert torch.allclose(solution.z, expected, rtol=0, atol=1e-13)  # the coefficients of the interpolant go up to 545


def test_dense_output_of_dop853_costs_four_evaluations_of_the_steps_that_need_it() -> None:
    """Twelve stages; three more, and the closing one that they start from, where observations lie inside."""
    method = make_method("dop853", rtol=1e3, atol=1e3, first_step=1.0)
    counts = []
    for times in ([0.0, 1.0], [0.0, 0.5, 1.0], [0.0, 0.1, 0.5, 0.9, 1.0]):
        f = Spy(TimeMLP())
        solution = solve(f, Z0, times, method)
        assert solution.stats.nfe_forward == len(f.times)
        assert min(f.times) >= 0.0
        assert max(f.times) <= 1.0
        counts.append(solution.stats.nfe_forward)
    assert counts == [12, 16, 16]


def van_der_pol(t: Tensor, z: Tensor) -> Tensor:
    x, v = z[..., 0], z[..., 1]
    return torch.stack((v, 2.0 * (1.0 - x * x) * v - x), -1)


def test_many_observations_cost_dop853_a_third_of_the_evaluations_of_dopri8() -> None:
    """256 oscillators, 200 observations: dopri8 steps onto each of them, 2,588 evaluations."""
    z0 = torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
    t = torch.linspace(0.0, 10.0, 200)
    with torch.no_grad():
        found = {name: solve(van_der_pol, z0, t, make_method(name, rtol=1e-5)) for name in ("dopri8", "dop853")}
        exact = solve(van_der_pol, z0.double(), t, make_method("dop853", rtol=1e-10)).z
    # The reference is of t in float32, which both see.
    assert float((found["dop853"].z - exact).abs().max()) < 1e-2
    assert 3 * found["dop853"].stats.nfe_forward <= 2588
    assert 3 * found["dop853"].stats.nfe_forward <= found["dopri8"].stats.nfe_forward


@pytest.mark.parametrize("state", ["tensor", "tuple"])
@pytest.mark.parametrize("name", ["dopri5", "tsit5", "dop853", "fehlberg2"])
def test_a_slope_whose_norm_overflows_in_float32_is_not_stiff(name: str, state: str) -> None:
    """Slope over tolerance is about 1e21, whose square is beyond float32. The first step is that of float64."""
    steps = []
    for dtype in (torch.float32, torch.float64):
        z0, method = torch.ones(2, dtype=dtype), make_method(name, rtol=1e-6)
        if state == "tensor":
            solution = solve(lambda t, z: -1e15 * z, z0, [0.0, 1e-15], method)
            z = solution.z[-1]
        else:
            solution = solve(lambda t, z: (-1e15 * z[0],), (z0,), [0.0, 1e-15], method)
            z = solution.z[0][-1]
        assert z.tolist() == pytest.approx([math.exp(-1.0)] * 2, rel=1e-3)
        steps.append(solution.stats.first_step)
    assert steps[0] == pytest.approx(steps[1], rel=1e-2)
