"""States at the observation times: collected while stepping, stacked once, in the memory format of z0."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from neuralode_exp.ode.steps import Step, combine
from neuralode_exp.ode.tableaus import Tableau


class Output:
    """Collects z(t_i) from the steps and stacks them to (len(t), *z.shape)."""

    def __init__(self, z0: Tensor, n_times: int) -> None:
        self.states: list[Tensor] = [z0] * n_times

    def observe(self, step: Step, tableau: Tableau) -> None:
        for i, x in step.span.inside:
            self.states[i] = combine(step.z, step.k, tableau.dense_weights(x), step.span.dt)
        if step.span.ends_at is not None:
            self.states[step.span.ends_at] = step.z1

    def stack(self) -> Tensor:
        stacked: Tensor = _Stack.apply(*self.states)
        return stacked


class _Stack(torch.autograd.Function):
    """`torch.stack` that gives each state's memory format to its slice, and back to its cotangent.

    Without it a channels_last state would come back contiguous, and so would the cotangent that enters the solve's
    backward, whose convolutions would then convert it at every stage.
    """

    @staticmethod
    def forward(ctx: Any, *states: Tensor) -> Tensor:
        ctx.order = memory_order(states[0])
        return stack_states(states)

    @staticmethod
    def backward(ctx: Any, adj: Tensor) -> tuple[Tensor, ...]:
        order = [0, *(d + 1 for d in ctx.order)]
        return _permute_back(adj.permute(order).contiguous(), ctx.order).unbind()


def stack_states(states: Sequence[Tensor]) -> Tensor:
    """(n, *z.shape) whose slices have the memory format of the first state."""
    if states[0].is_contiguous():
        return torch.stack(list(states))
    order = memory_order(states[0])
    return _permute_back(torch.stack([z.permute(order) for z in states]), order)


def memory_order(z: Tensor) -> list[int]:
    """Dimensions of z from the slowest to the fastest in memory."""
    return sorted(range(z.dim()), key=lambda d: (-z.stride()[d], d))


def _permute_back(stacked: Tensor, order: list[int]) -> Tensor:
    """Undo the permutation of all dimensions but the first."""
    inverse = [0] * len(order)
    for position, d in enumerate(order):
        inverse[d] = position
    return stacked.permute([0, *(p + 1 for p in inverse)])


def same_format(x: Tensor, like: Tensor) -> Tensor:
    """x in the memory format of `like`, copied only if it differs."""
    if x.stride() == like.stride():
        return x
    return torch.empty_like(like).copy_(x)


def refuse_double_backward(gradient: str) -> None:
    """Backward runs with gradients enabled exactly when a graph of it is asked for (create_graph=True)."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"gradient={gradient!r} can be differentiated once, got backward(create_graph=True); "
            "use gradient='backprop' for higher derivatives"
        )
