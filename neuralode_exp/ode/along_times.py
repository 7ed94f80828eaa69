"""The gradient of the observation times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from neuralode_exp.ode.field import VectorField, time_like
from neuralode_exp.ode.state import in_a_transform
from neuralode_exp.ode.times import Stops


class AlongTimes:
    """The gradient of t, if t requires one. The solve itself uses the times as plain numbers."""

    def __init__(self, f: VectorField, times: Sequence[float], stops: Stops, t: object) -> None:
        self.f, self.times, self.stops = f, times, stops
        self.t = t if isinstance(t, Tensor) and t.requires_grad and torch.is_grad_enabled() else None
        if self.t is not None and in_a_transform():
            raise ValueError("`t` must be differentiated by backward, got a transform of torch.func; detach t")

    def start(self, z0: Tensor) -> Tensor:
        """Return z0 with the derivative dz/dt0 = -f(t0, z0): a later start leaves less time to move."""
        if self.t is None:
            return z0
        moved: Tensor = _Move.apply(z0[None], self.t[:1], -self._slopes(z0[None]))
        return moved[0]

    def observations(self, z: Tensor) -> Tensor:
        """Return z with the derivatives dz_i/dt_i = f(t_i, z_i)."""
        if self.t is None:
            return z
        moved: Tensor = _Move.apply(z, self.t, self._slopes(z))
        return moved

    @torch.no_grad()
    def _slopes(self, z: Tensor) -> Tensor:
        """Evaluate f at the observations: at a stop, where f jumps, after the first time and before the others."""
        times = [self.stops.beside(t, -1 if i else 1) for i, t in enumerate(self.times[: len(z)])]
        return torch.stack([self.f(time_like(t, z_i), z_i) for t, z_i in zip(times, z.detach(), strict=True)])


class _Move(torch.autograd.Function):
    """Return z, shape (n, *shape), with the derivatives dz of its rows with respect to t, shape (n,)."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, t: Tensor, dz: Tensor) -> Tensor:
        ctx.save_for_backward(dz)
        ctx.dtype = t.dtype
        return z.view_as(z)

    @staticmethod
    def backward(ctx: Any, adj: Tensor) -> tuple[Tensor, Tensor, None]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "a solve can be differentiated once if t requires a gradient, got backward(create_graph=True); detach t"
            )
        (dz,) = ctx.saved_tensors
        return adj, (adj * dz).reshape(len(dz), -1).sum(1).to(ctx.dtype), None
