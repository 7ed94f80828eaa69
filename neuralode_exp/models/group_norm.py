"""Group normalisation (arXiv 1803.08494) of states that are space first and batch last (see `frequency_conv`)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def group_norm(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """Apply `norm` to a contiguous x of shape (space, C, B), where torch's own wants (B, C, space):

        y = (x - mean) / sqrt(var + eps) * weight + bias,

    with mean and variance over space and the channels of a group, for each sample. Differentiable once.
    """
    y: Tensor = _GroupNorm.apply(x, norm.weight, norm.bias, norm.num_groups, norm.eps)
    return y


class _GroupNorm(torch.autograd.Function):
    """On x as (space, group, member, batch). By hand, because autograd's backward reads x three times as often."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        space, channels, batch = x.shape
        ctx.shape = (space, groups, channels // groups, batch)
        x_g = x.view(ctx.shape)
        mean = _group_mean(x_g.sum(0), space)
        centred = x_g - mean
        # Not E[x^2] - mean^2, which loses the digits that a large mean takes.
        rstd = (_group_mean(centred.square().sum(0), space) + eps).rsqrt()
        y = torch.empty_like(x)
        scale = rstd * weight.view(groups, -1, 1)
        torch.addcmul(bias.view(groups, -1, 1), centred, scale, out=y.view(ctx.shape))
        ctx.save_for_backward(x, mean, rstd, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, adj_y: Tensor) -> tuple[Tensor | None, ...]:
        x, mean, rstd, weight = ctx.saved_tensors
        space, groups, _, _ = ctx.shape
        x_g, adj, w = x.view(ctx.shape), adj_y.contiguous().view(ctx.shape), weight.view(groups, -1, 1)
        # Sums over space of the cotangent, alone and times the normalised x: (group, member, batch).
        adj_1 = adj.sum(0)
        adj_x = ((adj * x_g).sum(0) - mean * adj_1) * rstd
        # dx = rstd (w adj - mean(w adj) - x_normalised mean(w adj x_normalised)), linear in adj and in x.
        slope = -rstd.square() * _group_mean(w * adj_x, space)
        offset = -rstd * _group_mean(w * adj_1, space) - mean * slope
        dx = torch.addcmul(offset, adj, rstd * w).addcmul_(x_g, slope)
        return dx.view(x.shape), adj_x.sum(2).flatten(), adj_1.sum(2).flatten(), None, None


def _group_mean(space_sum: Tensor, space: int) -> Tensor:
    """Mean over space and the members of a group from sums over space: (group, 1, batch)."""
    # In two stages, because one reduction over two separated dimensions is ten times as slow.
    return space_sum.mean(1, keepdim=True) / space
