"""What a step is: the interface between a numerical method and the walk, and between it and the gradients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from neuralode_exp.ode.field import Stage, Terms, Time, VectorField, time_like
from neuralode_exp.ode.tableau import Row


class Field(Protocol):
    """What a step asks of the vector field: its value, or an evaluation that may carry more than that."""

    def __call__(self, t: Tensor, z: Tensor) -> Tensor: ...

    def stage(self, t: Tensor, z: Tensor) -> Stage: ...


class Span(NamedTuple):
    """A step from t to t1 of signed size dt. Beside a stop, t or t1 is the next number on the step's side of it."""

    t: Time
    t1: Time
    dt: Time

    def backwards(self) -> Span:
        """The step back."""
        return Span(self.t1, self.t, -self.dt)


class Trial(NamedTuple):
    """What a step gives back, accepted or not.

    Attributes:
        z1: the state at its end.
        error: estimate of z1's error, or None for a method that has none: it takes fixed steps.
        carry: what the next step takes over, or None: then that one starts with `Stepper.start`.
        data: what `close` and `interpolate` need, the stepper's own.
        ratio: norm of the error over its tolerance, if it is known already.
    """

    z1: Tensor
    error: Tensor | None = None
    carry: Any = None
    data: Any = None
    ratio: Tensor | None = None


class Dense(NamedTuple):
    """A step that is asked for states inside it, at these fractions of it."""

    trial: Trial
    span: Span
    z: Tensor
    fractions: Sequence[float]


@dataclass(frozen=True)
class Cotangents:
    """dL/d of what a step gives.

    Attributes:
        z1: of the state at its end.
        inside: of the states interpolated inside it, each with its fraction x of the step.
        of_error: what L has of the error estimate, a number made from it; None: nothing.
        end: the state at its end, to be compared with the one that comes out again; None if it is not known.
    """

    z1: Tensor
    inside: Sequence[tuple[float, Tensor]] = ()
    of_error: Callable[[Tensor], Tensor] | None = None
    end: Tensor | None = None


class Stepper(ABC):
    """One step of a method, without its step sizes.

    A new method is a subclass with `order` and `trial`; its gradients are exact from its first day, as `pull_back`
    repeats the step under autograd. A step reads nothing back to the host, so that it can be compiled.

    Attributes:
        order: order of z1, the exponent of the error test.
        carries: whether `close` gives the next step something to start from.
        interpolates: whether it has `interpolate`; if not, observations are stepped onto.
        quadrature: weights of the stages if z1 = z + dt sum_i weights_i k_i in the order of evaluation, else None.
        unseen: whether what it interpolates may be NaN where its steps are finite.
        evaluations: of f in `start` and `trial` together; 0: it may vary.
        carried: which of the evaluations since `trial` began, `close` included, is the one that `carry` stands for.
    """

    order: int
    carries: bool = False
    interpolates: bool = False
    quadrature: Row | None = None
    carried: slice = slice(0, 0)
    evaluations: int = 0
    unseen: bool = False

    def begin(self, z0: Tensor) -> Tensor:
        """The stepper's own state at the start."""
        return z0

    def show(self, z: Tensor) -> Tensor:
        """The user's state in the stepper's own."""
        return z

    def without_estimate(self) -> Stepper:
        """The same step without an error estimate, where that saves something."""
        return self

    def start(self, f: Field, t: Time, z: Tensor) -> Any:
        """Evaluate what a step takes over from the step before it, where there is none."""
        return None

    def known_slope(self, carry: Any) -> Tensor | None:
        """dz/dt at the start of a step, if the carry holds it."""
        return None

    def slope(self, f: Field, t: Time, z: Tensor, carry: Any) -> Tensor:
        """dz/dt at the start of a step, for the choice of the first step size."""
        known = self.known_slope(carry)
        return f(time_like(t, z), z) if known is None else known

    @abstractmethod
    def trial(self, f: Field, span: Span, z: Tensor, carry: Any) -> Trial:
        """Step over `span` from z."""

    def error(self, trial: Trial, span: Span) -> Tensor | None:
        """The error estimate of a step with its gradients; None: they are not known."""
        return None

    def close(self, f: Field, span: Span, z: Tensor, trial: Trial, *, dense: bool) -> Trial:
        """Complete an accepted step by what the next one takes over, and with `dense` by what `interpolate` needs."""
        return trial

    def interpolate(self, trial: Trial, span: Span, z: Tensor, fractions: Sequence[float]) -> list[Tensor]:
        """The states at these fractions of a step, which is closed with `dense`."""
        raise NotImplementedError("a stepper without interpolation steps onto observations")

    def interpolate_all(self, steps: Sequence[Dense]) -> list[Tensor]:
        """`interpolate` for several steps at once, where no graph is built."""
        return [z for step in steps for z in self.interpolate(*step)]

    def keep(self, trial: Trial, *, dense: bool) -> Any:
        """What `pull_back` may use instead of evaluating again, for a step taken with linearised stages."""
        return None

    def forget(self, carry: Any) -> Any:
        """The carry without a graph, for a step that will be evaluated again."""
        return carry

    def pull_back(
        self, f: VectorField, span: Span, z: Tensor, cotangents: Cotangents, kept: Any = None
    ) -> tuple[Tensor, Terms]:
        """Cotangents of z and of what f depends on, given those of what the step gives.

        The carry is evaluated anew from (t, z). `kept` comes from `keep`, and is used up.
        """
        with torch.enable_grad():
            x = z.detach().requires_grad_()
            start = x.view_as(x)
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
        for root in roots:
            f.dependencies.check(root, start.grad_fn, span.t)
        adj_z, *terms = f.dependencies.gradients(roots, x, adj)
        assert adj_z is not None
        return adj_z, tuple(terms)
