"""The interface of all normalizing flows: a density on R^d by an invertible map from a standard normal."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuralode_exp.models.weights import first_weight
from neuralode_exp.ode import Stats

BASE, DATA = 0.0, 1.0


class DensityModel(nn.Module, ABC):
    """A density on R^d: a standard normal at t = 0, carried to t = 1 by an invertible map. Densities are in nats.

    Attributes:
        dim: d.
    """

    dim: int

    @property
    @abstractmethod
    def stats(self) -> Stats:
        """Evaluations and steps of the last call; backward adds its part."""

    @abstractmethod
    def to_base(self, x: Tensor) -> Tensor:
        """Map points (n, d) from data to base, without their density."""

    @abstractmethod
    def to_base_with_log_prob(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map points (n, d) from data to base, and evaluate their log-density, shape (n,)."""

    @abstractmethod
    def to_data_with_log_prob(self, z0: Tensor) -> tuple[Tensor, Tensor]:
        """Map points (n, d) from base to data, and evaluate their log-density there, shape (n,)."""

    @abstractmethod
    def on_the_way(self, z0: Tensor, times: Sequence[float]) -> Tensor:
        """Map points (n, d) from base to data and return them at each of the times in [0, 1], (len(times), n, d)."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Evaluate the log-density in nats, shape (n,), at x of shape (n, d). Gradients flow to x and the parameters.

        Raises:
            SolverError: if a solve cannot be finished.
        """
        if x.ndim != 2 or x.shape[1] != self.dim:
            raise ValueError(f"`x` must have shape (n, {self.dim}), got {tuple(x.shape)}")
        return self.to_base_with_log_prob(x)[1]

    def to_data(self, z0: Tensor) -> Tensor:
        """Map points (n, d) from base to data, the inverse of `to_base`."""
        return self.on_the_way(z0, [BASE, DATA])[-1]

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n points, shape (n, d)."""
        return self.to_data(self.base(n, generator))

    def sample_with_log_prob(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw n points, shape (n, d), and evaluate their log-density, shape (n,)."""
        return self.to_data_with_log_prob(self.base(n, generator))

    def path(self, n: int, times: Sequence[float], generator: torch.Generator) -> Tensor:
        """Draw n points and return them on their way from base to data.

        Args:
            times: increasing, from 0 (the base) up to at most 1 (the data).

        Returns:
            shape (len(times), n, d).
        """
        if not times or times[0] != BASE or times[-1] > DATA:
            raise ValueError(f"`times` must start at 0 and stay below or at 1, got {list(times)}")
        return self.on_the_way(self.base(n, generator), times)

    def base(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n points of the standard normal, shape (n, d)."""
        # Drawn in float64 and rounded, so that samples are the same in every precision.
        z0 = torch.randn(n, self.dim, generator=generator, device=generator.device, dtype=torch.float64)
        like = first_weight(self)
        return z0.to(torch.get_default_dtype() if like is None else like)


def log_normal(z: Tensor) -> Tensor:
    """Return log N(z; 0, I), shape (n,), for z of shape (n, d)."""
    return -z.square().sum(1) / 2 - z.shape[1] / 2 * math.log(2 * math.pi)
