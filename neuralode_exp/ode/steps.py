"""Runge-Kutta steps through a list of times, as generators of accepted steps.

Every gradient mode walks over the same steps: under autograd (`backprop`), without it while states are kept
(`checkpoint`), and over the augmented system backwards in time (`adjoint`). Time lives on the host in float64; the
one number that comes back from the device is the error ratio of each trial step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralode_exp.ode.errors import (
    MaxStepsExceeded,
    NonFiniteState,
    SolverError,
    StepSizeUnderflow,
    all_finite,
)
from neuralode_exp.ode.methods import Adaptive, FixedStep
from neuralode_exp.ode.stats import Stats
from neuralode_exp.ode.tableaus import Tableau

VectorField = Callable[[Tensor, Tensor], Tensor]
Norm = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Span:
    """Where an accepted step stands in time, and which observations it gives.

    Attributes:
        t, t1: its ends, t1 = t + dt up to rounding.
        dt: its signed size.
        inside: (index of the observation, fraction x of the step) of observations strictly inside it.
        ends_at: index of the observation at t1, or None.
    """

    t: float
    t1: float
    dt: float
    inside: tuple[tuple[int, float], ...] = ()
    ends_at: int | None = None


@dataclass(frozen=True)
class Step:
    """An accepted step from (t, z) to (t1, z1).

    Attributes:
        k: stage derivatives k_0 .. k_{s-1}, and the closing k_s where it was needed.
        dt_next: signed size that the controller proposes for the step after this one.
    """

    span: Span
    z: Tensor
    z1: Tensor
    k: list[Tensor]
    dt_next: float


def combine(z: Tensor, k: Sequence[Tensor], weights: Sequence[float], dt: float) -> Tensor:
    """z + dt sum_i w_i k_i, skipping zero weights, in the memory format of z; one new tensor, z itself if all are 0."""
    terms = [(k_i, dt * w_i) for k_i, w_i in zip(k, weights, strict=False) if w_i != 0.0]
    if not terms:
        return z
    (k_i, w_i), *others = terms
    z = torch.add(z, k_i, alpha=w_i)
    for k_i, w_i in others:
        z.add_(k_i, alpha=w_i)
    return z


def time_like(t: float, z: Tensor) -> Tensor:
    """t as a scalar tensor beside z, made on the device (`torch.tensor` would copy from the host)."""
    return torch.full((), t, dtype=z.dtype, device=z.device)


def rms(x: Tensor) -> Tensor:
    """Root mean square of all entries."""
    return torch.linalg.vector_norm(x) / math.sqrt(max(1, x.numel()))


def stages(f: VectorField, t: float, t1: float, dt: float, z: Tensor, k0: Tensor, tableau: Tableau) -> list[Tensor]:
    """k_0 .. k_{s-1} of a step from t to t1, k_0 given."""
    k = [k0]
    for c_i, a_i in zip(tableau.c[1:], tableau.a[1:], strict=True):
        k.append(f(time_like(stage_time(t, t1, dt, c_i), z), combine(z, k, a_i, dt)))
    return k


def stage_time(t: float, t1: float, dt: float, c: float) -> float:
    """t + c dt; exactly t1 for c = 1, where rounding could leave the interval."""
    return t1 if c == 1.0 else t + c * dt


def smallest_step(t0: float, t1: float) -> float:
    """Size at and below which t + dt is no longer told from t in float64."""
    return 4e-16 * max(abs(t0), abs(t1), abs(t1 - t0))


def fixed_steps(
    f: VectorField,
    z: Tensor,
    times: Sequence[float],
    method: FixedStep,
    stats: Stats,
    *,
    f_last: VectorField,
) -> Iterator[Step]:
    """Equal steps between observations; the last state is checked once, and the culprit located if it is bad."""
    counts = [method.steps_between(t, t_next) for t, t_next in zip(times, times[1:], strict=False)]
    wanted = stats.trials + sum(counts)
    if wanted > method.max_steps:
        where = f" ({wanted} steps > max_steps={method.max_steps})"
        raise MaxStepsExceeded(t=times[0], dt=method.step_size, steps=stats.trials, z=z, where=where)
    start = z
    for j, n in enumerate(counts, start=1):
        t0, t1 = times[j - 1], times[j]
        dt = (t1 - t0) / n
        for i in range(n):
            t, t_next = t0 + i * dt, t1 if i == n - 1 else t0 + (i + 1) * dt
            g = f_last if t_next == times[-1] else f
            k = stages(g, t, t_next, dt, z, g(time_like(t, z), z), method.tableau)
            z1 = combine(z, k, method.tableau.b, dt)
            stats.record(t, dt, 0.0, True)
            yield Step(Span(t, t_next, dt, ends_at=j if i == n - 1 else None), z, z1, k, dt_next=dt)
            z = z1
    if counts and not all_finite(z.detach()):
        raise _first_bad_step(f, start, times, counts, method.tableau)


@torch.no_grad()
def _first_bad_step(
    f: VectorField, z: Tensor, times: Sequence[float], counts: Sequence[int], tableau: Tableau
) -> SolverError:
    """Repeat a fixed-step solve whose last state is not finite, to say where it went wrong."""
    z = z.detach()
    steps = 0
    for t0, t1, n in zip(times, times[1:], counts, strict=False):
        dt = (t1 - t0) / n
        for i in range(n):
            t, t_next = t0 + i * dt, t1 if i == n - 1 else t0 + (i + 1) * dt
            z1 = combine(z, stages(f, t, t_next, dt, z, f(time_like(t, z), z), tableau), tableau.b, dt)
            steps += 1
            if not all_finite(z1):
                return NonFiniteState(t=t, dt=dt, steps=steps, z=z, state=z1)
            z = z1
    return NonFiniteState(t=times[-1], dt=0.0, steps=steps, z=z)


def walk(
    f: VectorField,
    z: Tensor,
    times: Sequence[float],
    method: FixedStep | Adaptive,
    stats: Stats,
    *,
    f_last: VectorField | None = None,
    dt: float | None = None,
    norm: Norm = rms,
) -> Iterator[Step]:
    """Steps of either kind of method.

    Args:
        f_last: f for the stages of a step that ends at the last time, for a caller who wants more of them; None: f.
        dt, norm: those of `adaptive_steps`.
    """
    f_last = f if f_last is None else f_last
    if isinstance(method, FixedStep):
        return fixed_steps(f, z, times, method, stats, f_last=f_last)
    return adaptive_steps(f, z, times, method, stats, f_last=f_last, dt=dt, norm=norm)


class _Controller:
    """Size of the next step; remembers the error ratio of the last accepted one."""

    def __init__(self, method: Adaptive) -> None:
        self.method = method
        self.previous_ratio = 1.0

    def next_size(self, dt: float, ratio: float, accepted: bool) -> float:
        dt = dt * self.method.factor(ratio, self.previous_ratio)
        if accepted:
            self.previous_ratio = max(ratio, 1e-4)
        return math.copysign(max(abs(dt), self.method.min_step), dt)


def adaptive_steps(
    f: VectorField,
    z: Tensor,
    times: Sequence[float],
    method: Adaptive,
    stats: Stats,
    *,
    f_last: VectorField,
    dt: float | None,
    norm: Norm,
) -> Iterator[Step]:
    """Steps under error control, the last one clipped to the last time.

    Observations inside a step are left to the interpolant; a method without one steps onto them.

    Args:
        f_last: see `walk`; the first stage of a step is the closing one of the step before it, hence f's.
        dt: signed first step; None takes `method.first_step`, or chooses it from the vector field.
        norm: size of (error / tolerance), one number.
    """
    if len(times) == 1:
        return
    tableau = method.tableau
    assert tableau.e is not None
    controller = _Controller(method)
    t, t_end, index = times[0], times[-1], 1
    floor = smallest_step(t, t_end)
    k0 = f(time_like(t, z), z)
    if dt is None:
        size = method.first_step or first_step(f, t, t_end, z, k0, method, norm)
        dt = math.copysign(max(size, method.min_step), t_end - t)
    abs_z = z.detach().abs()
    ratio, k, z1 = 0.0, [k0], z
    while index < len(times):
        if stats.trials >= method.max_steps:
            raise MaxStepsExceeded(t=t, dt=dt, steps=stats.trials, z=z)
        if abs(dt) <= floor or (abs(dt) <= method.min_step and not math.isfinite(ratio)):
            raise _collapse(t, dt, stats.trials, z, [z1, *k])
        stop = t_end if tableau.dense is not None else times[index]
        clipped = abs(stop - t) <= abs(dt)
        h, t1 = (stop - t, stop) if clipped else (dt, t + dt)

        g = f_last if t1 == t_end else f
        k = stages(g, t, t1, h, z, k0, tableau)
        z1 = combine(z, k, tableau.b, h)
        if tableau.closes_before_test:
            k.append(g(time_like(t1, z1), z1))
        abs_z1 = z1.detach().abs()
        ratio = _error_ratio(k, h, abs_z, abs_z1, method, norm)
        accepted = ratio <= 1.0 or (abs(h) <= method.min_step and math.isfinite(ratio))
        stats.record(t, h, ratio, accepted)
        proposal = controller.next_size(h, ratio, accepted)
        # A step that was cut short by an observation says little about the size that the problem allows.
        dt = dt if clipped and accepted and abs(dt) > abs(proposal) else proposal
        if not accepted:
            continue

        inside: list[tuple[int, float]] = []
        while index < len(times) and abs(times[index] - t) < abs(t1 - t):
            inside.append((index, (times[index] - t) / h))
            index += 1
        ends_at = index if index < len(times) and times[index] == t1 else None
        index += ends_at is not None
        if len(k) == tableau.stages and (inside or index < len(times)):
            k.append(g(time_like(t1, z1), z1))
        yield Step(Span(t, t1, h, tuple(inside), ends_at), z, z1, k, dt_next=dt)
        if index < len(times):
            t, z, k0, abs_z = t1, z1, k[-1], abs_z1


@torch.no_grad()
def _error_ratio(k: Sequence[Tensor], dt: float, abs_z: Tensor, abs_z1: Tensor, method: Adaptive, norm: Norm) -> float:
    """norm(error / (atol + rtol max(|z|, |z1|))): the one value that is copied to the host."""
    assert method.tableau.e is not None
    terms = [(k_i, dt * e_i) for k_i, e_i in zip(k, method.tableau.e, strict=False) if e_i != 0.0]
    (first, weight), *rest = terms
    error = first * weight
    for k_i, weight in rest:
        error.add_(k_i, alpha=weight)
    tolerance = torch.maximum(abs_z, abs_z1).mul_(method.rtol).add_(method.atol)
    return float(norm(error.div_(tolerance)))


@torch.no_grad()
def first_step(
    f: VectorField, t: float, t_end: float, z: Tensor, f0: Tensor, method: Adaptive, norm: Norm = rms
) -> float:
    """Unsigned size of the first step from two evaluations (Hairer, Nørsett & Wanner I, Sec. II.4) in [t, t_end].

    The order of the error is taken as order - 1, as in torchdiffeq.
    """
    scale = z.abs().mul_(method.rtol).add_(method.atol)
    d0, d1 = torch.stack([norm(z / scale), norm(f0 / scale)]).tolist()
    if not (math.isfinite(d0) and math.isfinite(d1)) and not (all_finite(z) and all_finite(f0)):
        bad = z if not all_finite(z) else f0
        raise NonFiniteState(t=t, dt=0.0, steps=0, z=z, state=bad, where=" (the initial state or f there)")
    h0 = 1e-6 if d0 < 1e-5 or d1 < 1e-5 or not math.isfinite(d0 * d1) else 0.01 * d0 / d1
    h0 = min(h0, abs(t_end - t))
    signed = math.copysign(h0, t_end - t)
    t_probe = t_end if h0 == abs(t_end - t) else t + signed  # t + (t_end - t) may lie beyond t_end by rounding
    f1 = f(time_like(t_probe, z), torch.add(z, f0, alpha=signed))
    d2 = float(norm((f1 - f0) / scale)) / h0
    if not math.isfinite(d2):
        return h0  # the probe overflowed: start small, the controller finds its way
    h1 = max(1e-6, h0 * 1e-3) if d1 <= 1e-15 and d2 <= 1e-15 else (0.01 / max(d1, d2)) ** (1.0 / method.tableau.order)
    return min(100.0 * h0, h1)


def _collapse(t: float, dt: float, steps: int, z: Tensor, trial: Sequence[Tensor]) -> SolverError:
    """The step size is below the resolution of t: because of NaN or infinity, or in spite of finite values."""
    for values in trial:
        if not all_finite(values.detach()):
            return NonFiniteState(t=t, dt=dt, steps=steps, z=z, state=values)
    return StepSizeUnderflow(t=t, dt=dt, steps=steps, z=z)
