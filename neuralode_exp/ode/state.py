"""The state of a solve, packed into one tensor, and its observations in the form of the user's state."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.forward_ad import unpack_dual

State = Tensor | tuple[Tensor, ...]


class SingleState:
    """A state that is one tensor; it needs no packing."""

    partial = False

    def pack(self, z: State) -> Tensor:
        assert isinstance(z, Tensor)
        return z

    def unpack(self, z: Tensor) -> State:
        return z

    def field(self, f: Callable[..., Any]) -> Callable[[Tensor, Tensor], Tensor]:
        return f

    def norm(self, x: Tensor) -> Tensor:
        """Return the root mean square of all entries."""
        return torch.linalg.vector_norm(x) / math.sqrt(max(1, x.numel()))


class TupleState:
    """A state of several tensors, packed one after the other into a vector, each in its memory order.

    Args:
        z0: the parts.
        in_norm: whether each part counts in the error norm; None: all parts count.
    """

    def __init__(self, z0: Sequence[Tensor], in_norm: Sequence[bool] | None) -> None:
        self.orders = [memory_order(z) for z in z0]
        self.sizes = [z.numel() for z in z0]
        self.shapes = [[z.shape[d] for d in order] for z, order in zip(z0, self.orders, strict=True)]
        self.in_norm = tuple(in_norm) if in_norm is not None else (True,) * len(self.sizes)
        self.partial = not all(self.in_norm)

    def pack(self, z: State) -> Tensor:
        return torch.cat([z_i.permute(order).reshape(-1) for z_i, order in zip(z, self.orders, strict=True)])

    def unpack(self, z: Tensor) -> tuple[Tensor, ...]:
        """Return views of z (..., total), one for each part, of shape (..., *shape)."""
        leading = z.shape[:-1]
        return tuple(
            permute_back(part.reshape((*leading, *shape)), order, len(leading))
            for part, shape, order in zip(z.split(self.sizes, -1), self.shapes, self.orders, strict=True)
        )

    def field(self, f: Callable[..., Any]) -> Callable[[Tensor, Tensor], Tensor]:
        def packed(t: Tensor, z: Tensor) -> Tensor:
            parts = self.unpack(z)
            dz = f(t, parts)
            if not isinstance(dz, tuple) or len(dz) != len(parts):
                got = f"{len(dz)} parts" if isinstance(dz, tuple) else type(dz).__name__
                raise ValueError(f"f(t, z) must return a tuple of {len(parts)} tensors, as z is, got {got}")
            for i, (dz_i, z_i) in enumerate(zip(dz, parts, strict=True)):
                if not _fits(dz_i, z_i):
                    raise ValueError(
                        "f(t, z) must return parts with the shapes and the dtype of z's, got "
                        f"{describe(dz_i)} for part {i} of {describe(z_i)}"
                    )
            return self.pack(dz)

        return packed

    def norm(self, x: Tensor) -> Tensor:
        """Return the largest of the parts' root mean squares."""
        parts = zip(x.split(self.sizes, -1), self.in_norm, strict=True)
        sizes = [torch.linalg.vector_norm(part) / math.sqrt(max(1, part.numel())) for part, counts in parts if counts]
        return torch.stack(sizes).max()


def _fits(dz: object, z: Tensor) -> bool:
    """Return whether dz has the shape and dtype of z; under autocast it may have another precision."""
    if not isinstance(dz, Tensor) or dz.shape != z.shape:
        return False
    return dz.dtype == z.dtype or (dz.is_floating_point() and torch.is_autocast_enabled(z.device.type))


def describe(x: object) -> str:
    """Return the shape and dtype of a tensor, or the type of something else, for a message."""
    return f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}" if isinstance(x, Tensor) else type(x).__name__


def stack(states: Sequence[Tensor]) -> Tensor:
    """Stack states to (n, *z.shape) in their memory format; their cotangents have that format too."""
    if states[0].is_contiguous() or in_a_transform() or any(unpack_dual(z).tangent is not None for z in states):
        return stack_states(states)  # operations of torch, which it differentiates in every mode
    stacked: Tensor = _Stack.apply(*states)
    return stacked


def in_a_transform() -> bool:
    """Return whether a transform of `torch.func` is at work, such as grad, jacrev or jvp."""
    return torch._C._functorch.maybe_current_level() is not None


class _Stack(torch.autograd.Function):
    """`torch.stack`, but slices and their cotangents keep the memory format of the states.

    `torch.stack` would make a channels_last state contiguous. The cotangent that enters the solve's backward would be
    contiguous too, and the convolutions there would convert it at every stage.
    """

    @staticmethod
    def forward(ctx: Any, *states: Tensor) -> Tensor:
        ctx.order = memory_order(states[0])
        return stack_states(states)

    @staticmethod
    def backward(ctx: Any, adj: Tensor) -> tuple[Tensor, ...]:
        order = [0, *(d + 1 for d in ctx.order)]
        return permute_back(adj.permute(order).contiguous(), ctx.order, 1).unbind()


def stack_states(states: Sequence[Tensor]) -> Tensor:
    """Stack states to (n, *z.shape) with slices in the memory format of the first state."""
    if states[0].is_contiguous():
        return torch.stack(list(states))
    order = memory_order(states[0])
    return permute_back(torch.stack([z.permute(order) for z in states]), order, 1)


def memory_order(z: Tensor) -> list[int]:
    """Return the dimensions of z, ordered from the slowest to the fastest in memory."""
    return sorted(range(z.dim()), key=lambda d: (-z.stride()[d], d))


def permute_back(z: Tensor, order: list[int], leading: int) -> Tensor:
    """Undo the permutation `order` of the dimensions that follow the leading ones."""
    inverse = [0] * len(order)
    for position, d in enumerate(order):
        inverse[d] = position
    return z.permute([*range(leading), *(p + leading for p in inverse)])


def same_format(x: Tensor, like: Tensor) -> Tensor:
    """Return x in the memory format of `like`; it is copied only if its format differs."""
    if x.stride() == like.stride():
        return x
    return torch.empty_like(like).copy_(x)
