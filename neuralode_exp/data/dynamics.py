"""Make noisy observations of a known dynamical system, and fit a linear system to observations."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from neuralode_exp.data.inputs import Input, random_samples
from neuralode_exp.data.systems import System, make_system

SAMPLINGS = ("regular", "random")
# Append only, because an index here is part of a seed.
STREAMS = ("times", "train", "validation", "test", "train inputs", "validation inputs", "test inputs")


@dataclass(frozen=True, eq=False)
class Observations:
    """Trajectories at the times `Dynamics.t`: truth and observations, shape (T, N, d), and inputs, shape (T, N, m)."""

    clean: Tensor
    noisy: Tensor
    u: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Dynamics:
    """Observations of a system from three independent sets of initial states.

    Args:
        system: the true system with `f`, `flow`, `fixed_point` and `eigenvalues`.
        noise: standard deviation of the noise that was added to the states.
        t: times of all trajectories, shape (T,), from 0 to t_max, increasing.
        train, validation, test: the trajectories.
        t_long: regular times of the longer test, shape (T_long,), with the step t_max / (T - 1).
        z_long: the test trajectories at t_long without noise, shape (T_long, n, d).
        u_long: their inputs, shape (T_long, n, m).
        input: how inputs are interpolated between their times.
    """

    system: System
    noise: float
    t: Tensor
    train: Observations
    validation: Observations
    test: Observations
    t_long: Tensor
    z_long: Tensor
    u_long: Tensor | None = None
    input: str = "hold"


def make_dynamics(
    system: str | System,
    *,
    trajectories: int = 64,
    points: int = 100,
    t_max: float | None = None,
    noise: float = 0.01,
    sampling: str = "regular",
    low: float | Sequence[float] | None = None,
    high: float | Sequence[float] | None = None,
    validation: int = 16,
    test: int = 16,
    test_horizon: float = 2.0,
    input: str = "hold",
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    **parameters: Any,
) -> Dynamics:
    """Observe a system from random initial states: z_obs = z(t) + noise * N(0, 1), dz/dt = f(t, z).

    Every |z_i| stays below the square root of the largest number of `dtype` (1.8e19 in float32), so that squared
    errors are finite. The longer test ends early if its states would leave that range.

    Args:
        system: a name of `SYSTEMS` or a system of your own.
        trajectories: N, the number of training trajectories.
        points: T, the number of observations of a trajectory.
        t_max: last time of an observation; None: that of the system.
        noise: absolute standard deviation of the noise.
        sampling: "regular" times, or "random" times that all trajectories share.
        low, high: the box of initial states, one number or one for each dimension; None: that of the system.
        validation, test: numbers of validation and test trajectories.
        test_horizon: length of the longer test in units of t_max.
        input: how the random inputs of a driven system are interpolated, see `inputs.coefficients`.
        seed: seed of the data. The training set does not change with the size of another set or with the noise.
        dtype: dtype of the result. The flow is computed in float64.
        parameters: options of a system that is given by name (`matrix`, `mu`, ...).

    Raises:
        ValueError: an argument is outside its range, or the states leave the range of `dtype` before t_max.
    """
    if isinstance(system, str):
        system = make_system(system, **parameters)
    elif parameters:
        raise ValueError(f"{', '.join(parameters)} must go with a system's name, got a System; build it with them")
    t_max = system.t_max if t_max is None else t_max
    sizes = {"train": trajectories, "validation": validation, "test": test}
    _check(sizes, points, t_max, noise, sampling, test_horizon)
    check_times(t_max, points, dtype)
    low_, high_ = _box(system, low, high)

    streams = {name: _generator(seed, name) for name in STREAMS}
    t = (t_max * _times(points, sampling, streams["times"])).to(dtype)
    box = torch.stack((low_, high_))
    z0 = {name: system.initial(box, _uniform(streams[name], size, system.dim)) for name, size in sizes.items()}
    steps = round(test_horizon * (points - 1))
    rows = max(points, steps + 1)
    u = {name: _inputs(system, size, rows, streams[f"{name} inputs"]) for name, size in sizes.items()}

    def flow(name: str, t: Tensor) -> Tensor:
        given = u[name]
        return system.flow(z0[name], t, None if given is None else Input.of(t, given[: len(t)], input))

    clean = {name: flow(name, t) for name in z0}
    limit = largest_state(dtype)
    if not noise < limit:
        raise ValueError(f"`noise` must be below {limit:.1e}, got {noise:g}; 0.01 is a common choice")
    if any(_rows_in_range(z, limit) < points for z in clean.values()):
        raise ValueError(_out_of_range(system, torch.cat(list(z0.values())), t_max, limit, dtype))
    observations = {name: _observe(z, noise, streams[name], dtype, u[name]) for name, z in clean.items()}

    t_long = (t_max * (torch.arange(steps + 1, dtype=torch.float64) / (points - 1))).to(dtype)
    z_long = flow("test", t_long)
    rows = _rows_in_range(z_long, limit)
    u_long = None if u["test"] is None else u["test"][:rows].to(dtype)
    z_long = z_long[:rows].to(dtype)
    return Dynamics(system, noise, t, **observations, t_long=t_long[:rows], z_long=z_long, u_long=u_long, input=input)


def check_times(t_max: float, points: int, dtype: torch.dtype) -> None:
    """Raise ValueError if times from 0 to t_max are too large for a dtype, or if two of them are equal in it."""
    t = (t_max * _times(points, "regular", torch.Generator())).to(dtype)
    if not (t.isfinite().all() and (t.diff() > 0).all()):
        rule = f"`t_max` must give {points} different times in {str(dtype).removeprefix('torch.')}"
        raise ValueError(f"{rule}, got {t_max:g}; 1 is a common choice")


def _check(sizes: dict[str, int], points: int, t_max: float, noise: float, sampling: str, test_horizon: float) -> None:
    for name, size in sizes.items():
        if size < (least := 0 if name == "validation" else 1):
            key = "trajectories" if name == "train" else name
            raise ValueError(f"`{key}` must be at least {least}, got {size}")
    if not 0 < t_max < math.inf:
        raise ValueError(f"`t_max` must be a positive time, got {t_max}")
    if points < 2:
        raise ValueError(f"`points` must be at least 2, the first at t = 0 and the last at t_max, got {points}")
    if not 0 <= noise < math.inf:
        raise ValueError(f"`noise` must be a standard deviation >= 0, got {noise}")
    if sampling not in SAMPLINGS:
        raise ValueError(f"`sampling` must be one of {', '.join(SAMPLINGS)}, got {sampling!r}")
    if not 1 <= test_horizon < math.inf:
        raise ValueError(f"`test_horizon` must be at least 1, in units of t_max, got {test_horizon}")


def _box(system: System, low: float | Sequence[float] | None, high: float | Sequence[float] | None) -> Tensor:
    """Return the box of initial states, low and high, shape (2, d)."""
    own = torch.tensor(system.box, dtype=torch.float64).T
    box = own.clone()
    for side, (name, end) in zip(box, {"low": low, "high": high}.items(), strict=True):
        given = torch.tensor(side.tolist() if end is None else end, dtype=torch.float64)
        if given.dim() > 0 and given.shape != side.shape:
            got = given.tolist()
            raise ValueError(f"`{name}` must be one number or {system.dim}, one for each dimension, got {got}")
        side.copy_(given)
    if not (box.isfinite().all() and (box[0] < box[1]).all()):
        raise ValueError(f"`low` must be below `high`, both finite, got {box[0].tolist()} and {box[1].tolist()}")
    return box


def _generator(seed: int, stream: str) -> torch.Generator:
    """Return a random generator that is independent for each seed and name of a stream."""
    state = np.random.SeedSequence((seed, STREAMS.index(stream))).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]))


def _uniform(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def _times(points: int, sampling: str, generator: torch.Generator) -> Tensor:
    """Return increasing times from 0 to 1.

    Random times are sorted uniform draws. Neighbours are at least a hundredth of the mean distance apart, because two
    times that round to the same number would give a step of length 0.
    """
    if sampling == "regular":
        return torch.arange(points, dtype=torch.float64) / (points - 1)
    inner = _uniform(generator, points - 2).sort().values
    random = torch.cat((inner.new_zeros(1), inner, inner.new_ones(1)))
    return 0.99 * random + 0.01 * torch.arange(points, dtype=torch.float64) / (points - 1)


def _inputs(system: System, n: int, points: int, generator: torch.Generator) -> Tensor | None:
    return random_samples(n, points, system.inputs, generator) if system.inputs else None


def _observe(
    clean: Tensor, noise: float, generator: torch.Generator, dtype: torch.dtype, u: Tensor | None
) -> Observations:
    noisy = clean + noise * torch.randn(clean.shape, generator=generator, dtype=torch.float64)
    return Observations(clean.to(dtype), noisy.to(dtype), None if u is None else u[: len(clean)].to(dtype))


def largest_state(dtype: torch.dtype) -> float:
    """Return the largest |z| whose square a dtype can hold."""
    return math.sqrt(torch.finfo(dtype).max)


def _rows_in_range(z: Tensor, limit: float) -> int:
    """Return the number of leading times at which all |z_i| <= limit. NaN counts as above the limit."""
    inside = (z.abs() <= limit).all(dim=-1).all(dim=-1)
    return int(inside.long().cumprod(0).sum())


def _out_of_range(system: System, z0: Tensor, t_max: float, limit: float, dtype: torch.dtype) -> str:
    precision = str(dtype).removeprefix("torch.")
    rule = f"`t_max` must keep |z| below {limit:.1e}, where squares leave the range of {precision}"
    end = t_max
    for _ in range(10):  # each grid finds the last good time with an error of a thousandth of its end
        grid = torch.linspace(0, end, 1001, dtype=torch.float64)
        rows = _rows_in_range(system.flow(z0, grid), limit)
        if rows == 0:
            largest = float(z0.abs().max())
            return f"`high` must keep the initial states below {limit:.1e}, got {largest:.1e}; choose a smaller box"
        if rows > 500:
            break
        end = float(grid[rows])
    last = float(grid[rows - 1])
    unit = 10.0 ** (math.floor(math.log10(last)) - 2)  # round down to three digits
    fix = f"use at most t_max={math.floor(last / unit) * unit:.3g}"
    return f"{rule}, got {t_max:g}; {fix}" + ("" if dtype == torch.float64 else " or precision=float64")


class NoRealLogarithm(ValueError):
    """The one-step map is not the flow of a real linear system that turns by less than half a turn."""


def least_squares_generator(t: Tensor, z: Tensor) -> Tensor:
    """Fit dz/dt = A z to regular observations without a network: A = log(M) / dt, M = argmin sum |z_{i+1} - M z_i|^2.

    log is the principal logarithm, so that modes that turn by more than half a turn within dt are aliased. Noise in
    the z_i biases M towards 0.

    Args:
        t: regular times, shape (T,).
        z: observations, shape (T, N, d).

    Returns:
        A, shape (d, d), float64.

    Raises:
        NoRealLogarithm: an eigenvalue of M is 0 or negative.
        ValueError: the times are not regular.
    """
    times, states = t.double().cpu().numpy(), z.double().cpu().numpy()
    dt = (times[-1] - times[0]) / (len(times) - 1)
    if np.abs(np.diff(times) - dt).max() > 1e-3 * dt:
        raise ValueError("`t` must be regular, so that one map fits all steps; use sampling=regular")
    d = states.shape[-1]
    start, end = states[:-1].reshape(-1, d), states[1:].reshape(-1, d)
    one_step = np.linalg.lstsq(start, end, rcond=None)[0].T  # rows z_{i+1} = z_i M^T
    eigenvalues = np.linalg.eigvals(one_step)
    outside = eigenvalues[(eigenvalues.real <= 1e-12) & (np.abs(eigenvalues.imag) < 1e-12)]
    if len(outside):
        raise NoRealLogarithm(
            f"the one-step map must have no eigenvalue <= 0 for a real logarithm, got {outside[0].real:.3g} at "
            f"dt={dt:.3g}; take more points or a shorter t_max"
        )
    # Without eigenvalues on the negative axis the principal logarithm is real. Imaginary parts are rounding errors.
    return torch.from_numpy(np.real(scipy.linalg.logm(one_step)) / dt)
