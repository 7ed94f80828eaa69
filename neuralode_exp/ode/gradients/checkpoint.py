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
from typing import Any

import torch
from torch import Tensor

from neuralode_exp.ode.field import Linearised, accumulate
from neuralode_exp.ode.gradients.gradient import SolveGradient, dependencies, refuse_double_backward
from neuralode_exp.ode.state import same_format
from neuralode_exp.ode.steppers import Cotangents
from neuralode_exp.ode.walk import Step, Walk


class Checkpoint(SolveGradient):
    """Keeps the states at the accepted steps, and the graph of the last one."""

    def observations(self, walk: Walk, listed: Sequence[Tensor]) -> Tensor:
        depends_on = dependencies(walk, listed)
        if depends_on is None:
            return walk.run()
        z: Tensor = _Checkpoint.apply(walk, walk.z0, *depends_on)
        return z


class _Checkpoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, walk: Walk, z0: Tensor, *depends_on: Tensor) -> Tensor:
        walk.z0 = z0.detach()  # a stage that is differentiated alone must not lead into what made z0
        states, steps, last = [], [], None

        def noted() -> Iterator[Step]:
            nonlocal last
            for last in walk.steps(f_last=Linearised(walk.field)):
                states.append(last.z)
                steps.append((last.span, last.inside, last.ends_at, last.drawn))
                yield last

        z = walk.observe(noted())
        assert last is not None
        ctx.kept = walk.stepper.keep(last.trial, dense=bool(last.inside))
        ctx.walk, ctx.steps = walk, steps
        ctx.save_for_backward(*states, *depends_on)
        ctx.set_materialize_grads(False)
        walk.z0 = walk.z0.new_empty(0)  # saved above
        return z

    @staticmethod
    def backward(ctx: Any, adj_output: Tensor | None) -> tuple[Tensor | None, ...]:
        refuse_double_backward("checkpoint")
        walk, f = ctx.walk, ctx.walk.field
        saved = ctx.saved_tensors
        states = saved[: len(ctx.steps)]
        terms: list[Tensor | None] = [None] * len(f.depends_on)
        if adj_output is None:
            return (None, None, *terms)
        kept, ctx.kept = ctx.kept, None  # for one backward: a further one evaluates them, too
        nfe = f.nfe
        adj_z, end = torch.zeros_like(states[0]), None
        for (span, inside, ends_at, drawn), z in zip(reversed(ctx.steps), reversed(states), strict=True):
            if ends_at is not None:
                adj_z = adj_z + same_format(adj_output[ends_at], z)
            cotangents = Cotangents(adj_z, [(x, same_format(adj_output[i], z)) for i, x in inside], end)
            with f.generators.replay(drawn):
                adj_z, terms_of_step = walk.stepper.pull_back(f, span, z, cotangents, kept)
            accumulate(terms, terms_of_step)
            kept, end = None, z
        f.repeats.refuse_difference()
        walk.stats.nfe_backward += f.nfe - nfe
        return (None, adj_z + same_format(adj_output[0], adj_z), *terms)
