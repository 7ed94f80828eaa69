"""gradient="reversible": the exact gradient of the steps taken, with one state kept.

The solve takes the steps of `ReversibleStepper` and keeps the last pair of states. Backward undoes the steps one after
the other and pulls the cotangents back through each, with the stages of one step in memory.

Undoing a contraction enlarges round-off by the same factor. The solve estimates this enlargement from its slopes, and
keeps an intermediate state when too few digits would be left since the last kept one. So memory grows with the number
of digits that the solve contracts, and not with the number of steps. Backward compares at each kept state. If the
estimate was too small, the steps after that state are taken again from it, and the cotangents are pulled back through
those.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from neuralode_exp.ode.errors import StatesApart
from neuralode_exp.ode.field import accumulate
from neuralode_exp.ode.gradients.gradient import Repeating, no_terms
from neuralode_exp.ode.methods import Adaptive
from neuralode_exp.ode.state import same_format
from neuralode_exp.ode.steppers.reversible import ReversibleStepper
from neuralode_exp.ode.walk import Noted, Step, Walk, note


class Reversible(Repeating):
    """Keeps the last pair of states, and a few intermediate ones.

    Args:
        coupling: coupling of y and z, see `ReversibleStepper`.
        stored_states: number of intermediate states, evenly spread in time; None: as many as the contraction needs.
    """

    def __init__(self, coupling: float = 0.999, stored_states: int | None = None) -> None:
        if stored_states is not None and stored_states < 0:
            raise ValueError(f"`stored_states` must be >= 0 or None, got {stored_states}")
        self.coupling, self.stored_states = coupling, stored_states

    def observations(self, walk: Walk, listed: Sequence[Tensor]) -> Tensor:
        stepper = ReversibleStepper(walk.method.stepper, self.coupling)
        walk, z0 = walk.by(stepper), walk.z0.detach()
        z = super().observations(walk, listed)
        if isinstance(walk.method, Adaptive) and stepper.last is not None:
            pair, stepper.last = stepper.last.detach(), None
            _refuse_apart(walk, walk.method, z0, pair)
        return z

    def check(self, walk: Walk) -> None:
        base = _reversible(walk).base
        if walk.f.generators.draws and not base.evaluations:
            raise ValueError(
                "gradient='reversible' must know how often a stepper evaluates an f that draws random numbers, got "
                f"{type(base).__name__}, which does not say; use gradient='checkpoint'"
            )

    def solve(self, walk: Walk) -> tuple[Tensor, Sequence[Tensor], _Notes]:
        number = self.stored_states
        keep = _ByContraction(self.coupling) if number is None else _Evenly(walk.times, number)
        notes, pairs = _Notes([], [0]), [walk.z0]

        def noted() -> Iterator[Step]:
            last = walk.z0
            for step in walk.steps():
                if keep(step):
                    pairs.append(step.z)
                    notes.starts.append(len(notes.steps))
                notes.steps.append(note(step))
                last = step.trial.z1
                yield step
            pairs.append(last)

        z = walk.observe(noted())
        walk.stats.stored_states = len(pairs) - 2
        return z, pairs, notes

    def pull_back(
        self, walk: Walk, kept: Sequence[Tensor], notes: _Notes, adj_output: Tensor, adj_errors: object
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        z0, *pairs, after = kept
        stepper, terms = _reversible(walk), no_terms(walk)
        adj = torch.zeros_like(after)
        backwards = _Backwards(walk, stepper, adj_output)
        ends = [*notes.starts[1:], len(notes.steps)]
        parts = zip(reversed([stepper.begin(z0), *pairs]), reversed(notes.starts), reversed(ends), strict=True)
        for pair, start, end in parts:
            adj, terms_of_part = backwards.part(notes.steps[start:end], pair, after, adj)
            accumulate(terms, terms_of_part)
            after = pair
        return adj[0] + adj[1] + same_format(adj_output[0], z0), terms


@dataclass
class _Notes:
    """The steps, and the number of steps before each kept pair."""

    steps: list[Noted]
    starts: list[int]


def _refuse_apart(walk: Walk, method: Adaptive, z0: Tensor, pair: Tensor) -> None:
    """Refuse a solve whose two states are further apart at its end than APART tolerances, which no error test sees."""
    y = pair[0]
    tolerance = method.absolute_tolerance + method.rtol * torch.maximum(y.abs(), z0.abs())
    if bool(walk.norm((y - pair[1]) / tolerance) > APART):
        raise StatesApart(t=walk.times[-1], dt=0.0, steps=walk.stats.trials, z=y)


def _reversible(walk: Walk) -> ReversibleStepper:
    assert isinstance(walk.stepper, ReversibleStepper)
    return walk.stepper


class _Backwards:
    """Undoes the steps between two kept pairs of states."""

    def __init__(self, walk: Walk, stepper: ReversibleStepper, adj_output: Tensor) -> None:
        self.walk, self.f, self.stepper, self.adj_output = walk, walk.field, stepper, adj_output

    def part(
        self, steps: Sequence[Noted], before: Tensor, after: Tensor, adj: Tensor
    ) -> tuple[Tensor, list[Tensor | None]]:
        """Return the cotangent of the pair `before` the steps from that of the pair `after`, and the terms of f."""
        found, adj_before, terms = self._take_back(steps, after, adj, None)
        difference = _relative(found - before, before)
        stats = self.walk.stats
        stats.reconstruction = max(stats.reconstruction or 0.0, difference)
        if difference <= torch.finfo(before.dtype).eps ** RECONSTRUCTED:  # false for NaN
            return adj_before, terms
        states = self._take_again(steps, before, after)
        _, adj_before, terms = self._take_back(steps, after, adj, states)
        return adj_before, terms

    def _take_back(
        self, steps: Sequence[Noted], after: Tensor, adj: Tensor, states: Sequence[Tensor] | None
    ) -> tuple[Tensor, Tensor, list[Tensor | None]]:
        terms = no_terms(self.walk)
        for i in reversed(range(len(steps))):
            span, inside, ends_at, drawn = steps[i]
            if ends_at is not None:
                adj = torch.stack([adj[0] + same_format(self.adj_output[ends_at], adj[0]), adj[1]])
            cotangents = [(x, same_format(self.adj_output[j], adj[0])) for j, x in inside]
            known = None if states is None else states[i]
            step = self.stepper.take_back(self.f, span, after, adj, cotangents, drawn, known)
            after, adj = step.before, step.adj_before
            for terms_of_step in step.terms:
                accumulate(terms, terms_of_step)
        return after, adj, terms

    @torch.no_grad()
    def _take_again(self, steps: Sequence[Noted], before: Tensor, after: Tensor) -> list[Tensor]:
        """Return the pairs before each of the steps, by taking the steps of the solve again.

        Raises:
            ValueError: they do not end at the state of the solve, so f is not the same.
        """
        states = [before]
        for span, _, _, drawn in steps:
            with self.f.generators.replay(drawn):
                z = states[-1]
                states.append(self.stepper.trial(self.f, span, z, self.stepper.start(self.f, span.t, z)).z1)
        for repeated, before in zip(states.pop(), after, strict=True):
            self.f.repeats.compare(repeated, before)
        self.f.repeats.refuse_difference()
        return states


APART = 100.0  # y - z is of the size of the method's error: some tolerances after many steps
# Powers of eps. Between kept states round-off may grow from eps to eps^ENLARGED: 3e-13 in float64, 3e-6 in float32. It
# adds up over the steps, so a reconstructed state may have a relative error of eps^RECONSTRUCTED: 1e-10 and 4e-5.
ENLARGED = 0.8
RECONSTRUCTED = 0.64


class _ByContraction:
    """Keeps a state when undoing the steps since the last kept one would enlarge round-off beyond eps^ENLARGED.

    Undoing a contraction enlarges round-off by the same factor. Undoing an expansion makes y and z drift apart at the
    same rate. Both rates are estimated without further evaluations: from y and z, two states at one time whose slopes
    are known, and from the change of the slope along the solution.
    """

    def __init__(self, coupling: float) -> None:
        self.of_coupling = -math.log(coupling)
        # Since the last kept state: the log of the drift of y and z, and the number of steps.
        self.parted, self.steps = 0.0, 0
        self.rate = 0.0
        self.kept_slope: float | None = None
        self.slope_y1: Tensor | None = None

    def __call__(self, step: Step) -> bool:
        """Return whether to keep the pair with which the step begins."""
        assert isinstance(step.span.dt, float)
        rate, slope = self._look(step)
        self.rate = self.rate if rate is None else rate
        self.parted += self.rate * abs(step.span.dt)
        self.steps += 1
        changed = 0.0
        if slope is not None:
            self.kept_slope = slope if self.kept_slope is None else self.kept_slope
            changed = abs(math.log(self.kept_slope / slope))
        enlarged = max(self.parted, changed) + self.steps * self.of_coupling
        if enlarged <= (ENLARGED - 1.0) * math.log(torch.finfo(step.z.dtype).eps):
            return False
        self.parted, self.steps, self.kept_slope = self.rate * abs(step.span.dt), 1, slope
        return True

    def _look(self, step: Step) -> tuple[float | None, float | None]:
        """Return the rate at which y and z drift apart or together, and |dz/dt|; None for mere round-off."""
        (y, z), y1, pair = step.z.unbind(), step.trial.z1[0], step.trial.data
        apart = y - z
        numbers = [torch.linalg.vector_norm(x) for x in (y, y1 - y, apart)]
        if self.slope_y1 is not None and pair.slope_z is not None:
            numbers.append(torch.sum(apart * (self.slope_y1 - pair.slope_z)))
        self.slope_y1 = pair.slope_y1
        size, moved, distance, *parting = torch.stack(numbers).tolist()
        if not all(map(math.isfinite, (size, moved, distance, *parting))):
            return None, None
        noise = 1e3 * torch.finfo(y.dtype).eps * size
        rate = abs(parting[0]) / distance**2 if parting and distance > noise else None
        return rate, moved / abs(step.span.dt) if moved > noise else None


class _Evenly:
    """Keeps a given number of states, evenly spread in time."""

    def __init__(self, times: Sequence[float], number: int) -> None:
        length = (times[-1] - times[0]) / (number + 1)
        self.marks = [times[0] + i * length for i in range(number, 0, -1)]
        self.sign = 1.0 if length > 0.0 else -1.0

    def __call__(self, step: Step) -> bool:
        """Return whether to keep the pair with which the step begins."""
        passed = False
        while self.marks and self.sign * (step.span.t - self.marks[-1]) >= -1e-9 * abs(self.marks[-1]):
            self.marks.pop()
            passed = True
        return passed


def _relative(difference: Tensor, state: Tensor) -> float:
    """Return the larger one of the relative differences of y and z; of a state at 0 the absolute ones, over tiny."""
    norms = [torch.linalg.vector_norm(x.reshape(2, -1), dim=1) for x in (difference, state)] if state.numel() else []
    return float((norms[0] / norms[1].clamp(min=torch.finfo(state.dtype).tiny)).max()) if norms else 0.0
