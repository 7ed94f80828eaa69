"""A trained model of dynamics, in the units of the table that it was trained on."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from neuralode_exp.data.observed import Scale
from neuralode_exp.models.weights import first_weight


@final
class InUserUnits(nn.Module):
    """Maps z0 (..., d) and times t (T,) to z(t), shape (T, ..., d) in float64, all in the units of the table.

    The flow itself gets states in the units of the scale, and times since t[0] in steps of the table. Inputs u of shape
    (T, ..., m) are passed on as they are.
    """

    def __init__(self, flow: nn.Module, scale: Scale) -> None:
        super().__init__()
        self.flow, self.scale = flow, scale

    def forward(self, z0: Tensor, t: Tensor, u: Tensor | None = None) -> Tensor:
        if z0.shape[-1:] != self.scale.unit.shape:
            raise ValueError(f"states must have the shape (batch, {len(self.scale.unit)}), got {tuple(z0.shape)}")
        like = first_weight(self.flow)
        dtype = torch.get_default_dtype() if like is None else like.dtype
        inputs = {} if u is None else {"u": u.to(dtype)}
        x: Tensor = self.flow(self.scale.inward(z0).to(dtype), (t - t[0]).double() / self.scale.step, **inputs)
        return self.scale.outward(x)
