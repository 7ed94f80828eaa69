"""Inputs u(t) of driven systems dz/dt = f(t, z, u(t)), interpolated between samples."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

HELD_FOR = 5  # observations for which a random input stays the same
READINGS = ("hold", "linear", "cubic")


def coefficients(t: Tensor, u: Tensor, reading: str) -> Tensor:
    """Return the coefficients of u = sum_k c_k x^k between samples, x = (s - t_i) / (t_{i+1} - t_i).

    `hold` keeps u_i until t_{i+1}, and `linear` interpolates linearly. `cubic` is the Hermite cubic whose slope at each
    sample is the slope from the sample before, so that it does not use later samples (Morrill et al. 2021, arXiv
    2106.11028, Sec. 4).

    Args:
        t: times, shape (T,).
        u: samples, shape (T, ..., m).
        reading: `hold`, `linear` or `cubic`.

    Returns:
        The c_k, shape (T - 1, 1 or 2 or 4, ..., m).

    Raises:
        ValueError: `reading` is unknown.
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
    start = dt * torch.cat((slope[:1], slope[:-1]))  # slope in x, which runs from 0 to 1
    return torch.stack((u[:-1], start, 2 * (step - start), start - step), 1)


@dataclass(frozen=True, eq=False)
class Input:
    """A piecewise polynomial input u(t).

    Args:
        knots: the increasing times t_i.
        pieces: result of `coefficients`, shape (len(knots) - 1, degree + 1, ..., m).
    """

    knots: Sequence[float]
    pieces: Tensor

    @staticmethod
    def of(t: Tensor, u: Tensor, reading: str) -> Input:
        """Return the input for samples u, shape (T, ..., m), at increasing times t, shape (T,).

        Raises:
            ValueError: the times do not increase, or u has not one sample for each.
        """
        if len(u) != len(t):
            raise ValueError(f"`u` must have a sample for each of the {len(t)} times, got {len(u)}")
        knots = t.tolist()
        for i, (before, after) in enumerate(itertools.pairwise(knots), start=1):
            if not after > before:
                rule = "`t` must increase where inputs are read"
                raise ValueError(f"{rule}, got t[{i}]={after:g} after {before:g}; sort the times and their samples")
        return Input(knots, coefficients(t, u, reading))

    @property
    def stops(self) -> Sequence[float]:
        """The times at which the input jumps."""
        return self.knots[1:-1] if self.pieces.shape[1] == 1 else ()

    def __call__(self, t: Tensor | float) -> Tensor:
        """Return u(t), shape (..., m)."""
        i = min(max(bisect_right(self.knots, float(t)) - 1, 0), len(self.pieces) - 1)
        x = (float(t) - self.knots[i]) / (self.knots[i + 1] - self.knots[i])
        *lower, value = self.pieces[i].unbind(0)
        for c in reversed(lower):
            value = c + x * value
        return value


def random_samples(n: int, points: int, ranges: Sequence[tuple[float, float]], generator: torch.Generator) -> Tensor:
    """Draw uniform inputs of n trajectories, new ones every five observations: shape (points, n, m), float64."""
    low, high = torch.tensor(ranges, dtype=torch.float64).T
    draws = torch.rand(-(-points // HELD_FOR), n, len(low), generator=generator, dtype=torch.float64)
    return (low + (high - low) * draws).repeat_interleave(HELD_FOR, 0)[:points]
