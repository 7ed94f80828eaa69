"""A penalty on the curvature of a field, a prior for fields that are learned from few observations.

Its weight, scaled by `trainer.curvature`, falls with the number of observations, as for any prior. With few
observations the field stays nearly affine between and beyond them. With many it follows them closely.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from neuralode_exp.models.fields.scaled import Scaled
from neuralode_exp.models.replicas import Replicas

POINTS = 128
REACH = 0.3  # step h of the second difference, in units of the states' scale
BEYOND = 0.25  # margin of the box around the data, relative to their range
FEW = 16  # up to so many observations the weight is 1


def weight_for(observations: int) -> float:
    """Return the weight of the curvature for a number of observations."""
    return min(1.0, (FEW / observations) ** 2)


def curvature(field: Scaled, z: Tensor, generators: Sequence[torch.Generator], replicas: Replicas) -> Tensor:
    """Return the mean square of the field's second derivative along random directions near the data.

    It is mean |(g(x + h v) - 2 g(x) + g(x - h v)) / h^2|^2, where g is the inner field on scaled states x of order 1,
    and v has length 1. It is 0 for an affine field.

    Args:
        field: the field of one network or of replicas.
        z: the data, shape (M, d).
        generators: a random generator for the points of each replica.
        replicas: the networks of the field.

    Returns:
        A scalar, or for replicas shape (R,).
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
