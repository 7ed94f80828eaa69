"""Observation times and stops, checked once and then kept as float64 numbers on the host."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def check_times(t: Tensor | Sequence[float]) -> list[float]:
    """Return the observation times as numbers.

    Raises:
        ValueError: they are not strictly increasing or decreasing, or not finite.
    """
    if isinstance(t, Tensor) and not t.is_floating_point():
        raise ValueError(f"`t` must be floating point, got {str(t.dtype).removeprefix('torch.')}; use t.double()")
    if isinstance(t, Tensor) and t.dim() != 1:
        raise ValueError(f"`t` must have one dimension, got shape {tuple(t.shape)}; use t.flatten()")
    times = t.tolist() if isinstance(t, Tensor) else _numbers("t", t, "pass one tensor, torch.stack(...)")
    if not times:
        raise ValueError("`t` must hold at least one time, got none")
    for i, x in enumerate(times):
        if not math.isfinite(x):
            raise ValueError(f"`t` must be finite, got t[{i}]={x}")
    increasing = len(times) < 2 or times[1] > times[0]
    for i, (x, y) in enumerate(zip(times, times[1:], strict=False), start=1):
        if x == y or (y > x) is not increasing:
            raise ValueError(
                f"`t` must be strictly increasing or decreasing, got t[{i}]={y:g} after {x:g}; "
                "sort the times and drop repeats"
            )
    return times


def _numbers(name: str, times: Iterable[float] | Tensor, fix: str) -> list[float]:
    """Return the numbers of a list, an array or a tensor without a gradient."""
    if not isinstance(times, Iterable) or getattr(times, "ndim", 1) == 0:
        raise ValueError(f"`{name}` must be a list of numbers, got {times!r}; put it in brackets")
    numbers = list(times)
    for i, x in enumerate(numbers):
        if isinstance(x, Tensor) and x.requires_grad:
            raise ValueError(f"`{name}` must hold numbers, got {name}[{i}], a tensor that requires a gradient; {fix}")
    return [float(x) for x in numbers]


class Stops:
    """The times at which f jumps, rounded to the precision in which f gets t.

    In that precision an observation may coincide with a stop.

    Args:
        stops: times in any order; those outside the interval are ignored.
        times: observation times.
        dtype: precision of the state and of the t that f gets.

    Raises:
        ValueError: a stop is not a finite number.
    """

    def __init__(self, stops: Iterable[float] | Tensor, times: Sequence[float], dtype: torch.dtype) -> None:
        stops = _numbers("stops", stops, "detach it")
        for i, stop in enumerate(stops):
            if not math.isfinite(stop):
                raise ValueError(f"`stops` must be finite, got stops[{i}]={stop}")
        self.dtype = dtype
        self.sign = 1 if times[-1] > times[0] else -1
        low, high = min(times), max(times)
        ends = (self._rounded(low), self._rounded(high)) if stops else ()
        self._stops = frozenset(
            self._rounded(stop) for stop in stops if low <= stop <= high or self._rounded(stop) in ends
        )
        observed = {self._rounded(t) for t in times} if self._stops else set()
        self.between = tuple(stop for stop in self._stops if stop not in observed and low < stop < high)

    def over(self, times: Sequence[float]) -> Stops:
        """Return the same stops for other observation times."""
        return Stops(tuple(self._stops), times, self.dtype)

    def __bool__(self) -> bool:
        return bool(self._stops)

    def __contains__(self, t: float) -> bool:
        return bool(self._stops) and self._rounded(t) in self._stops

    def beside(self, t: float, side: int) -> float:
        """Return t; at a stop, the next number after it (side 1) or before it (-1) in the direction of the solve."""
        if t not in self:
            return t
        at = torch.tensor([t, side * self.sign * math.inf], dtype=self.dtype)
        return float(torch.nextafter(at[0], at[1]))

    def _rounded(self, t: float) -> float:
        return float(torch.tensor(t, dtype=self.dtype))
