"""How far a field is from affine: a prior for fields that few observations do not tell.

The weight that `trainer.curvature` gives it falls with the number of observations, as that of any prior: few leave a
field affine between and beyond them, many are followed wherever they bend.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from neuralode_exp.models.fields.scaled import Scaled
from neuralode_exp.models.replicas import Replicas

POINTS = 128
REACH = 0.3  # of the second difference, in units of the states' scale
BEYOND = 0.25  # how far around the data, relative to their range
FEW = 16  # observations that leave the weight at 1


def weight_for(observations: int) -> float:
    """Weight of the curvature for a number of observations."""
    return min(1.0, (FEW / observations) ** 2)


def curvature(field: Scaled, z: Tensor, generators: Sequence[torch.Generator], replicas: Replicas) -> Tensor:
    """Mean square of the field's second derivative along random directions, at random points of a box around the data.

    In units of the field: mean |(g(x + h v) - 2 g(x) + g(x - h v)) / h^2|^2, g the field's inner one on states x of
    order 1, v of length 1. It is 0 for an affine field.

    Args:
        field: of one network or of replicas.
        z: the data, shape (M, d).
        generators: of each replica's points.
        replicas: the networks of the field.

    Returns:
        A number, of replicas shape (R,).
    """
    x = (z - field.centre) / field.scale
    low, high = x.min(0).values, x.max(0).values
    around = BEYOND * (high - low)
    low, high = low - around, high + around
    shape = (POINTS, z.shape[1])
    where = replicas.join([torch.rand(shape, generator=g, dtype=z.dtype) for g in generators]).to(z.device)
    along = replicas.join([torch.randn(shape, generator=g, dtype=z.dtype) for g in generators]).to(z.device)
    x, h = low + (high - low) * where, REACH * along / torch.linalg.vector_norm(along, dim=-1, keepdim=True)
    ahead, here, behind = field.field(z.new_zeros(()), torch.cat([x + h, x, x - h], -2)).chunk(3, -2)
    return ((ahead - 2 * here + behind) / REACH**2).square().mean(dim=(-2, -1))
