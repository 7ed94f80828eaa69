"""A density that is given by a sampler and, if it is known, a log-density."""

from typing import Any, final

import torch
from torch import Tensor

from neuralode_exp.data.target import Density, as_points

DRAWS = 20_000  # samples that determine the box
MARGIN = 0.05  # margin on each side of the box, in units of its size


@final
class Sampled(Density):
    """A target from any object with `sample(n, generator)`, which returns shape (n, d), and maybe `log_prob(x)`.

    The box contains 20,000 samples, with a margin of a twentieth of its size on each side.
    """

    def __init__(self, density: Any) -> None:
        self.density = density
        drawn = density.sample(DRAWS, torch.Generator().manual_seed(0)).double()
        low, high = drawn.amin(0), drawn.amax(0)
        margin = MARGIN * (high - low)
        super().__init__(torch.stack((low - margin, high + margin)))

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        points: Tensor = self.density.sample(n, generator)
        return points.double()

    def log_prob(self, x: Tensor) -> Tensor | None:
        x = as_points(x, self.dim)
        return self.density.log_prob(x).double() if hasattr(self.density, "log_prob") else None
