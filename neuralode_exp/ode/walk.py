"""The walk takes a method step by step through a list of times.

It accepts and rejects steps, ends them at stops, records the observations and reports failures. Every way to
differentiate uses the same walk: `backprop` walks under autograd, `checkpoint` walks without autograd and keeps the
states, and `adjoint` walks the augmented system backwards in time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from neuralode_exp.ode.control import AdaptiveControl, Control, FixedControl, Norm
from neuralode_exp.ode.errors import NonFiniteState, all_finite
from neuralode_exp.ode.field import Finding, VectorField, time_like
from neuralode_exp.ode.methods import Adaptive, FixedStep
from neuralode_exp.ode.randomness import Generators, State
from neuralode_exp.ode.state import stack
from neuralode_exp.ode.stats import Stats
from neuralode_exp.ode.steppers import Dense, Field, Span, Stepper, Trial
from neuralode_exp.ode.times import Stops

# One matrix product interpolates the observations of 64 steps, if a state has at most 4,096 entries. For larger states
# the copies would cost more than the product saves.
STEPS_TOGETHER = 64
SMALL = 2**12


class Walkable(Field, Protocol):
    """A vector field that counts its evaluations and records the states of its random generators."""

    nfe: int
    generators: Generators


class Step(NamedTuple):
    """An accepted step from (t, z) to (t1, z1).

    Attributes:
        inside: (index, fraction x of the step) of each observation strictly inside the step.
        ends_at: index of the observation at t1, or None if there is none.
        dt_next: signed size that the controller proposes for the next step.
        drawn: states of the random generators before each evaluation of f in this step, starting with those of its
            carry; None if f draws nothing.
    """

    span: Span
    z: Tensor
    trial: Trial
    inside: tuple[tuple[int, float], ...]
    ends_at: int | None
    dt_next: float
    drawn: Sequence[State] | None = None


Noted = tuple[Span, tuple[tuple[int, float], ...], int | None, Sequence[State] | None]


def note(step: Step) -> Noted:
    """Return what backward needs of a step beside its state: span, inside, ends_at, drawn."""
    return step.span, step.inside, step.ends_at, step.drawn


class Walk:
    """One solve from z0 through all observation times.

    Args:
        f: the vector field.
        z0: state at times[0], shape (*state).
        times: observation times, strictly increasing or decreasing.
        method: method of the native engine.
        stats: counts the steps.
        norm: maps error / tolerance, shape (*state), to one number.
        stops: times at which f jumps. A step ends there, and no step evaluates f beyond the jump.
    """

    def __init__(
        self,
        f: Walkable,
        z0: Tensor,
        times: Sequence[float],
        method: FixedStep | Adaptive,
        stats: Stats,
        norm: Norm,
        stops: Stops,
    ) -> None:
        self.f, self.z0, self.times, self.method, self.stats, self.norm = f, z0, times, method, stats, norm
        self.stepper = method.stepper
        self.stops = stops
        self.errors: list[Tensor] | None = None  # |dt| times the error norm of each step, if asked for
        self._carry: Any = None

    @property
    def field(self) -> VectorField:
        """The user's vector field. The walk of an adjoint has none."""
        assert isinstance(self.f, VectorField)
        return self.f

    def by(self, stepper: Stepper) -> Walk:
        """Return the same walk with another stepper."""
        method = replace(self.method, stepper=stepper)
        return Walk(self.f, self.z0, self.times, method, self.stats, self.norm, self.stops)

    def find_dependencies(self, listed: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Evaluate f at the start and return the tensors that it depends on, see `VectorField`."""
        finding = Finding(self.field, listed)
        start = self.stops.beside(self.times[0], 1)
        z0 = self.z0.detach()
        self._carry = self.stepper.start(finding, start, self.stepper.begin(z0))
        if not finding.found:
            finding.stage(time_like(start, z0), z0)
        return self.field.depends_on

    def steps(self, *, f_last: Field | None = None, dt: float | None = None) -> Iterator[Step]:
        """Yield the accepted steps.

        Args:
            f_last: replaces f in a step that ends at the last time, for a caller that needs more of its stages. The
                first stage of an adaptive step may still come from f: it is the last stage of the step before.
            dt: signed size of the first step of an adaptive method; None: the control chooses it.

        Raises:
            SolverError: the solve cannot reach the last time, or its states are not finite.
        """
        if len(self.times) == 1:
            return
        stepper, stats, log = self.stepper, self.stats, self.f.generators
        control = self._control(dt)
        t, z, index, t_end = self.times[0], stepper.begin(self.z0), 1, self.times[-1]
        carry, self._carry = self._carry, None  # so that its graph is freed after the first step
        carry_drawn: Sequence[State] | None = log.since(0)
        first = True
        while index < len(self.times):
            at = self.stops.beside(t, 1) if self.stops else t
            if control.needs_slope:
                carry, carry_drawn = self._start(self.f, at, z, carry, carry_drawn)
                control.begin(self.f, stepper.show(z), stepper.slope(self.f, at, z, carry))
            shown = stepper.show(z)
            dt, t1 = control.ahead(t, shown, stats)
            span = Span(at, self.stops.beside(t1, -1) if self.stops else t1, dt)
            f = self.f if f_last is None or t1 != t_end else f_last
            if first and carry is not None and f is self.f:
                carry = stepper.forget(carry)
            if carry is None:
                carry, carry_drawn = self._start(f, at, z, carry, carry_drawn)
            drawn = log.mark()
            trial = stepper.trial(f, span, z, carry)
            ratio, accepted = control.judge(t, dt, shown, stepper.show(trial.z1), trial)
            stats.record(t, dt, ratio, accepted)
            if not accepted:
                continue
            if self.errors is not None:
                self.errors.append(self.error_term(span, stepper.error(trial, span)))
            if stats.opening is None:
                stats.opening = abs(control.size)
            inside, ends_at, index = self._observed(index, t, t1, dt)
            goes_on = index < len(self.times) and stepper.carries and t1 not in self.stops
            if inside or goes_on:
                trial = stepper.close(f, span, z, trial, dense=bool(inside))
            trial_drawn = log.since(drawn)
            together = None if trial_drawn is None else [*(carry_drawn or ()), *trial_drawn]
            yield Step(span, z, trial, inside, ends_at, control.size, together)
            t, z, carry, first = t1, trial.z1, trial.carry if goes_on else None, False
            carry_drawn = None if trial_drawn is None else trial_drawn[stepper.carried]
        if isinstance(control, FixedControl) and not all_finite(z.detach()):
            raise self._first_bad_step()

    def error_term(self, span: Span, error: Tensor | None) -> Tensor:
        """Return |dt| norm(error), with the error estimate of a step.

        Raises:
            ValueError: the stepper cannot differentiate its error estimate.
        """
        if error is None:
            raise ValueError(
                "`errors` need a stepper that differentiates its error estimate, got "
                f"{type(self.stepper).__name__} without `error`"
            )
        return self.norm(error) * (span.dt.abs() if isinstance(span.dt, Tensor) else abs(span.dt))

    def run(self) -> Tensor:
        """Walk to the end and return the states at the times, shape (len(times), *state). Autograd may be on."""
        together = STEPS_TOGETHER if self.z0.numel() <= SMALL and not torch.is_grad_enabled() else 1
        return self.observe(self.steps(), together)

    def observe(self, steps: Iterator[Step], together: int = 1) -> Tensor:
        """Return the states at the times, shape (len(times), *state).

        Args:
            steps: all steps of this walk.
            together: number of steps whose observations are interpolated at once. With 1 the states equal those of
                `backprop` bit for bit.
        """
        states = [self.z0] * len(self.times)
        waiting: list[Step] = []
        for step in steps:
            if step.ends_at is not None:
                states[step.ends_at] = self.stepper.show(step.trial.z1)
            if step.inside:
                waiting.append(step)
                if len(waiting) == together:
                    self._interpolate(waiting, states)
        self._interpolate(waiting, states)
        return stack(states)

    def _interpolate(self, steps: list[Step], states: list[Tensor]) -> None:
        """Fill in the observations inside these steps, and clear the list so that the steps can be freed."""
        if steps:
            dense = [Dense(step.trial, step.span, step.z, [x for _, x in step.inside]) for step in steps]
            found = self.stepper.interpolate(*dense[0]) if len(dense) == 1 else self.stepper.interpolate_all(dense)
            for i, z in zip([i for step in steps for i, _ in step.inside], found, strict=True):
                states[i] = z
            steps.clear()

    def _control(self, dt: float | None) -> Control:
        def marks(*times: float) -> list[float]:
            return sorted({*times, *self.stops.between}, key=lambda t: self.stops.sign * t)

        if isinstance(self.method, FixedStep):
            return FixedControl(self.method, marks(*self.times), self.z0, self.stats)
        onto = (t for t in self.times[1:-1] if not self.stepper.interpolates or t in self.stops)
        ends = marks(self.times[0], *onto, self.times[-1])
        first_stop = next((t for t in ends[1:] if t in self.stops), None)
        return AdaptiveControl(self.method, ends, self.norm, self.stepper.order, dt, first_stop)

    def _start(
        self, f: Field, t: float, z: Tensor, carry: Any, drawn: Sequence[State] | None
    ) -> tuple[Any, Sequence[State] | None]:
        """Return the carry of a step, evaluated if there is none yet, and the generators' states before it."""
        if carry is not None:
            return carry, drawn
        before = self.f.generators.mark()
        return self.stepper.start(f, t, z), self.f.generators.since(before)

    def _observed(
        self, index: int, t: float, t1: float, dt: float
    ) -> tuple[tuple[tuple[int, float], ...], int | None, int]:
        """Return the observations inside a step, the one at its end or None, and the index of the next one."""
        times, inside = self.times, []
        while index < len(times) and abs(times[index] - t) < abs(t1 - t):
            inside.append((index, (times[index] - t) / dt))
            index += 1
        if index < len(times) and times[index] == t1:
            return tuple(inside), index, index + 1
        return tuple(inside), None, index

    @torch.no_grad()
    def _first_bad_step(self) -> NonFiniteState:
        """Repeat a fixed-step solve whose last state is not finite, to find the first step that went wrong.

        The evaluations of this search are not counted.
        """
        nfe = self.f.nfe
        try:
            return self._searched()
        finally:
            self.f.nfe = nfe

    def _searched(self) -> NonFiniteState:
        stats = Stats()
        again = Walk(self.f, self.z0.detach(), self.times, self.method, stats, self.norm, self.stops)
        t, z = self.times[0], again.z0
        for step in again.steps():
            z1 = self.stepper.show(step.trial.z1)
            if not all_finite(z1):
                return NonFiniteState(t=t, dt=step.dt_next, steps=stats.trials, z=z, state=z1)
            t, z = t + step.dt_next, z1
        return NonFiniteState(t=t, dt=0.0, steps=stats.trials, z=z)
