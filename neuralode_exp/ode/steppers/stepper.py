"""A step: the interface of a numerical method to the walk and to the gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from neuralode_exp.ode.field import Stage, Terms, Time, VectorField, begin_graph, time_like
from neuralode_exp.ode.tableau import Row


class Field(Protocol):
    """The vector field as a step calls it: for its value, or for a stage that may hold more than the value."""

    def __call__(self, t: Tensor, z: Tensor) -> Tensor: ...

    def stage(self, t: Tensor, z: Tensor) -> Stage: ...


class Span(NamedTuple):
    """A step from t to t1 of signed size dt. At a stop, t or t1 is the next number on the step's side of the stop."""

    t: Time
    t1: Time
    dt: Time

    def backwards(self) -> Span:
        """Return the step from t1 back to t."""
        return Span(self.t1, self.t, -self.dt)


class Trial(NamedTuple):
    """The result of a step, accepted or not.

    Attributes:
        z1: the state at the end of the step.
        error: estimate of z1's error; None for a method without an estimate, which takes fixed steps.
        carry: passed to the next step; None: the next step calls `Stepper.start`.
        data: the stepper's own data for `close` and `interpolate`.
        ratio: norm of the error over its tolerance, if it is known already.
    """

    z1: Tensor
    error: Tensor | None = None
    carry: Any = None
    data: Any = None
    ratio: Tensor | None = None


class Dense(NamedTuple):
    """A step with observations inside it, at these fractions of the step."""

    trial: Trial
    span: Span
    z: Tensor
    fractions: Sequence[float]


@dataclass(frozen=True)
class Cotangents:
    """Cotangents of the results of a step, for a loss L.

    Attributes:
        z1: cotangent of the state at the end of the step.
        inside: cotangents of the states interpolated inside it, each with its fraction x of the step.
        of_error: maps the error estimate to the part of L that depends on it; None: no part does.
        end: the state at the end of the step, with which the repeated one is compared; None if it is not known.
        slope: dz/dt at the end of the step, likewise.
    """

    z1: Tensor
    inside: Sequence[tuple[float, Tensor]] = ()
    of_error: Callable[[Tensor], Tensor] | None = None
    end: Tensor | None = None
    slope: Tensor | None = None


class Stepper(ABC):
    """One step of a method; its size is chosen elsewhere.

    A new method is a subclass with `order` and `trial`. Its gradients are exact without further code, because
    `pull_back` repeats the step under autograd. A step copies nothing to the host, so that it can be compiled.

    Attributes:
        order: order of z1, the exponent of the step size control.
        carries: whether `close` sets the `carry` for the next step.
        interpolates: whether it has `interpolate`; if not, a step ends at every observation.
        quadrature: weights of the stages in the order of evaluation, if z1 = z + dt sum_i weights_i k_i; else None.
        unseen: whether `interpolate` uses evaluations that neither the error test nor z1 depends on, so that it may
            give NaN in a step that is accepted.
        evaluations: number of evaluations of f in `start` and `trial` together; 0: it may vary.
        carried: position of the evaluation that `carry` holds, among those of `trial` and `close`.
    """

    order: int
    carries: bool = False
    interpolates: bool = False
    quadrature: Row | None = None
    carried: slice = slice(0, 0)
    evaluations: int = 0
    unseen: bool = False

    def begin(self, z0: Tensor) -> Tensor:
        """Return the stepper's own state for the user's state z0."""
        return z0

    def show(self, z: Tensor) -> Tensor:
        """Return the user's state from the stepper's own."""
        return z

    def without_estimate(self) -> Stepper:
        """Return the same step without an error estimate, if that saves work."""
        return self

    def start(self, f: Field, t: Time, z: Tensor) -> Any:
        """Evaluate the carry of a step that has no step before it."""
        return None

    def known_slope(self, carry: Any) -> Tensor | None:
        """Return dz/dt at the start of a step, if the carry holds it."""
        return None

    def slope(self, f: Field, t: Time, z: Tensor, carry: Any) -> Tensor:
        """Return dz/dt at the start of a step, for the choice of the first step size."""
        known = self.known_slope(carry)
        return f(time_like(t, z), z) if known is None else known

    @abstractmethod
    def trial(self, f: Field, span: Span, z: Tensor, carry: Any) -> Trial:
        """Take the step `span` from z."""

    def error(self, trial: Trial, span: Span) -> Tensor | None:
        """Return the error estimate of a step with gradients; None if the method has none with gradients."""
        return None

    def close(self, f: Field, span: Span, z: Tensor, trial: Trial, *, dense: bool) -> Trial:
        """Add to an accepted step the carry for the next one, and with `dense` what `interpolate` needs."""
        return trial

    def interpolate(self, trial: Trial, span: Span, z: Tensor, fractions: Sequence[float]) -> list[Tensor]:
        """Return the states at these fractions of a step that was closed with `dense`."""
        raise NotImplementedError("a stepper without interpolation steps onto observations")

    def interpolate_all(self, steps: Sequence[Dense]) -> list[Tensor]:
        """Interpolate in several steps at once, if no graph is built."""
        return [z for step in steps for z in self.interpolate(*step)]

    def keep(self, trial: Trial, *, dense: bool) -> Any:
        """Return what `pull_back` can use instead of evaluating again, for a step taken with linearised stages."""
        return None

    def forget(self, carry: Any) -> Any:
        """Return the carry without a graph, for a step that will be evaluated again."""
        return carry

    def pull_back(
        self, f: VectorField, span: Span, z: Tensor, cotangents: Cotangents, kept: Any = None
    ) -> tuple[Tensor, Terms]:
        """Return the cotangents of z and of what f depends on, given those of the step's results.

        The carry is evaluated again at (t, z). `kept` comes from `keep`, and is used up.
        """
        with torch.enable_grad():
            x, start = begin_graph(z)
            trial = self.trial(f, span, start, self.start(f, span.t, start))
            outputs, adj = [trial.z1], [cotangents.z1]
            if cotangents.inside:
                fractions, adj_inside = zip(*cotangents.inside, strict=True)
                trial = self.close(f, span, start, trial, dense=True)
                outputs += self.interpolate(trial, span, start, fractions)
                adj += adj_inside
            if cotangents.of_error is not None:
                error = self.error(trial, span)
                assert error is not None
                outputs.append(cotangents.of_error(error))
                adj.append(torch.ones_like(outputs[-1]))
            roots = [get_gradient_edge(z1) for z1 in outputs]
        f.repeats.compare(trial.z1, cotangents.end)
        slope = None if trial.carry is None or cotangents.slope is None else self.known_slope(trial.carry)
        if slope is not None:
            f.repeats.compare(slope, cotangents.slope)
        for root in roots:
            f.dependencies.check(root, start.grad_fn, span.t)
        adj_z, *terms = f.dependencies.gradients(roots, x, adj)
        assert adj_z is not None
        return adj_z, tuple(terms)
