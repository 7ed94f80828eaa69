"""Gaussian targets: mixtures of isotropic Gaussians, and a correlated Gaussian in any dimension."""

import math
from typing import final

import torch
from torch import Tensor

from neuralode_exp.data.target import TAIL, Density, as_points, centred_box, choices, normal


@final
class GaussianMixture(Density):
    """Equal mixture of isotropic Gaussians, p(x) = mean_k N(x; mu_k, std^2 I).

    Args:
        means: the mu_k, shape (k, d).
        std: standard deviation of each component.
    """

    def __init__(self, means: Tensor, std: float) -> None:
        self.means = means.double()
        self.std = std
        super().__init__(torch.stack((self.means.amin(0) - TAIL * std, self.means.amax(0) + TAIL * std)))

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        k = choices(len(self.means), n, generator)
        return self.means.to(generator.device)[k] + self.std * normal(n, self.dim, generator)

    def log_prob(self, x: Tensor) -> Tensor:
        x = as_points(x, self.dim)
        squares = (x[:, None, :] - self.means.to(x.device)).square().sum(-1)
        log_scale = math.log(len(self.means)) + self.dim / 2 * math.log(2 * math.pi * self.std**2)
        return (-squares / (2 * self.std**2)).logsumexp(1) - log_scale


def eight_gaussians(radius: float, std: float) -> GaussianMixture:
    """Build eight Gaussians, evenly spaced on a circle."""
    angle = torch.arange(8, dtype=torch.float64) * (math.pi / 4)
    return GaussianMixture(radius * torch.stack((angle.cos(), angle.sin()), 1), std)


def gaussians_3d(half_side: float, std: float) -> GaussianMixture:
    """Build eight Gaussians in space, at the corners (+-half_side, +-half_side, +-half_side) of a cube."""
    ends = torch.tensor([-half_side, half_side], dtype=torch.float64)
    return GaussianMixture(torch.cartesian_prod(ends, ends, ends), std)


@final
class Gaussian(Density):
    """A Gaussian in d dimensions whose neighbouring coordinates are correlated: N(x; 0, Sigma), Sigma_ij = r^|i-j|.

    The coordinates form a chain, x_1 ~ N(0, 1) and x_i ~ N(r x_{i-1}, 1 - r^2), so that samples and log-density take
    O(d) operations. With r = 1/2 the eigenvalues of Sigma are between 1/3 and 3 in any dimension.

    Args:
        dim: dimension d.
    """

    CORRELATION = 0.5

    def __init__(self, dim: int) -> None:
        super().__init__(centred_box(*[TAIL] * dim))

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        x = normal(n, self.dim, generator)
        for i in range(1, self.dim):
            x[:, i].mul_((1 - self.CORRELATION**2) ** 0.5).add_(x[:, i - 1], alpha=self.CORRELATION)
        return x

    def log_prob(self, x: Tensor) -> Tensor:
        x = as_points(x, self.dim)
        variance = 1 - self.CORRELATION**2
        steps = (x[:, 1:] - self.CORRELATION * x[:, :-1]).square().sum(1) / variance
        log_scale = self.dim * math.log(2 * math.pi) + (self.dim - 1) * math.log(variance)
        return -(x[:, 0].square() + steps + log_scale) / 2
