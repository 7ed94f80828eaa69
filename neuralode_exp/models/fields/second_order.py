"""A field for positions and velocities, which learns the accelerations alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuralode_exp.models.fields.scaled import Units


class SecondOrder(nn.Module):
    """dq/dt = v, dv/dt = a(t, q, v) for z = (q, v) of shape (..., d), where a is the second half of another field.

    Like other fields it gets x = (z - centre) / scale and returns dz/dt over `rate`, so that dq/dt is v in the units of
    z.

    References: Norcliffe et al. 2020, https://arxiv.org/abs/2006.07220.

    Args:
        field: the other field, on states (..., d); the first half of its output is not used.
        units: units of z; d must be even.

    Raises:
        ValueError: d is odd.
    """

    offset: Tensor
    pace: Tensor

    def __init__(self, field: nn.Module, units: Units) -> None:
        super().__init__()
        if len(units.scale) % 2:
            raise ValueError(f"`units` must be of an even number of dimensions, got {len(units.scale)}")
        self.field = field
        (_, centre), (_, scale), (rate, _) = (x.chunk(2) for x in (units.centre, units.scale, units.rate))
        self.register_buffer("offset", (centre / rate)[None])  # replicas have one more axis before it
        self.register_buffer("pace", (scale / rate)[None])

    def forward(self, t: Tensor, x: Tensor, *u: Tensor) -> Tensor:
        dx: Tensor = self.field(t, x, *u)
        offset, pace = (b if b.dim() == 3 else b[0] for b in (self.offset, self.pace))
        half = x.shape[-1] // 2
        return torch.cat((offset + pace * x[..., half:], dx[..., half:]), -1)
