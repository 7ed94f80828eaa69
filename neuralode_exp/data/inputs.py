"""Inputs u(t) of driven systems dz/dt = f(t, z, u(t)): samples, and how they are read between their times."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

HELD_FOR = 5  # observations, of a random input
READINGS = ("hold", "linear", "cubic")


def coefficients(t: Tensor, u: Tensor, reading: str) -> Tensor:
    """Polynomials in (s - t_i) / (t_{i+1} - t_i) between samples, u = sum_k c_k x^k.

    `hold` keeps u_i until t_{i+1}, `linear` joins the samples, `cubic` is the Hermite cubic whose slope at a sample is
    that from the sample before it: it knows nothing of later ones (Morrill et al. 2021, arXiv 2106.11028, Sec. 4).

    Args:
        t: times, shape (T,).
        u: samples, shape (T, ..., m).
        reading: `hold`, `linear` or `cubic`.

    Returns:
        shape (T - 1, 1, 2 or 4, ..., m).
    """
    if reading not in READINGS:
        raise ValueError(f"`input` must be one of {', '.join(READINGS)}, got {reading!r}")
    step = u.diff(dim=0)
    if reading == "hold":
        return u[:-1, None]
    if reading == "linear":
        return torch.stack((u[:-1], step), 1)
    dt = t.diff().to(u).view(-1, *[1] * (u.dim() - 1))
    slope = step / dt
    start = dt * torch.cat((slope[:1], slope[:-1]))  # times the interval, as x runs from 0 to 1
    return torch.stack((u[:-1], start, 2 * (step - start), start - step), 1)


@dataclass(frozen=True, eq=False)
class Input:
    """u(t), piecewise polynomial.

    Args:
        knots: the times t_i, increasing.
        pieces: from `coefficients`, shape (len(knots) - 1, degree + 1, ..., m).
    """

    knots: Sequence[float]
    pieces: Tensor

    @staticmethod
    def of(t: Tensor, u: Tensor, reading: str) -> Input:
        """The input of samples u, shape (T, ..., m), at times t, shape (T,)."""
        if len(u) != len(t):
            raise ValueError(f"`u` must have a sample for each of the {len(t)} times, got {len(u)}")
        return Input(t.tolist(), coefficients(t, u, reading))

    @property
    def stops(self) -> Sequence[float]:
        """Where it jumps."""
        return self.knots[1:-1] if self.pieces.shape[1] == 1 else ()

    def __call__(self, t: Tensor | float) -> Tensor:
        """u at time t, shape (..., m)."""
        i = min(max(bisect_right(self.knots, float(t)) - 1, 0), len(self.pieces) - 1)
        x = (float(t) - self.knots[i]) / (self.knots[i + 1] - self.knots[i])
        *lower, value = self.pieces[i].unbind(0)
        for c in reversed(lower):
            value = c + x * value
        return value


def random_samples(n: int, points: int, ranges: Sequence[tuple[float, float]], generator: torch.Generator) -> Tensor:
    """Uniform draws, a new one every five observations, of n trajectories: shape (points, n, m), float64."""
    low, high = torch.tensor(ranges, dtype=torch.float64).T
    draws = torch.rand(-(-points // HELD_FOR), n, len(low), generator=generator, dtype=torch.float64)
    return (low + (high - low) * draws).repeat_interleave(HELD_FOR, 0)[:points]
