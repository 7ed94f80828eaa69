"""Means of what is measured at every step and logged every few."""

from __future__ import annotations

from neuralode_exp.ode import Stats


class Meter:
    """Sums and counts by tag since the last log."""

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}

    def add(self, tag: str, value: float) -> None:
        total = self.sums.setdefault(tag, [0.0, 0.0])
        total[0] += value
        total[1] += 1.0

    def add_stats(self, stats: Stats) -> None:
        self.add("nfe/forward", stats.nfe_forward)
        self.add("nfe/backward", stats.nfe_backward)
        self.add("solver/accepted", stats.accepted)
        self.add("solver/rejected", stats.rejected)

    def means_and_reset(self) -> dict[str, float]:
        means = {tag: total / count for tag, (total, count) in self.sums.items()}
        self.sums = {}
        return means

    def state(self) -> dict[str, list[float]]:
        return {tag: list(total) for tag, total in self.sums.items()}

    def restore(self, state: dict[str, list[float]]) -> None:
        self.sums = {tag: list(total) for tag, total in state.items()}
