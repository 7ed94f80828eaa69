"""Target densities in the plane, in space and in any dimension, with exact samplers and exact log-densities.

The shapes are those of FFJORD (https://arxiv.org/abs/1810.01367, `toy_data.py` of its code) in our own sizes.
`make_density(name, **scales)` makes a density by its name.
"""

import math
from collections.abc import Mapping
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from neuralode_exp.data import named_densities as named_densities  # the import registers them
from neuralode_exp.data.numbers import complete
from neuralode_exp.data.sampled import Sampled
from neuralode_exp.data.target import (
    TAIL,
    Density,
    Target,
    as_points,
    centred_box,
    choices,
    normal,
    uniform,
)
from neuralode_exp.registry import Registered, own


@final
class TwoCircles(Density):
    """Two concentric circles with isotropic Gaussian noise, half of the mass on each.

    The mean of N(x; c, noise^2 I) over the c of one circle is, with rho = |x|,

        exp(-(rho - radius)^2 / (2 noise^2)) i0e(rho radius / noise^2) / (2 pi noise^2),

    where i0e(y) = exp(-|y|) I_0(y), I_0 the modified Bessel function, neither overflows nor underflows.

    Args:
        inner, outer: radii of the circles.
        noise: standard deviation of the noise in each coordinate.
    """

    def __init__(self, inner: float, outer: float, noise: float) -> None:
        self.radii = torch.tensor([inner, outer], dtype=torch.float64)
        self.noise = noise
        super().__init__(centred_box(*[max(inner, outer) + TAIL * noise] * 2))

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        radius = self.radii.to(generator.device)[choices(2, n, generator), None]
        angle = 2 * math.pi * uniform(n, 1, generator)
        circle = radius * torch.cat((angle.cos(), angle.sin()), 1)
        return circle + self.noise * normal(n, 2, generator)

    def log_prob(self, x: Tensor) -> Tensor:
        rho = as_points(x, 2).norm(dim=1, keepdim=True)
        radii, variance = self.radii.to(x.device), self.noise**2
        ring = -(rho - radii).square() / (2 * variance) + torch.special.i0e(rho * radii / variance).log()
        return ring.logsumexp(1) - math.log(2 * 2 * math.pi * variance)


@final
class TwoMoons(Density):
    """Two interleaved half circles with isotropic Gaussian noise, half of the mass on each.

    One arc is c(s) = radius (cos s - 1/2, sin s - 1/4), 0 <= s <= pi, the other one is -c(s). Hence
    p(x) = (q(x) + q(-x)) / 2 with q(x) = (1 / pi) int_0^pi N(x; c(s), noise^2 I) ds. The integrand is a bump
    about noise / radius wide; panels of about pi times that width with 16 Gauss-Legendre nodes each give the
    log-density with an error of 1e-9 within ten standard deviations of the arcs.

    Args:
        radius: radius of the arcs.
        noise: standard deviation of the noise in each coordinate.
    """

    def __init__(self, radius: float, noise: float) -> None:
        self.radius = radius
        self.noise = noise
        super().__init__(centred_box(1.5 * radius + TAIL * noise, 0.75 * radius + TAIL * noise))
        panels = math.ceil(radius / noise)
        nodes, weights = np.polynomial.legendre.leggauss(16)
        s = math.pi / panels * (np.arange(panels)[:, None] + (nodes + 1) / 2)
        self._nodes = self._arc(torch.from_numpy(s.reshape(-1, 1)))
        self._log_weights = torch.from_numpy(np.tile(weights / (2 * panels), panels)).log()

    def _arc(self, s: Tensor) -> Tensor:
        return self.radius * torch.cat((s.cos() - 0.5, s.sin() - 0.25), 1)

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        sign = 2 * choices(2, n, generator)[:, None] - 1
        arc = self._arc(math.pi * uniform(n, 1, generator))
        return sign * arc + self.noise * normal(n, 2, generator)

    def log_prob(self, x: Tensor) -> Tensor:
        x = as_points(x, 2)
        both = torch.stack((self._log_arc(x), self._log_arc(-x)))
        return both.logsumexp(0) - math.log(2 * 2 * math.pi * self.noise**2)

    def _log_arc(self, x: Tensor) -> Tensor:
        nodes, log_weights = self._nodes.to(x.device), self._log_weights.to(x.device)
        # Points are taken in parts of 4,096: the grid of a picture has 100,000 points, and each needs all nodes.
        squares = ((part[:, None, :] - nodes).square().sum(-1) for part in x.split(4096))
        return torch.cat([(log_weights - part / (2 * self.noise**2)).logsumexp(1) for part in squares])


@final
class Pinwheel(Density):
    """Gaussians on a circle, elongated along the radius and twisted into a pinwheel.

    u ~ N((radius, 0), diag(radial_std^2, tangential_std^2)) is turned by the angle

        2 pi k / arms + rate exp(|u| / radius), where k is a random arm.

    A rotation by an angle that depends only on |u| preserves |u| and areas (|det| = 1). Hence p(x) = mean_k N(u_k(x)),
    where u_k inverts the rotation of arm k. FFJORD uses the first coordinate of u instead of |u|. That differs little,
    but the map is not one-to-one and has no closed inverse.

    Args:
        arms: number of arms.
        radius, radial_std, tangential_std: mean radius and standard deviations of the Gaussian u.
        rate: strength of the twist in radians. A negative rate twists the other way.
    """

    def __init__(self, arms: int, radius: float, radial_std: float, tangential_std: float, rate: float) -> None:
        self.arms = arms
        self.radius = radius
        self.rate = rate
        self._mean = torch.tensor([radius, 0.0], dtype=torch.float64)
        self._std = torch.tensor([radial_std, tangential_std], dtype=torch.float64)
        super().__init__(centred_box(*[math.hypot(radius + TAIL * radial_std, TAIL * tangential_std)] * 2))

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        mean, std = self._mean.to(generator.device), self._std.to(generator.device)
        u = mean + std * normal(n, 2, generator)
        return self.twist(u, choices(self.arms, n, generator))

    def log_prob(self, x: Tensor) -> Tensor:
        x = as_points(x, 2)[:, None, :]
        u = _turn(x, -self._angle(x, torch.arange(self.arms, device=x.device)))
        squares = ((u - self._mean.to(x.device)) / self._std.to(x.device)).square().sum(-1)
        log_scale = math.log(self.arms) + math.log(2 * math.pi) + self._std.log().sum().item()
        return (-squares / 2).logsumexp(1) - log_scale

    def twist(self, u: Tensor, k: Tensor) -> Tensor:
        """Rotate u, shape (..., 2), into arm k."""
        return _turn(u, self._angle(u, k))

    def _angle(self, u: Tensor, k: Tensor) -> Tensor:
        return (2 * math.pi / self.arms) * k.to(u.dtype) + self.rate * (u.norm(dim=-1) / self.radius).exp()


@final
class Checkerboard(Density):
    """Uniform on the 8 black squares of a board of 4 x 4 squares around the origin.

    Args:
        side: side of one square.
    """

    def __init__(self, side: float) -> None:
        self.side = side
        super().__init__(centred_box(2 * side, 2 * side))

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        row, pair = choices(4, n, generator), choices(2, n, generator)
        corner = torch.stack((2 * pair + row % 2, row), 1) - 2
        # Points keep 1e-6 of a side away from the edges, or float32 would round some to a square where p = 0.
        inside = 1e-6 + (1 - 2e-6) * uniform(n, 2, generator)
        return self.side * (corner + inside)

    def log_prob(self, x: Tensor) -> Tensor:
        square = (as_points(x, 2) / self.side).floor()
        on_board = (square >= -2).all(1) & (square < 2).all(1)
        black = square.sum(1) % 2 == 0
        return torch.full_like(square[:, 0], -math.log(8 * self.side**2)).where(on_board & black, -math.inf)


@final
class Torus(Density):
    """Uniform on the surface of a torus, with isotropic Gaussian noise. Its density is not known.

    Args:
        major: radius of the circle around which the tube runs.
        minor: radius of the tube, below `major`.
        noise: standard deviation of the noise in each coordinate.
    """

    def __init__(self, major: float, minor: float, noise: float) -> None:
        if not minor < major:
            raise ValueError(f"`minor` must be below `major`, got {minor} and {major}")
        self.major = major
        self.minor = minor
        self.noise = noise
        reach, height = major + minor + TAIL * noise, minor + TAIL * noise
        super().__init__(centred_box(reach, reach, height))

    def _draw(self, n: int, generator: torch.Generator) -> Tensor:
        around, tube, chance = uniform(n, 3, generator).split(1, 1)
        around, tube = 2 * math.pi * around, 2 * math.pi * tube
        # The area element is (1 + q cos(tube)) with q = minor / major. A uniform angle that is kept with probability
        # (1 + q cos(tube)) / 2, and replaced by pi - tube otherwise, has this density without repeated draws.
        kept = 2 * chance < 1 + self.minor / self.major * tube.cos()
        tube = torch.where(kept, tube, math.pi - tube)
        rho = self.major + self.minor * tube.cos()
        surface = torch.cat((rho * around.cos(), rho * around.sin(), self.minor * tube.sin()), 1)
        return surface + self.noise * normal(n, 3, generator)

    def log_prob(self, x: Tensor) -> None:
        as_points(x, 3)


def make_density(name: str, **scales: Any) -> Target:
    """Return the package's density with this name. `scales` replace its defaults.

    Raises:
        ValueError: the name or a scale is unknown, or a scale is out of range.
    """
    return known_density(own("density", name), scales)


def known_density(entry: Registered, options: Mapping[str, Any]) -> Target:
    """Return the density of a registered class or function."""
    made = entry.make(**complete(entry, options))
    return made if isinstance(made, Target) else Sampled(made)


def _turn(u: Tensor, angle: Tensor) -> Tensor:
    cos, sin = angle.cos(), angle.sin()
    return torch.stack((cos * u[..., 0] - sin * u[..., 1], sin * u[..., 0] + cos * u[..., 1]), -1)
