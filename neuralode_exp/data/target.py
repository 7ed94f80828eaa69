"""The target of a flow: a source of points in R^d, with their density if it is known."""

from abc import ABC, abstractmethod
from typing import final

import torch
from torch import Tensor

# A Gaussian has 5.7e-7 of its mass outside of 5 standard deviations.
TAIL = 5.0


class Target(ABC):
    """A distribution on R^d, scaled so that a flow from a standard normal base can learn it.

    Attributes:
        dim: dimension d.
        box: lowest and highest coordinates, shape (2, d), float64. About 1e-6 of the mass is outside.
        offset, unit: offset + unit * x converts samples to the user's units, shape (d,), float64. The log-density is
            lower there by sum(log(unit)), and a KL divergence is the same.
    """

    dim: int
    box: Tensor
    offset: Tensor
    unit: Tensor

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
        """Draw n points, shape (n, d), on the generator's device.

        Points are drawn in float64 and rounded, so that they are the same for every dtype.
        """

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor | None:
        """Evaluate the exact log-density in nats.

        Args:
            x: points, shape (n, d). They are converted to float64.

        Returns:
            The log-density, shape (n,), float64, -inf outside the support; None if the density is not known.
        """


class Density(Target):
    """A target with an exact sampler. Every sample is a new draw."""

    def __init__(self, box: Tensor) -> None:
        self.box = box
        self.dim = box.shape[1]
        self.offset = torch.zeros(self.dim, dtype=torch.float64)
        self.unit = torch.ones(self.dim, dtype=torch.float64)

    @final
    def sample(self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
        return self._draw(n, generator).to(dtype)

    @abstractmethod
    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n points, shape (n, d), float64."""


def centred_box(*half_widths: float) -> Tensor:
    """Return the box of the given half widths around the origin, shape (2, d), float64."""
    high = torch.tensor(half_widths, dtype=torch.float64)
    return torch.stack((-high, high))


def as_points(x: Tensor, dim: int) -> Tensor:
    """Return x in float64, after checking that its shape is (n, dim)."""
    if x.ndim != 2 or x.shape[1] != dim:
        raise ValueError(f"points of this density must have shape (n, {dim}), got {tuple(x.shape)}")
    return x.double()


def normal(n: int, dim: int, generator: torch.Generator) -> Tensor:
    """Draw standard normal points, shape (n, dim), float64."""
    return torch.randn(n, dim, generator=generator, device=generator.device, dtype=torch.float64)


def uniform(n: int, dim: int, generator: torch.Generator) -> Tensor:
    """Draw points of the unit cube, shape (n, dim), float64."""
    return torch.rand(n, dim, generator=generator, device=generator.device, dtype=torch.float64)


def choices(k: int, n: int, generator: torch.Generator) -> Tensor:
    """Draw n integers below k, shape (n,)."""
    return torch.randint(k, (n,), generator=generator, device=generator.device)
