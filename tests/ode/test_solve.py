"""The forward solve: exact solutions, exact counts, and what the solver asks of f and of its input."""

from __future__ import annotations

import doctest
import importlib
import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from neuralode_exp.ode import TABLEAUS, Method, make_method, solve
from tests.ode.problems import Z0, Linear, Spy, TimeMLP, adaptive, fixed, hyperbola

ADAPTIVE = [name for name, tableau in TABLEAUS.items() if tableau.e is not None]
FIXED = [name for name in TABLEAUS if name not in ADAPTIVE]
TIMES = {
    "increasing": [0.0, 0.3, 0.35, 0.9, 1.0],
    "decreasing": [1.0, 0.7, 0.65, 0.1, 0.0],
    # Its ends and sums of steps do not round to each other.
    "awkward": [0.1, 0.1 + 0.2, 0.7, 1.1],
}


def method_of(name: str, rtol: float = 1e-6, step_size: float = 0.05) -> Method:
    if name in FIXED:
        return make_method(name, step_size=step_size)
    return make_method(name, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("t", TIMES.values(), ids=TIMES)
@pytest.mark.parametrize("name", ADAPTIVE)
def test_matrix_exponential_within_tolerance(name: str, t: list[float]) -> None:
    f = Linear()
    times = torch.tensor(t, dtype=torch.float64)
    solution = solve(f, Z0, times, method_of(name, rtol=1e-6))
    # A local error of 1e-6 in each of up to some hundred steps. fehlberg2's estimate is 1 / 512 of its increments'
    # differences, too small for its own error.
    assert (solution.z - f.exact(times, Z0)).abs().max() < (1e-3 if name == "fehlberg2" else 2e-5)
    assert torch.equal(solution.z[0], Z0)


@pytest.mark.parametrize("name", FIXED)
def test_matrix_exponential_with_fixed_steps(name: str) -> None:
    f = Linear()
    times = torch.tensor(TIMES["increasing"], dtype=torch.float64)
    z = solve(f, Z0, times, make_method(name, step_size=0.01)).z
    # The global error is about (|lambda| dt)^order with |lambda| = 2.
    assert (z - f.exact(times, Z0)).abs().max() < 2 * 0.02 ** TABLEAUS[name].order


@pytest.mark.parametrize("name", ADAPTIVE)
def test_error_falls_with_the_tolerance(name: str) -> None:
    f, t = Linear(), torch.tensor([0.0, 1.5], dtype=torch.float64)
    with torch.no_grad():
        zs = [solve(f, Z0, t, method_of(name, rtol)).z for rtol in (1e-3, 1e-4, 1e-5)]
        errors = [float((z - f.exact(t, Z0)).abs().max()) for z in zs]
    assert all(tight < loose / 2 for loose, tight in pairwise(errors))


@pytest.mark.parametrize("name", TABLEAUS)
def test_forward_then_backward_in_time_is_the_identity(name: str) -> None:
    method = method_of(name, rtol=1e-6, step_size=0.004)
    f = TimeMLP()
    with torch.no_grad():
        z1 = solve(f, Z0, [0.2, 1.0], method).z[-1]
        z0 = solve(f, z1, [1.0, 0.2], method).z[-1]
    # Euler's global error with step 0.004 is 4e-3; second order with 200 steps or a tolerance of 1e-6 is below 1e-4.
    assert (z0 - Z0).abs().max() < (1e-2 if name == "euler" else 1e-4)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4), (2, 0)])
@pytest.mark.parametrize("name", ["rk4", "dopri5", "dopri8"])
def test_any_shape_and_both_precisions(name: str, shape: tuple[int, ...]) -> None:
    for dtype in (torch.float32, torch.float64):
        z0 = torch.full(shape, 2.0, dtype=dtype)
        z = solve(lambda t, z: -z, z0, [0.0, 0.5, 1.0], method_of(name, rtol=1e-5)).z
        assert (z.shape, z.dtype) == ((3, *shape), dtype)
        assert torch.allclose(z[-1], z0 * math.exp(-1.0), rtol=1e-4)


def test_a_batch_of_fixed_steps_equals_single_solves() -> None:
    f, method = TimeMLP(), make_method("rk4", step_size=0.1)
    batch = solve(f, Z0, [0.0, 1.0], method).z
    single = torch.stack([solve(f, z, [0.0, 1.0], method).z for z in Z0], dim=1)
    assert torch.allclose(batch, single, rtol=0, atol=1e-15)  # matrix products may round differently


def test_one_time_gives_z0_back_without_evaluating_f() -> None:
    solution = solve(Linear(), Z0, [0.7], make_method("dopri5"))
    assert torch.equal(solution.z, Z0[None])
    assert solution.stats.nfe_forward == solution.stats.accepted == 0


@pytest.mark.parametrize("gradient", ["backprop", "checkpoint", "adjoint"])
@pytest.mark.parametrize("t", TIMES.values(), ids=TIMES)
@pytest.mark.parametrize("name", TABLEAUS)
def test_f_is_never_evaluated_outside_the_interval(name: str, t: list[float], gradient: str) -> None:
    f = Spy(TimeMLP())
    z0 = Z0.clone().requires_grad_()
    solution = solve(f, z0, t, method_of(name, rtol=1e-3, step_size=0.07), gradient)
    solution.z.square().sum().backward()
    assert len(f.times) == solution.stats.nfe_forward + solution.stats.nfe_backward
    assert min(t) <= min(f.times)
    assert max(f.times) <= max(t)


def test_the_probe_of_the_first_step_stays_inside() -> None:
    # f is so flat that the probe wants the whole interval, and t0 + (t1 - t0) is often the float after t1.
    for i in range(50):
        t0, t1 = 0.1 + 0.0137 * i, 0.9 + 0.0271 * i
        f = Spy(Linear(1e-7 * torch.eye(3, dtype=torch.float64)))
        for t in ([t0, t1], [t1, t0]):
            solve(f, Z0, t, make_method("dopri5"))
            assert t0 <= min(f.times)
            assert max(f.times) <= t1
            f.times.clear()


@pytest.mark.parametrize("name", TABLEAUS)
def test_evaluations_are_stages_times_fixed_steps(name: str) -> None:
    tableau = TABLEAUS[name]
    # ceil(0.3 / 0.1) + ceil(0.05 / 0.1) + ceil(0.65 / 0.1), and 1e-9 forgives 0.3 / 0.1 = 2.9999999999999996.
    stats = solve(TimeMLP(), Z0, [0.0, 0.3, 0.35, 1.0], fixed(name, 0.1)).stats
    assert (stats.accepted, stats.rejected) == (3 + 1 + 7, 0)
    assert stats.nfe_forward == tableau.stages * 11


@pytest.mark.parametrize("name", ADAPTIVE)
def test_evaluations_of_adaptive_steps(name: str) -> None:
    tableau = TABLEAUS[name]
    stats = solve(hyperbola, 3 * Z0.abs() + 1, [0.0, 2.0], adaptive(name, rtol=1e-4, atol=1e-4, first_step=0.5)).stats
    assert stats.rejected > 0
    if tableau.closes_before_test:  # k_0 once, then it is the last derivative of each trial
        assert stats.nfe_forward == 1 + tableau.stages * stats.trials
    else:  # k_0 is evaluated at each accepted state but the last
        assert stats.nfe_forward == (tableau.stages - 1) * stats.trials + stats.accepted
    free = solve(hyperbola, 3 * Z0.abs() + 1, [0.0, 2.0], adaptive(name, rtol=1e-4, atol=1e-4)).stats
    steps = tableau.stages * free.trials + 2 if tableau.closes_before_test else 0
    steps = steps or (tableau.stages - 1) * free.trials + free.accepted + 1
    assert free.nfe_forward == steps  # the probe of the first step is one more


@pytest.mark.parametrize("name", ["adaptive-heun", "dopri5", "tsit5", "bosh3"])
def test_interior_observations_cost_no_steps(name: str) -> None:
    method = make_method(name, rtol=1e-4, atol=1e-4)
    two = solve(TimeMLP(), Z0, [0.0, 1.0], method)
    many = solve(TimeMLP(), Z0, [*(i / 50 for i in range(50)), 1.0 - 1e-6, 1.0], method)
    assert torch.equal(two.z[-1], many.z[-1])
    assert many.stats.accepted == two.stats.accepted
    # Only a method that does not close its steps anyway evaluates f once more, at the end of the last one.
    extra = 0 if TABLEAUS[name].closes_before_test else 1
    assert many.stats.nfe_forward == two.stats.nfe_forward + extra


def test_dopri8_steps_onto_observations_and_keeps_its_step_size() -> None:
    method = make_method("dopri8", rtol=1e-6, atol=1e-6)
    t = [0.0, 0.5, 0.5001, 1.0]
    solution = solve(TimeMLP(), Z0, t, method, record=True)
    records = solution.stats.records
    assert records is not None
    ends = [start + dt for start, dt, _, accepted in records if accepted]
    assert all(any(abs(end - x) < 1e-15 for end in ends) for x in t[1:])
    # The step after the one of 1e-4 does not start from 10 x 1e-4 again.
    assert next(dt for start, dt, _, _ in records if start == 0.5001) > 0.01


def test_records_tell_every_trial() -> None:
    solution = solve(hyperbola, 4 * torch.ones(1), [0.0, 2.0], make_method("bosh3", rtol=1e-3, atol=1e-3), record=True)
    stats = solution.stats
    assert stats.records is not None
    assert len(stats.records) == stats.trials
    assert all((ratio <= 1.0) is accepted for _, _, ratio, accepted in stats.records)
    accepted = [(t, dt) for t, dt, _, ok in stats.records if ok]
    assert all(abs(t + dt - t_next) < 1e-14 for (t, dt), (t_next, _) in pairwise(accepted))
    assert accepted[0][0] == 0.0
    assert sum(accepted[-1]) == pytest.approx(2.0, abs=1e-14)


def test_min_step_accepts_whatever_the_error() -> None:
    solution = solve(
        hyperbola, 4 * torch.ones(1), [0.0, 1.0], make_method("dopri5", rtol=1e-9, atol=1e-9, min_step=0.25)
    )
    assert (solution.stats.accepted, solution.stats.rejected) == (4, 0)


class ConvField(nn.Module):
    """A field on images that notes the memory format of what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)
        self.seen: set[bool] = set()
        self.seen_backward: set[bool] = set()

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        self.seen.add(is_channels_last(z))
        dz = torch.tanh(self.conv(z))
        if dz.requires_grad:
            dz.register_hook(lambda adj: self.seen_backward.add(is_channels_last(adj)))
        return dz


def is_channels_last(z: Tensor) -> bool:
    return z.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("gradient", ["backprop", "checkpoint", "adjoint"])
@pytest.mark.parametrize("name", ["rk4", "dopri5", "dopri8"])
def test_channels_last_is_kept(name: str, gradient: str) -> None:
    f = ConvField().to(memory_format=torch.channels_last)
    z0 = torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(0))
    z0 = z0.contiguous(memory_format=torch.channels_last).requires_grad_()
    z = solve(f, z0, [0.0, 0.4, 0.5, 1.0], method_of(name, rtol=1e-2), gradient).z
    assert all(is_channels_last(z_i) for z_i in z)
    z[1:].square().sum().backward()
    assert f.seen == f.seen_backward == {True}
    assert z0.grad is not None
    assert is_channels_last(z0.grad)


class HostCopies(TorchDispatchMode):
    """Counts the scalars that are read from a device: item(), float(), bool() and what is made of them."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_one_scalar_per_step_is_read_from_the_device() -> None:
    f, z0 = TimeMLP(), Z0.clone().requires_grad_()
    adaptive = make_method("dopri5", rtol=1e-5, atol=1e-5, first_step=0.1)
    with HostCopies() as copies:
        solution = solve(f, z0, [0.0, 0.5, 1.0], adaptive, "checkpoint")
    assert copies.count == solution.stats.trials
    with HostCopies() as copies:
        solution.z.sum().backward()
    assert copies.count == 1  # does f give again what it gave
    with HostCopies() as copies:
        solve(f, z0, [0.0, 0.5, 1.0], make_method("rk4", step_size=0.1))
    assert copies.count == 1  # is the last state finite


@pytest.mark.parametrize(
    ("t", "message"),
    [
        ([], "`t` must hold at least one time, got none"),
        ([0.0, 1.0, 1.0], "`t` must be strictly increasing or decreasing, got t[2]=1 after 1; sort the times"),
        ([0.0, 1.0, 0.5], "`t` must be strictly increasing or decreasing, got t[2]=0.5 after 1"),
        ([1.0, 0.5, 0.7], "`t` must be strictly increasing or decreasing, got t[2]=0.7 after 0.5"),
        ([0.0, math.nan], "`t` must be finite, got t[1]=nan"),
        (torch.zeros(2, 2), "`t` must have one dimension, got shape (2, 2); use t.flatten()"),
        (torch.arange(3), "`t` must be floating point, got int64; use t.double()"),
    ],
)
def test_bad_times_are_refused(t: list[float] | Tensor, message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011  the message is compared below, without escapes
        solve(Linear(), Z0, t, make_method("dopri5"))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (lambda t, z: z[0], "with the shape and dtype of z, got (3,) float64 for z of (2, 3) float64"),
        (lambda t, z: z.float(), "with the shape and dtype of z, got (2, 3) float32 for z of (2, 3) float64"),
        (lambda t, z: None, "must return dz/dt, a tensor, got NoneType; does it end in return?"),
    ],
)
@pytest.mark.parametrize("name", ["rk4", "dopri5"])
def test_a_field_of_the_wrong_kind_is_refused(name: str, f: nn.Module, message: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        solve(f, Z0, [0.0, 1.0], method_of(name))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"z0": torch.zeros(2, dtype=torch.int64)},
            "`z0` must be a float32 or float64 tensor, or a tuple of them, got int64",
        ),
        ({"z0": torch.zeros(2, dtype=torch.complex64)}, "got complex64"),
        ({"z0": [1.0]}, "got list"),
        ({"gradient": "adjont"}, "`gradient` must be backprop, checkpoint, adjoint or reversible, got 'adjont'"),
        ({"adjoint_method": make_method("rk4", step_size=1.0)}, "`adjoint_method` belongs to gradient='adjoint'"),
    ],
)
def test_bad_arguments_are_refused(change: dict, message: str) -> None:
    arguments = {"f": Linear(), "z0": Z0, "t": [0.0, 1.0], "method": make_method("dopri5")} | change
    with pytest.raises(ValueError) as error:  # noqa: PT011
        solve(**arguments)
    assert message in str(error.value)


def test_the_docstrings_example() -> None:
    result = doctest.testmod(importlib.import_module("neuralode_exp.ode.solution"))
    assert (result.attempted, result.failed) == (5, 0)
