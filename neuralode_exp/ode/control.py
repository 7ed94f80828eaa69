"""Step size control. The walk asks a control for each step, and the control judges the result.

After an adaptive step of size dt with error ratio r the next step has the size

    dt min(10, max(1/5, 9/10 r^(-1/order))),

but after an accepted step it is never smaller than dt. The rule and its constants are those of torchdiffeq. Times are
kept on the host in float64. The error ratio of a trial step is the only number that is copied from the device.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor

from neuralode_exp.ode.errors import MaxStepsExceeded, NonFiniteState, SolverError, StepSizeUnderflow, all_finite
from neuralode_exp.ode.field import time_like
from neuralode_exp.ode.methods import Adaptive, FixedStep, slack
from neuralode_exp.ode.stats import Stats
from neuralode_exp.ode.steppers import Field, Trial

Norm = Callable[[Tensor], Tensor]

SAFETY, LARGEST, SMALLEST = 0.9, 10.0, 0.2  # constants of the controller


class Control(ABC):
    """Choose the size of each step and judge its result.

    Attributes:
        needs_slope: whether `begin` must be called before `ahead`.
        size: signed size that is proposed for the next step.
    """

    needs_slope = False
    size: float

    def begin(self, f: Field, z: Tensor, slope: Tensor) -> None:  # noqa: B027 - fixed steps need no slope
        """Choose the size of the first step from the slope f(t0, z)."""

    @abstractmethod
    def ahead(self, t: float, z: Tensor, stats: Stats) -> tuple[float, float]:
        """Return the signed size and the end time of the next step.

        Raises:
            SolverError: the steps are used up, or the step size is too small.
        """

    @abstractmethod
    def judge(self, t: float, dt: float, z: Tensor, z1: Tensor, trial: Trial) -> tuple[float, bool]:
        """Return the error ratio of a trial step from z to z1, and whether the step is accepted."""


class FixedControl(Control):
    """Equal steps between marks, which are the observation times and the stops. Every step is accepted.

    Raises:
        MaxStepsExceeded: raised before the first step, because the number of steps is known.
    """

    def __init__(self, method: FixedStep, marks: Sequence[float], z: Tensor, stats: Stats) -> None:
        self.marks = marks
        self.counts = [method.steps_between(t, t_next) for t, t_next in zip(marks, marks[1:], strict=False)]
        self.interval, self.step = 0, 0
        wanted = stats.trials + sum(self.counts)
        if wanted > method.max_steps:
            where = f" ({wanted} steps > max_steps={method.max_steps})"
            raise MaxStepsExceeded(t=marks[0], dt=method.step_size, steps=stats.trials, z=z, where=where)

    def ahead(self, t: float, z: Tensor, stats: Stats) -> tuple[float, float]:
        t0, t1 = self.marks[self.interval : self.interval + 2]
        n = self.counts[self.interval]
        self.size = (t1 - t0) / n
        return self.size, t1 if self.step == n - 1 else t0 + (self.step + 1) * self.size

    def judge(self, t: float, dt: float, z: Tensor, z1: Tensor, trial: Trial) -> tuple[float, bool]:
        self.step += 1
        if self.step == self.counts[self.interval]:
            self.interval, self.step = self.interval + 1, 0
        return 0.0, True


class AdaptiveControl(Control):
    """Steps under error control. A step ends at the next mark if it would pass it.

    Args:
        method: tolerances and limits.
        marks: the first time, then the times where a step must end: stops, observations without interpolation, and
            the last time.
        norm: maps error / tolerance to one number.
        order: order of the error estimate in dt.
        dt: signed size of the first step; None: `method.first_step`, or a choice by `begin` if that is None too.
        first_stop: the first stop after the start. The choice of the first step does not evaluate f beyond it.
    """

    def __init__(
        self,
        method: Adaptive,
        marks: Sequence[float],
        norm: Norm,
        order: int,
        dt: float | None,
        first_stop: float | None,
    ) -> None:
        self.method, self.marks, self.norm, self.order = method, marks, norm, order
        self.mark = 1
        # f must not be evaluated at a stop.
        self.probe_end = marks[-1] if first_stop is None else 0.5 * (marks[0] + first_stop)
        self.interval = abs(marks[-1] - marks[0])
        if dt is None and method.first_step is not None:
            dt = math.copysign(max(method.first_step, method.min_step), marks[-1] - marks[0])
        self.needs_slope = dt is None
        self.size = 0.0 if dt is None else dt
        self.ratio = 0.0
        self.rejected: tuple[Tensor, ...] = ()  # state and error estimate of the last trial, if rejected
        self.absolute: tuple[Tensor | None, Tensor | None] = (None, None)  # z and |z|, kept from the last trial

    def begin(self, f: Field, z: Tensor, slope: Tensor) -> None:
        size = first_step(f, self.marks[0], self.probe_end, z, slope, self.method, self.norm, self.order)
        self.size = math.copysign(max(size, self.method.min_step), self.marks[-1] - self.marks[0])
        self.needs_slope = False

    def ahead(self, t: float, z: Tensor, stats: Stats) -> tuple[float, float]:
        method = self.method
        if stats.trials >= method.max_steps:
            raise MaxStepsExceeded(t=t, dt=self.size, steps=stats.trials, z=z)
        floor = 4e-16 * max(abs(t), abs(t + self.size), 1e-14 * self.interval)
        if abs(self.size) <= floor or (abs(self.size) <= method.min_step and not math.isfinite(self.ratio)):
            raise self._collapse(t, z, stats)
        if method.max_step is not None and abs(self.size) > method.max_step:
            self.size = math.copysign(method.max_step, self.size)
        end = self.marks[self.mark]
        longest = abs(self.size) + slack(t, end, self.size)
        return (end - t, end) if abs(end - t) <= longest else (self.size, t + self.size)

    def judge(self, t: float, dt: float, z: Tensor, z1: Tensor, trial: Trial) -> tuple[float, bool]:
        error = trial.error
        if error is None:
            raise ValueError(
                "an adaptive method must have a stepper with an error estimate, got one without; use FixedStep"
            )
        with torch.no_grad() if torch.is_grad_enabled() else nullcontext():
            ratio = self._error_ratio(z, z1, error) if trial.ratio is None else float(trial.ratio)
        accepted = ratio <= 1.0 or (abs(dt) <= self.method.min_step and math.isfinite(ratio))
        proposal = dt * growth(ratio, self.order)
        proposal = math.copysign(max(abs(proposal), self.method.min_step), dt)
        at_mark = dt == self.marks[self.mark] - t
        # A step that was shortened to end at a mark does not show how large a step could be.
        if not (at_mark and accepted and abs(self.size) > abs(proposal)):
            self.size = proposal
        self.mark += at_mark and accepted
        self.ratio, self.rejected = ratio, () if accepted else (z1, error)
        return ratio, accepted

    def _error_ratio(self, z: Tensor, z1: Tensor, error: Tensor) -> float:
        """Return norm(error / (atol + rtol max(|z|, |z1|))) on the host."""
        method = self.method
        known, abs_z = self.absolute
        if known is not z or abs_z is None:
            abs_z = z.abs()
        abs_z1 = z1.abs()
        only = method.absolute_tolerance == 0.0
        ratio = float(self.norm(error_ratio(abs_z, abs_z1, error, method.rtol, method.absolute_tolerance, only)))
        self.absolute = (z1, abs_z1) if ratio <= 1.0 else (z, abs_z)
        return ratio

    def _collapse(self, t: float, z: Tensor, stats: Stats) -> SolverError:
        """Return the error for a step size below the resolution of t, by whether the rejected values are finite."""
        for values in self.rejected:
            if not all_finite(values.detach()):
                return NonFiniteState(t=t, dt=self.size, steps=stats.trials, z=z, state=values)
        return StepSizeUnderflow(t=t, dt=self.size, steps=stats.trials, z=z)


def error_ratio(
    abs_z: Tensor, abs_z1: Tensor, error: Tensor, rtol: float | Tensor, atol: float | Tensor, relative_only: bool
) -> Tensor:
    """Return error / (atol + rtol max(|z|, |z1|)) for each entry; `relative_only` says that atol is 0."""
    scaled = error / torch.maximum(abs_z, abs_z1).mul_(rtol).add_(atol)
    # A component that stays exactly 0 would give 0 / 0.
    return torch.where(error == 0, error, scaled) if relative_only else scaled


def growth(ratio: float, order: int) -> float:
    """Return the next step size divided by this one, see the module's docstring."""
    if not math.isfinite(ratio):
        return SMALLEST
    if ratio == 0.0:
        return LARGEST
    wanted = SAFETY * ratio ** (-1.0 / order)
    return min(LARGEST, max(wanted, 1.0 if ratio < 1.0 else SMALLEST))


@torch.no_grad()
def first_step(
    f: Field, t: float, t_end: float, z: Tensor, f0: Tensor, method: Adaptive, norm: Norm, order: int
) -> float:
    """Return the unsigned size of the first step (Hairer, Nørsett & Wanner I, Sec. II.4).

    With f0 = f(t, z) given, it evaluates f once more, within [t, t_end]. It differs from the book in two points. The
    order of the error is taken as order - 1, as in torchdiffeq. The book probes with a step of 1e-6 in any units if z
    or f0 is small; here a z below its tolerance counts as large as the tolerance, and if f0 is 0, the probe is at
    t_end. Norms that overflow in the precision of z are computed in float64.

    Raises:
        NonFiniteState: z or f0 is not finite.
    """
    interval = abs(t_end - t)
    scale = z.abs().mul_(method.rtol).add_(method.absolute_tolerance)
    if method.absolute_tolerance == 0.0:
        scale = torch.where(scale == 0, torch.inf, scale)
    d0, d1 = torch.stack([norm(z / scale), norm(f0 / scale)]).tolist()
    if not (math.isfinite(d0) and math.isfinite(d1)):
        if not (all_finite(z) and all_finite(f0)):
            bad = z if not all_finite(z) else f0
            raise NonFiniteState(t=t, dt=0.0, steps=0, z=z, state=bad, where=" (the initial state or f there)")
        d0, d1 = _norm_in_float64(z, scale, norm), _norm_in_float64(f0, scale, norm)
    size = d0 if d0 >= 1e-5 else 1.0
    h0 = min(interval, 0.01 * size / d1) if d1 > 0.0 else interval
    if not 0.0 < h0 <= interval:
        h0 = 1e-6 * interval  # the ratio overflowed or underflowed
    signed = math.copysign(h0, t_end - t)
    t_probe = t_end if h0 == interval else t + signed  # t + (t_end - t) may lie beyond t_end by rounding
    f1 = f(time_like(t_probe, z), torch.add(z, f0, alpha=signed))
    d2 = float(norm((f1 - f0) / scale))
    d2 = (d2 if math.isfinite(d2) else _norm_in_float64(f1 - f0, scale, norm)) / h0
    if not (math.isfinite(d1) and math.isfinite(d2)):
        return h0  # the probe overflowed: start small, the controller will grow the step
    steepest = max(d1, d2)
    h1 = (0.01 / steepest) ** (1.0 / order) if steepest > 1e-15 else interval
    return min(100.0 * h0, h1)


def _norm_in_float64(x: Tensor, scale: Tensor, norm: Norm) -> float:
    """Return norm(x / scale), computed on the host, because some devices have no float64."""
    return float(norm(x.cpu().double() / scale.cpu().double()))
