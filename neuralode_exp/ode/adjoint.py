"""gradient="adjoint": Algorithm 1 of Chen et al. (arXiv 1806.07366), memory that does not grow with the evaluations.

With the adjoint a(t) = dL/dz(t), backward solves

    dz/dt = f(t, z),    da/dt = -a^T df/dz,    dG/dt = -a^T df/dtheta,    G = dL/dtheta at t0,

from the last observation to the first. At each observation z is reset to the stored one and a jumps by the
observation's cotangent. G enters no right-hand side, so it stays out of the error norm (Kidger et al., "Hey, that's
not an ODE", arXiv 2009.09457) and is summed once per accepted step from the stages' parameter cotangents.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from neuralode_exp.ode.errors import SolverError
from neuralode_exp.ode.methods import Adaptive, FixedStep
from neuralode_exp.ode.output import Output, refuse_double_backward, same_format, stack_states
from neuralode_exp.ode.stats import Stats
from neuralode_exp.ode.steps import Step, walk
from neuralode_exp.ode.tableaus import Tableau
from neuralode_exp.ode.vector_field import CountedField, accumulate, vjp


class Adjoint(torch.autograd.Function):
    """Forward: run the steps, keep the observations. Backward: solve the augmented system backwards."""

    @staticmethod
    def forward(
        ctx: Any,
        f: CountedField,
        steps: Iterator[Step],
        output: Output,
        tableau: Tableau,
        times: Sequence[float],
        adjoint_method: FixedStep | Adaptive,
        stats: Stats,
        z0: Tensor,
        *parameters: Tensor,
    ) -> Tensor:
        for step in steps:
            output.observe(step, tableau)
        z = output.stack()
        ctx.f, ctx.times, ctx.method, ctx.stats = f, times, adjoint_method, stats
        ctx.save_for_backward(z, *parameters)
        return z

    @staticmethod
    def backward(ctx: Any, adj_output: Tensor) -> tuple[Tensor | None, ...]:
        refuse_double_backward("adjoint")
        z, *parameters = ctx.saved_tensors
        nfe = ctx.f.nfe
        try:
            adj_z, adj_parameters = _solve_backwards(ctx.f, z, ctx.times, ctx.method, adj_output, parameters)
        except SolverError as error:
            error.args = (f"backward solve of the adjoint: {error}",)
            raise
        finally:
            ctx.stats.nfe_backward += ctx.f.nfe - nfe
        return (None, None, None, None, None, None, None, adj_z, *adj_parameters)


def _solve_backwards(
    f: CountedField,
    z: Tensor,
    times: Sequence[float],
    method: FixedStep | Adaptive,
    adj_output: Tensor,
    parameters: Sequence[Tensor],
) -> tuple[Tensor, list[Tensor | None]]:
    """dL/dz0 and dL/dtheta from the cotangents of the observations z (n, *shape)."""
    adj_parameters: list[Tensor | None] = [None] * len(parameters)
    field = _AugmentedField(f, parameters)
    adj_z = same_format(adj_output[-1], z[-1])
    dt: float | None = None
    stats = Stats()  # of all intervals together: max_steps bounds the whole backward solve
    for i in range(len(times) - 1, 0, -1):
        interval = (times[i], times[i - 1])
        # The first step of an interval is the one that the interval after it ended with, not a blind start.
        for step in walk(field, stack_states([z[i], adj_z]), interval, method, stats, dt=dt, norm=_seminorm):
            for k_j, b_j in zip(step.k, method.tableau.b, strict=False):
                accumulate(adj_parameters, field.parameter_terms[k_j], -step.span.dt * b_j)
            adj_z, dt = step.z1[1], step.dt_next
        adj_z = adj_z + same_format(adj_output[i - 1], adj_z)
    return adj_z, adj_parameters


class _AugmentedField:
    """(t, [z, a]) -> [f, -a^T df/dz]; a^T df/dtheta of each evaluation is kept as long as its result lives."""

    def __init__(self, f: CountedField, parameters: Sequence[Tensor]) -> None:
        self.f = f
        self.parameters = parameters
        self.parameter_terms = WeakTensorKeyDictionary()

    def __call__(self, t: Tensor, state: Tensor) -> Tensor:
        z, dz = self.f.linearise(t, state[0])
        adj_z, adj_parameters = vjp(dz, z, state[1], self.parameters)
        k = stack_states([dz.detach(), torch.zeros_like(z) if adj_z is None else adj_z.neg()])
        self.parameter_terms[k] = adj_parameters
        return k


def _seminorm(error: Tensor) -> Tensor:
    """The larger root mean square of the two parts, z and a."""
    error = error.unsqueeze(-1)  # a state without dimensions has one to reduce, too
    parts = torch.linalg.vector_norm(error, dim=tuple(range(1, error.dim())))
    return parts.max() / max(1, error[0].numel()) ** 0.5
