"""A density that is known by its sampler, and by its log-density where there is one."""

from typing import Any, final

import torch
from torch import Tensor

from neuralode_exp.data.target import Density, as_points

DRAWS = 20_000  # of which the box is made
MARGIN = 0.05  # of the box beyond the outermost of them, on each side


@final
class Sampled(Density):
    """A density as a flow's target, of any object with `sample(n, generator)`, shape (n, d), and maybe `log_prob(x)`.

    The box is that of 20,000 draws and a twentieth of its size around it.
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
