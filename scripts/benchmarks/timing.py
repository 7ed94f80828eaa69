"""Timings that can be compared on a machine whose speed changes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Ratio(NamedTuple):
    """Median and quartiles of the ratios of paired times."""

    median: float
    quartiles: tuple[float, float]


def interleaved(tasks: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each task in each round, after one round that is not counted.

    In a round every task runs once, in both orders alternately. So a change of the machine (its clock, its temperature,
    its other users) affects all tasks.
    """
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for i in range(rounds + 1):
        for name in list(tasks) if i % 2 else reversed(list(tasks)):
            start = time.perf_counter()
            tasks[name]()
            if i > 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(numerator: list[float], denominator: list[float]) -> Ratio:
    """Return median and quartiles of the ratios within the rounds; rounds differ more than tasks do."""
    ratios = [a / b for a, b in zip(numerator, denominator, strict=True)]
    low, median, high = statistics.quantiles(ratios, n=4, method="inclusive") if len(ratios) > 1 else ratios * 3
    return Ratio(median, (low, high))
