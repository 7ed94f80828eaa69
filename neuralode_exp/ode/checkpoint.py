"""gradient="checkpoint": the exact discrete adjoint with one step's stages in memory.

A step is z1 = z + dt sum_i b_i k_i, k_i = f(t_i, x_i), x_i = z + dt sum_{j<i} a_ij k_j, and an observation inside it
is z + dt sum_i w_i(x) k_i. With the cotangents adj_z1 of the state at its end and g of its observations,

    adj_k_i = dt (b_i adj_z1 + sum_{l>i} a_li adj_x_l + sum w_i g),    adj_x_i = adj_k_i^T df/dz(t_i, x_i),
    adj_z   = adj_z1 + sum_i adj_x_i + sum g,                          adj_theta += sum_i adj_k_i^T df/dtheta(t_i, x_i).

This is reverse-mode differentiation of the very steps that the forward solve took (step sizes are constants), hence
equal to backpropagation through them up to round-off. Forward keeps the state at the start of each accepted step,
backward evaluates the stages of one step at a time again. Those of the last step are needed first: forward leaves
their graphs to backward, which then repeats none of them but an adaptive step's first, the closing one of the step
before. One solve before the loss has the same peak with and without; each solve of several keeps one step's
activations until its backward.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from neuralode_exp.ode.output import Output, refuse_double_backward, same_format
from neuralode_exp.ode.stats import Stats
from neuralode_exp.ode.steps import Span, Step, combine, stage_time, time_like
from neuralode_exp.ode.tableaus import Tableau
from neuralode_exp.ode.vector_field import CountedField, accumulate, vjp

Linearised = tuple[Tensor, Tensor]  # of a stage: a leaf in the place of x_i, and f(t_i, x_i) with its graph


class KeptStages:
    """f whose evaluations are linearised; the graph of each is kept for as long as its value k lives."""

    def __init__(self, f: CountedField) -> None:
        self.f = f
        self.graphs = WeakTensorKeyDictionary()

    def __call__(self, t: Tensor, z: Tensor) -> Tensor:
        with torch.enable_grad():
            x = z.new_zeros(()).expand_as(z).requires_grad_()
            dz = self.f(t, _Start.apply(x, z))
            k = dz.detach()
            self.graphs[k] = (x, _End.apply(dz))
        return k

    def of(self, k: Sequence[Tensor]) -> dict[int, Linearised]:
        """The graphs of the stages k, by their index; those that f itself evaluated have none."""
        return {i: self.graphs[k_i] for i, k_i in enumerate(k) if k_i in self.graphs}


# A kept graph is entered and left by tensors of its shape without the memory of a value: what stays is what f's own
# operations save, which those who count saved tensors see.
class _Start(torch.autograd.Function):
    """The value of z with the gradient of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, z: Tensor) -> Tensor:
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, adj: Tensor) -> tuple[Tensor, None]:
        return adj, None


class _End(torch.autograd.Function):
    """The graph and the shape of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.new_zeros(()).expand_as(x)

    @staticmethod
    def backward(ctx: Any, adj: Tensor) -> Tensor:
        return adj


class Checkpoint(torch.autograd.Function):
    """Forward: run the steps, keep their states. Backward: see the module's docstring."""

    @staticmethod
    def forward(
        ctx: Any,
        f: CountedField,
        steps: Iterator[Step],
        last: KeptStages,
        output: Output,
        tableau: Tableau,
        stats: Stats,
        z0: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        states, spans = [], []
        for step in steps:
            output.observe(step, tableau)
            states.append(step.z)
            spans.append(step.span)
        ctx.f, ctx.spans, ctx.tableau, ctx.stats = f, spans, tableau, stats
        ctx.kept = last.of(step.k[: len(_rows(tableau, step.span))])
        ctx.save_for_backward(*states, *parameters)
        return output.stack()

    @staticmethod
    def backward(ctx: Any, adj_output: Tensor) -> tuple[Tensor | None, ...]:
        refuse_double_backward("checkpoint")
        saved = ctx.saved_tensors
        states, parameters = saved[: len(ctx.spans)], saved[len(ctx.spans) :]
        kept, ctx.kept = ctx.kept, {}  # for one backward: a further one evaluates them, too
        adj_parameters: list[Tensor | None] = [None] * len(parameters)
        nfe = ctx.f.nfe
        adj_z = torch.zeros_like(states[0])
        for span, z in zip(reversed(ctx.spans), reversed(states), strict=True):
            if span.ends_at is not None:
                adj_z = adj_z + same_format(adj_output[span.ends_at], z)
            inside = [(x, same_format(adj_output[i], z)) for i, x in span.inside]
            adj_z = _step_backward(ctx.f, span, z, ctx.tableau, kept, adj_z, inside, parameters, adj_parameters)
            assert not kept, "only the last step's stages are kept, and it comes first"
        ctx.stats.nfe_backward += ctx.f.nfe - nfe
        adj_z = adj_z + same_format(adj_output[0], adj_z)
        return (None, None, None, None, None, None, adj_z, *adj_parameters)


def _rows(tableau: Tableau, span: Span) -> Sequence[Sequence[float]]:
    """Weights of the stages that the outputs of a step depend on."""
    # The closing derivative is a stage like the others, with the weights b as its row; only observations use it.
    return (*tableau.a, tableau.b) if span.inside else tableau.a


def _step_backward(
    f: CountedField,
    span: Span,
    z: Tensor,
    tableau: Tableau,
    kept: dict[int, Linearised],
    adj_z1: Tensor,
    inside: Sequence[tuple[float, Tensor]],
    parameters: Sequence[Tensor],
    adj_parameters: list[Tensor | None],
) -> Tensor:
    """Pull the cotangents of one step's outputs back to the state at its start; add to adj_parameters.

    `kept` is emptied of the stages that need not be evaluated again.
    """
    rows = _rows(tableau, span)
    times = (*tableau.c, 1.0)
    x: list[Linearised] = []
    k: list[Tensor] = []
    for i, (c_i, a_i) in enumerate(zip(times, rows, strict=False)):
        if i in kept:
            x.append(kept.pop(i))
            continue
        assert not any(j < i for j in kept), "only stages before the kept ones are evaluated again"
        z_i = combine(z, k, a_i, span.dt)
        x.append(f.linearise(time_like(stage_time(span.t, span.t1, span.dt, c_i), z), z_i))
        k.append(x[-1][1].detach())

    outputs = [(tableau.b, adj_z1)] + [(tableau.dense_weights(fraction), g) for fraction, g in inside]
    adj_x: dict[int, Tensor] = {}
    for i in reversed(range(len(rows))):
        weights = [(w[i], g) for w, g in outputs if i < len(w) and w[i] != 0.0]
        weights += [(rows[j][i], adj) for j, adj in adj_x.items() if i < len(rows[j]) and rows[j][i] != 0.0]
        if not weights:
            x.pop()
            continue
        (w, g), *others = weights
        adj_k = g * (span.dt * w)
        for w, g in others:
            adj_k.add_(g, alpha=span.dt * w)
        x_i, graph_i = x.pop()  # popped, so that the stage's graph is freed as soon as it has been used
        adj_x_i, terms = vjp(graph_i, x_i, adj_k, parameters)
        accumulate(adj_parameters, terms)
        if adj_x_i is not None:
            adj_x[i] = adj_x_i
    terms_z = [*(g for _, g in inside), *adj_x.values()]
    return combine(adj_z1, terms_z, [1.0] * len(terms_z), 1.0)
