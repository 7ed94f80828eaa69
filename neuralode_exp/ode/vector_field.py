"""The user's f(t, z), counted and checked at each call."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class CountedField:
    """f with a counter, so that the number of function evaluations is kept in one place.

    Raises:
        ValueError: if f does not return a tensor of the shape and dtype of z.
    """

    def __init__(self, f: Callable[[Tensor, Tensor], Tensor]) -> None:
        self.f = f
        self.nfe = 0

    def __call__(self, t: Tensor, z: Tensor) -> Tensor:
        self.nfe += 1
        dz = self.f(t, z)
        if not isinstance(dz, Tensor):
            raise ValueError(f"f(t, z) must return dz/dt, a tensor, got {type(dz).__name__}; does it end in return?")
        if dz.shape != z.shape or dz.dtype != z.dtype:
            raise ValueError(
                f"f(t, z) must return dz/dt with the shape and dtype of z, got {_describe(dz)} for z of {_describe(z)}"
            )
        return dz

    def linearise(self, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Evaluate at a fresh leaf: (z', dz) with autograd's graph from z' and the parameters to dz = f(t, z')."""
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            return z, self(t, z)


def vjp(
    dz: Tensor, z: Tensor, cotangent: Tensor, parameters: Sequence[Tensor]
) -> tuple[Tensor | None, tuple[Tensor | None, ...]]:
    """Vector-Jacobian products cotangent^T df/dz and cotangent^T df/dtheta; None where f does not depend on it."""
    if not dz.requires_grad:
        return None, (None,) * len(parameters)
    adj_z, *adj_parameters = torch.autograd.grad(dz, (z, *parameters), cotangent, allow_unused=True)
    return adj_z, tuple(adj_parameters)


def accumulate(sums: list[Tensor | None], terms: Sequence[Tensor | None], weight: float = 1.0) -> None:
    """sums[i] += weight * terms[i] in place, where None is zero."""
    for i, term in enumerate(terms):
        if term is None:
            continue
        total = sums[i]
        if total is None:
            sums[i] = term * weight
        else:
            total.add_(term, alpha=weight)


def trainable_parameters(
    f: Callable[[Tensor, Tensor], Tensor], parameters: Sequence[Tensor] | None, gradient: str
) -> tuple[Tensor, ...]:
    """The parameters that need a gradient: those given, or those of the module f."""
    if parameters is None:
        if not isinstance(f, nn.Module):
            raise ValueError(
                f"gradient={gradient!r} must know f's parameters, got a {type(f).__name__} that is no nn.Module; "
                "pass parameters=(...), an empty tuple if it has none"
            )
        parameters = tuple(f.parameters())
    return tuple(p for p in parameters if p.requires_grad)


def _describe(x: Tensor) -> str:
    return f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}"
