"""gradient="checkpoint": the exact discrete gradient, with the stages of one step in memory.

Backward pulls the cotangents of the observations back through the same steps as the forward solve took, with step sizes
as constants. So it equals backpropagation up to round-off. Forward keeps the state at the start of each accepted step,
and backward evaluates the stages again, one step at a time. Backward needs those of the last step first, so forward
keeps their graphs. They are not evaluated again, except the first stage of an adaptive step, which belongs to the step
before. With one solve before the loss this raises the peak of memory by no more than a state; with several solves each
keeps the activations of one step until its backward.

Every step that is evaluated again must end where it ended before, or f has changed and the gradient is refused. So the
last state is kept too, and of the last step also the slopes at its ends, if the method evaluates them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from neuralode_exp.ode.field import Linearised, accumulate
from neuralode_exp.ode.gradients.gradient import Repeating, no_terms
from neuralode_exp.ode.state import same_format
from neuralode_exp.ode.steppers import Cotangents, Span
from neuralode_exp.ode.walk import Noted, Step, Walk, note


@dataclass
class _Notes:
    steps: list[Noted]
    last: Any  # the graphs of the last step's stages; the first backward uses them up, and a second one evaluates again
    slope: Tensor | None  # dz/dt at the end of the last step, if it was evaluated


class Checkpoint(Repeating):
    """Keeps the states at the accepted steps, and the graph of the last step."""

    differentiates_errors = True

    def solve(self, walk: Walk) -> tuple[Tensor, Sequence[Tensor], _Notes]:
        states: list[Tensor] = []
        notes = _Notes([], None, None)

        def noted() -> Iterator[Step]:
            step = None
            # The error estimate needs the values of the stages, which are not kept with their graphs.
            for step in walk.steps(f_last=Linearised(walk.field) if walk.errors is None else None):
                states.append(step.z)
                notes.steps.append(note(step))
                yield step
            assert step is not None
            states.append(step.trial.z1)
            notes.slope = None if step.trial.carry is None else walk.stepper.known_slope(step.trial.carry)
            if walk.errors is None:
                notes.last = walk.stepper.keep(step.trial, dense=bool(step.inside))

        return walk.observe(noted()), states, notes

    def pull_back(
        self, walk: Walk, kept: Sequence[Tensor], notes: _Notes, adj_output: Tensor, adj_errors: Sequence[Tensor | None]
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        f, terms, slope = walk.field, no_terms(walk), notes.slope
        last, notes.last = notes.last, None
        *starts, final = kept
        adj_z, end = torch.zeros_like(final), final if last is None else None
        adj_errors = adj_errors or (None,) * len(starts)
        steps = zip(reversed(notes.steps), reversed(starts), reversed(adj_errors), strict=True)
        for (span, inside, ends_at, drawn), z, adj_error in steps:
            if ends_at is not None:
                adj_z = adj_z + same_format(adj_output[ends_at], z)
            adj_inside = [(x, same_format(adj_output[i], z)) for i, x in inside]
            of_error = None if adj_error is None else partial(_of_error, walk, span, adj_error)
            cotangents = Cotangents(adj_z, adj_inside, of_error, end, slope)
            with f.generators.replay(drawn):
                adj_z, terms_of_step = walk.stepper.pull_back(f, span, z, cotangents, last)
            accumulate(terms, terms_of_step)
            last, end, slope = None, z, None
        f.repeats.refuse_difference()
        return adj_z + same_format(adj_output[0], adj_z), terms


def _of_error(walk: Walk, span: Span, adj: Tensor, error: Tensor) -> Tensor:
    return adj * walk.error_term(span, error)
