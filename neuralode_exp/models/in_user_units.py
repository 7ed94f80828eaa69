"""A trained flow in the units of the table that it was trained on."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from neuralode_exp.data.observed import Scale


@final
class InUserUnits(nn.Module):
    """z0 (..., d) and times t (T,) to z(t), shape (T, ..., d) in float64: offset + unit * flow((z0 - offset) / unit).

    The flow sees times from t[0] on, in steps of the table.
    """

    offset: Tensor
    unit: Tensor

    def __init__(self, flow: nn.Module, scale: Scale) -> None:
        super().__init__()
        self.flow, self.step = flow, scale.step
        self.register_buffer("offset", scale.offset)
        self.register_buffer("unit", scale.unit)

    def forward(self, z0: Tensor, t: Tensor) -> Tensor:
        if z0.shape[-1:] != self.unit.shape:
            raise ValueError(f"states must have the shape (batch, {len(self.unit)}), got {tuple(z0.shape)}")
        dtype = next(self.flow.parameters()).dtype
        x0 = ((z0.to(self.offset) - self.offset) / self.unit).to(dtype)
        x: Tensor = self.flow(x0, (t - t[0]).to(self.offset) / self.step)
        return self.offset + self.unit * x.to(torch.float64)
