"""A vector field with the units of the data wrapped around it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Field = TypeVar("Field", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class Units:
    """Sizes that make a field's inputs and outputs of order 1, each of shape (d,).

    Args:
        centre, scale: those of the states; x = (z - centre) / scale is of order 1.
        rate: size of dz/dt where |x| is about 1.
        u_centre, u_scale: those of the inputs that the field sees, shape (m,); None if it sees none.
    """

    centre: Tensor
    scale: Tensor
    rate: Tensor
    u_centre: Tensor | None = None
    u_scale: Tensor | None = None

    @staticmethod
    def none(dim: int) -> Units:
        """Return units that change nothing: centre 0, scale 1 and rate 1."""
        return Units(torch.zeros(dim), torch.ones(dim), torch.ones(dim))

    def size(self, z: Tensor) -> Tensor:
        """Return |x|, x = (z - centre) / scale, shape (..., 1), for z of shape (..., d)."""
        return torch.linalg.vector_norm((z - self.centre) / self.scale, dim=-1, keepdim=True)


class Scaled(nn.Module, Generic[Field]):
    """dz/dt = rate * field(t, (z - centre) / scale), on states of shape (..., d).

    In a driven system the field also gets (u - u_centre) / u_scale, shape (..., m), if the units have u_scale.
    """

    centre: Tensor
    scale: Tensor
    rate: Tensor
    u_centre: Tensor
    u_scale: Tensor

    def __init__(self, field: Field, units: Units) -> None:
        super().__init__()
        self.field = field
        for name in ("centre", "scale", "rate"):
            self.register_buffer(name, getattr(units, name).clone())
        self.driven = units.u_scale is not None
        if units.u_centre is not None and units.u_scale is not None:
            self.register_buffer("u_centre", units.u_centre.clone())
            self.register_buffer("u_scale", units.u_scale.clone())

    def forward(self, t: Tensor, z: Tensor, u: Tensor | None = None) -> Tensor:
        if z.shape[-1:] != self.scale.shape:
            raise ValueError(f"states must have the shape (batch, {len(self.scale)}), got {tuple(z.shape)}")
        x = (z - self.centre) / self.scale
        if self.driven and u is None:
            raise ValueError("`u` must be given, the field was trained with inputs; give it at the times t")
        seen = () if u is None or not self.driven else ((u - self.u_centre) / self.u_scale,)
        dx: Tensor = self.field(t, x, *seen)
        return dx * self.rate
