"""Collect what is measured at every step: means since the last log, and summaries of the whole run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from neuralode_exp.ode import Stats

LAST = 10  # costs of the trained model are means over the last tenth of the steps


class Meter:
    """Values by tag: sums and counts since the last log, and for some tags all values of the run."""

    OF_RUN = ("time/step_ms", "nfe/forward", "nfe/backward", "solver/accepted", "solver/rejected")

    def __init__(self) -> None:
        self.sums: dict[str, list[float]] = {}
        self.values: dict[str, list[float]] = {tag: [] for tag in self.OF_RUN}

    def add(self, tag: str, value: float) -> None:
        total = self.sums.setdefault(tag, [0.0, 0.0])
        total[0] += value
        total[1] += 1.0
        if tag in self.values:
            self.values[tag].append(float(value))

    def add_solves(self, solves: Sequence[Stats]) -> None:
        """Add the total cost of the solves of one step, including solves that failed and were repeated.

        SciPy's methods do not report their steps, and a network without a solver has none. Then no tag is added.
        """
        self.add("nfe/forward", sum(stats.nfe_forward for stats in solves))
        self.add("nfe/backward", sum(stats.nfe_backward for stats in solves))
        if any(stats.trials for stats in solves):
            self.add("solver/accepted", sum(stats.accepted for stats in solves))
            self.add("solver/rejected", sum(stats.rejected for stats in solves))
        if solves and solves[-1].stored_states is not None:
            self.add("solver/stored_states", solves[-1].stored_states)
            self.add("solver/reconstruction", solves[-1].reconstruction or 0.0)

    def means_and_reset(self) -> dict[str, float]:
        means = {tag: total / count for tag, (total, count) in self.sums.items()}
        self.sums = {}
        return means

    def of_run(self) -> dict[str, float]:
        """Return the median time of a step, and the mean costs over the last tenth of the steps."""
        found = {tag: values for tag, values in self.values.items() if values}
        return {
            tag: statistics.median(values)
            if tag == "time/step_ms"
            else statistics.fmean(values[-max(1, len(values) // LAST) :])
            for tag, values in found.items()
        }

    def state(self) -> dict[str, Any]:
        return {
            "sums": {tag: list(total) for tag, total in self.sums.items()},
            "values": {tag: torch.tensor(values, dtype=torch.float64) for tag, values in self.values.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned. Checkpoints of earlier versions hold only the sums."""
        self.sums = {tag: list(total) for tag, total in state.get("sums", state).items()}
        values: Mapping[str, Tensor] = state.get("values", {})
        self.values |= {tag: of_tag.tolist() for tag, of_tag in values.items()}
