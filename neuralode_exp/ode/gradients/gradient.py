"""The interface of the ways to differentiate a solve, and the common part of those that evaluate f in backward."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

from neuralode_exp.ode.state import in_a_transform
from neuralode_exp.ode.walk import Walk


class SolveGradient(ABC):
    """Turns a walk into the states at its times, with their gradients.

    Attributes:
        differentiates_errors: whether `walk.errors` have gradients too.
    """

    differentiates_errors = False

    @abstractmethod
    def observations(self, walk: Walk, listed: Sequence[Tensor]) -> Tensor:
        """Solve, and return the states at the times, shape (len(times), *z0.shape).

        Args:
            walk: the solve, not begun yet.
            listed: tensors on which f depends, as listed by the caller.
        """


class Repeating(SolveGradient):
    """A gradient that keeps little of a solve and evaluates f again in backward. It can be differentiated once."""

    def observations(self, walk: Walk, listed: Sequence[Tensor]) -> Tensor:
        if not torch.is_grad_enabled() or len(walk.times) == 1:
            return walk.run()
        if in_a_transform() or unpack_dual(walk.z0).tangent is not None:
            raise ValueError(
                f"gradient={type(self).__name__.lower()!r} must be differentiated by backward, got a transform of "
                "torch.func or a tangent (forward mode); use gradient='backprop'"
            )
        depends_on = walk.find_dependencies(listed)
        if not depends_on and not walk.z0.requires_grad:
            return walk.run()
        self.check(walk)
        z: Tensor
        z, *errors = _Repeat.apply(self, walk, walk.z0, *depends_on)
        walk.errors = None if walk.errors is None else errors
        return z

    def check(self, walk: Walk) -> None:
        """Refuse an f whose gradient would be wrong."""

    @abstractmethod
    def solve(self, walk: Walk) -> tuple[Tensor, Sequence[Tensor], Any]:
        """Solve from a detached z0.

        Returns:
            the states at the times, tensors to keep for backward, and other notes that backward needs.
        """

    @abstractmethod
    def pull_back(
        self, walk: Walk, kept: Sequence[Tensor], notes: Any, adj_output: Tensor, adj_errors: Sequence[Tensor | None]
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        """Return the cotangents of z0 and of what f depends on, given those of the states and of `walk.errors`."""


class _Repeat(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradient: Repeating, walk: Walk, z0: Tensor, *depends_on: Tensor) -> tuple[Tensor, ...]:
        walk.z0 = z0.detach()  # the graph of a single stage must not reach what z0 was made from
        z, kept, notes = gradient.solve(walk)
        ctx.gradient, ctx.walk, ctx.notes, ctx.count = gradient, walk, notes, len(kept)
        ctx.shape = z.shape
        ctx.save_for_backward(*kept, *depends_on)
        ctx.set_materialize_grads(False)
        walk.z0 = walk.z0.new_empty(0)  # backward finds what it needs among the saved tensors
        return z, *(walk.errors or ())

    @staticmethod
    def backward(ctx: Any, adj_output: Tensor | None, *adj_errors: Tensor | None) -> tuple[Any, ...]:
        refuse_again(type(ctx.gradient).__name__.lower())
        walk, f = ctx.walk, ctx.walk.field
        kept = ctx.saved_tensors[: ctx.count]
        nfe = f.nfe
        adj_z, terms = None, (None,) * len(f.depends_on)
        if any(adj is not None for adj in adj_errors):
            adj_output = (
                torch.zeros(ctx.shape, dtype=f.dtype, device=kept[0].device) if adj_output is None else adj_output
            )
        if adj_output is not None:
            try:
                adj_z, terms = ctx.gradient.pull_back(walk, kept, ctx.notes, adj_output, adj_errors)
            finally:
                walk.stats.nfe_backward += f.nfe - nfe
        return (None, None, adj_z, *terms)


def refuse_again(name: str) -> None:
    """Refuse, within backward, a gradient that is to be differentiated again."""
    if torch.is_grad_enabled():  # true exactly if create_graph=True
        raise RuntimeError(
            f"gradient={name!r} can be differentiated once, got backward(create_graph=True); "
            "use gradient='backprop' for higher derivatives"
        )


def no_terms(walk: Walk) -> list[Tensor | None]:
    """Return zero cotangents (None) for all tensors that f depends on."""
    return [None] * len(walk.field.depends_on)
