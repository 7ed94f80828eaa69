"""A step that can be undone: any stepper made algebraically reversible (McCallum & Foster, arXiv 2410.11648).

The state is a pair (y, z), both z0 at the start. With Psi_h(t, x) the base method's increment over a step of size h,

    y1 = l y + (1 - l) z + Psi_h(t, z),        z = z1 + Psi_{-h}(t1, y1),
    z1 = z - Psi_{-h}(t1, y1),                 y = z + (y1 - z - Psi_h(t, z)) / l,

so that (y, z) follows from (y1, z1) explicitly. It is a numerical method of its own, with the order of the base method
and a smaller region of stability (docs/reversible-stability.png, drawn by scripts/stability.py). The coupling l in (0,
1] draws y and z together. Where f contracts at rate r, a step multiplies the difference of y and z by about l exp(r h),
because the determinant of a step is l and the solution shrinks by exp(-r h). So in steps longer than -log(l) / r, which
is about (1 - l) / r, the difference grows, starting from the size of the method's error. Undoing a step enlarges the
round-off in y - z by 1 / l, and all round-off by as much as the step contracted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from neuralode_exp.ode.field import Linearised, Terms, Time, VectorField
from neuralode_exp.ode.randomness import State
from neuralode_exp.ode.steppers.stepper import Cotangents, Dense, Field, Span, Stepper, Trial


@dataclass(frozen=True)
class Reversed:
    """An undone step: the pair before it, its cotangent, and the cotangents of what f depends on."""

    before: Tensor
    adj_before: Tensor
    terms: Sequence[Terms]


class Pair(NamedTuple):
    """Data of a step: the base's step from z, and dz/dt at (t, z) and (t1, y1) if the base knows them."""

    ahead: Trial
    slope_z: Tensor | None
    slope_y1: Tensor | None


@dataclass
class ReversibleStepper(Stepper):
    """Steps of a base method on a pair of states (y, z), shape (2, *z0.shape); the user's state is y.

    Args:
        base: any stepper. The error estimate is that of its step from z.
        coupling: l.

    Attributes:
        last: the pair after the latest step.
    """

    base: Stepper
    coupling: float = 0.999
    last: Tensor | None = None

    def __post_init__(self) -> None:
        if not 0.0 < self.coupling <= 1.0:
            raise ValueError(f"`coupling` must be in (0, 1], got {self.coupling}")
        self.order, self.interpolates, self.unseen = self.base.order, self.base.interpolates, self.base.unseen

    def begin(self, z0: Tensor) -> Tensor:
        return torch.stack([z0, z0])

    def show(self, z: Tensor) -> Tensor:
        return z[0]

    def start(self, f: Field, t: Time, z: Tensor) -> Any:
        return self.base.start(f, t, z[1])

    def slope(self, f: Field, t: Time, z: Tensor, carry: Any) -> Tensor:
        return self.base.slope(f, t, z[1], carry)

    def trial(self, f: Field, span: Span, z: Tensor, carry: Any) -> Trial:
        y, z = z.unbind()
        ahead = self.base.trial(f, span, z, carry)
        y1 = self.coupling * (y - z) + ahead.z1
        back, plain = span.backwards(), self.base.without_estimate()
        carry_back = plain.start(f, back.t, y1)
        z1 = z + y1 - plain.trial(f, back, y1, carry_back).z1
        slopes = self.base.known_slope(carry), plain.known_slope(carry_back)
        self.last = torch.stack([y1, z1])
        return Trial(self.last, ahead.error, None, Pair(ahead, *slopes))

    def close(self, f: Field, span: Span, z: Tensor, trial: Trial, *, dense: bool) -> Trial:
        if not dense:
            return trial
        ahead = self.base.close(f, span, z[1], trial.data.ahead, dense=True)
        return trial._replace(data=trial.data._replace(ahead=ahead))

    def interpolate(self, trial: Trial, span: Span, z: Tensor, fractions: Sequence[float]) -> list[Tensor]:
        return self.base.interpolate(trial.data.ahead, span, z[1], fractions)

    def interpolate_all(self, steps: Sequence[Dense]) -> list[Tensor]:
        return self.base.interpolate_all([Dense(trial.data.ahead, span, z[1], x) for trial, span, z, x in steps])

    def take_back(
        self,
        f: VectorField,
        span: Span,
        after: Tensor,
        adj_after: Tensor,
        inside: Sequence[tuple[float, Tensor]],
        drawn: Sequence[State] | None,
        before: Tensor | None = None,
    ) -> Reversed:
        """Undo a step and pull its cotangents back, with each stage evaluated once.

        With A(z) = z + Psi_h(t, z) and B(y1) = y1 + Psi_{-h}(t1, y1), the step is y1 = l (y - z) + A(z) and
        z1 = z + y1 - B(y1).

        Args:
            after, adj_after: (y1, z1) and its cotangent.
            inside: observations inside the step with their cotangents.
            drawn: states of the random generators before the evaluations of the step, in the order of the step.
            before: (y, z) if it is known; None: it is computed from `after`.
        """
        (y1, z1), (adj_y1, adj_z1) = after.unbind(), adj_after.unbind()
        base = self.base if inside else self.base.without_estimate()
        of_b, of_a = self._draws(drawn, bool(inside))
        b, adj_b, terms_b = _linearised(self.base.without_estimate(), f, span.backwards(), y1, -adj_z1, (), of_b)
        z = z1 - y1 + b if before is None else before[1]
        adj_y1 = adj_y1 + adj_z1 + adj_b
        a, adj_a, terms_a = _linearised(base, f, span, z, adj_y1, inside, of_a)
        if before is None:
            before = torch.stack([z + (y1 - a) / self.coupling, z])
        adj_y = self.coupling * adj_y1
        return Reversed(before, torch.stack([adj_y, adj_z1 - adj_y + adj_a]), (terms_b, terms_a))

    def _draws(
        self, drawn: Sequence[State] | None, dense: bool
    ) -> tuple[Sequence[State] | None, Sequence[State] | None]:
        """Return the states for B's evaluations and for A's; A's come before B's, and for the interpolant after."""
        if drawn is None:
            return None, None
        ahead, back = self.base.evaluations, self.base.without_estimate().evaluations
        return drawn[ahead : ahead + back], [*drawn[:ahead], *(drawn[ahead + back :] if dense else ())]


def _linearised(
    base: Stepper,
    f: VectorField,
    span: Span,
    z: Tensor,
    adj_z1: Tensor,
    inside: Sequence[tuple[float, Tensor]],
    drawn: Sequence[State] | None,
) -> tuple[Tensor, Tensor, Terms]:
    """Take the base's step from z; return its end, the cotangent of z and those of what f depends on."""
    stages = Linearised(f)
    with f.generators.replay(drawn):
        trial = base.trial(stages, span, z, base.start(stages, span.t, z))
        if inside:
            trial = base.close(stages, span, z, trial, dense=True)
        kept = base.keep(trial, dense=bool(inside))
        adj_z, terms = base.pull_back(f, span, z, Cotangents(adj_z1, inside), kept)
    return trial.z1, adj_z, terms
