"""gradient="checkpoint": the exact discrete gradient with one step's stages in memory.

Backward pulls the observations' cotangents back through the very steps that the forward solve took (step sizes are
constants), hence it equals backpropagation through them up to round-off. Forward keeps the state at the start of each
accepted step, backward evaluates the stages of one step at a time again. Those of the last step are needed first:
forward leaves their graphs to backward, which then repeats none of them but an adaptive step's first, the closing one
of the step before. One solve before the loss has the same peak with and without; each solve of several keeps one
step's activations until its backward.
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
    last: Any  # the graphs of the last step's stages, for one backward: a further one evaluates them, too


class Checkpoint(Repeating):
    """Keeps the states at the accepted steps, and the graph of the last one."""

    differentiates_errors = True

    def solve(self, walk: Walk) -> tuple[Tensor, Sequence[Tensor], _Notes]:
        states: list[Tensor] = []
        notes = _Notes([], None)

        def noted() -> Iterator[Step]:
            step = None
            # The error estimate wants the values of the stages, which are not kept with their graphs.
            for step in walk.steps(f_last=Linearised(walk.field) if walk.errors is None else None):
                states.append(step.z)
                notes.steps.append(note(step))
                yield step
            assert step is not None
            if walk.errors is None:
                notes.last = walk.stepper.keep(step.trial, dense=bool(step.inside))

        return walk.observe(noted()), states, notes

    def pull_back(
        self, walk: Walk, kept: Sequence[Tensor], notes: _Notes, adj_output: Tensor, adj_errors: Sequence[Tensor | None]
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        f, terms = walk.field, no_terms(walk)
        last, notes.last = notes.last, None
        adj_z, end = torch.zeros_like(kept[0]), None
        adj_errors = adj_errors or (None,) * len(kept)
        steps = zip(reversed(notes.steps), reversed(kept), reversed(adj_errors), strict=True)
        for (span, inside, ends_at, drawn), z, adj_error in steps:
            if ends_at is not None:
                adj_z = adj_z + same_format(adj_output[ends_at], z)
            adj_inside = [(x, same_format(adj_output[i], z)) for i, x in inside]
            of_error = None if adj_error is None else partial(_of_error, walk, span, adj_error)
            cotangents = Cotangents(adj_z, adj_inside, of_error, end)
            with f.generators.replay(drawn):
                adj_z, terms_of_step = walk.stepper.pull_back(f, span, z, cotangents, last)
            accumulate(terms, terms_of_step)
            last, end = None, z
        f.repeats.refuse_difference()
        return adj_z + same_format(adj_output[0], adj_z), terms


def _of_error(walk: Walk, span: Span, adj: Tensor, error: Tensor) -> Tensor:
    return adj * walk.error_term(span, error)
