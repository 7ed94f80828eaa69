"""Groups of runs that differ in their seed alone: keys, counts, mean and standard deviation."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from neuralode_exp.config.errors import ConfigError, Mistake, spell, suggest
from neuralode_exp.report.runs import Run

SEED = "seed"
DEVICE = "device"
FIRST = ("dataset", "model", "solver")  # the keys of the first columns
UNREAD = "-"  # shown where a run does not have the key


@dataclass(frozen=True)
class Statistic:
    """Mean and sample standard deviation (divisor n - 1) of n values; one value has no deviation."""

    n: int
    mean: float
    std: float | None

    @staticmethod
    def of(values: Sequence[float]) -> Statistic | None:
        """Return None for no values. If a value is not finite, the mean is not finite and there is no deviation."""
        if not values:
            return None
        if not all(map(math.isfinite, values)):
            return Statistic(len(values), sum(values), None)
        # `stdev` is exact, so equal values have the deviation 0 whatever the rounding of their mean.
        deviation = statistics.stdev(values) if len(values) > 1 else None
        return Statistic(len(values), statistics.fmean(values), deviation)


@dataclass(frozen=True)
class Group:
    """Runs with the same values of the keys."""

    values: tuple[str, ...]
    runs: tuple[Run, ...]

    @property
    def completed(self) -> list[Run]:
        return [run for run in self.runs if run.completed]

    @property
    def count(self) -> str:
        """The number of runs, as `5` or `3 of 5 (1 failed, 1 killed)`; only completed runs enter a mean."""
        others = Counter(run.status for run in self.runs if not run.completed)
        if not others:
            return str(len(self.runs))
        named = ", ".join(f"{n} {status}" for status, n in sorted(others.items()))
        return f"{len(self.completed)} of {len(self.runs)} ({named})"

    def statistic(self, tag: str) -> Statistic | None:
        """Return mean and deviation of a metric over the completed runs that have it."""
        return Statistic.of([run.metrics[tag] for run in self.completed if tag in run.metrics])

    @property
    def objective(self) -> float:
        """Mean objective of the completed runs; infinity without any."""
        values = [run.objective for run in self.completed if run.objective is not None]
        return math.fsum(values) / len(values) if values else math.inf


def group_runs(runs: Iterable[Run], keys: Sequence[str]) -> list[Group]:
    """Group runs by the values of keys, in the order of these values."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    order: dict[tuple[str, ...], list[tuple[bool, float, str]]] = {}
    for run in runs:
        values = tuple(value_of(run, key) for key in keys)
        groups.setdefault(values, []).append(run)
        order.setdefault(values, [_rank(run.settings.get(key)) for key in keys])
    return [Group(values, tuple(groups[values])) for values in sorted(groups, key=lambda values: order[values])]


def default_keys(runs: Sequence[Run]) -> list[str]:
    """Return the keys in which the runs differ, without the seed and without keys that earlier ones determine.

    A dataset sets defaults of its trainer, for example. So beside `dataset` the key `trainer.lr` is returned only if it
    differs within a dataset.
    """
    known = [run for run in runs if run.settings]
    keys: list[str] = []
    for key in dict.fromkeys([*FIRST, *(key for run in known for key in run.settings)]):
        # A run that never started has no device; that must not make a group of its own.
        compared = [run for run in known if key in run.settings] if key == DEVICE else known
        if key != SEED and _parts(compared, [*keys, key]) > _parts(compared, keys):
            keys.append(key)
    return keys


def _parts(runs: Iterable[Run], keys: Sequence[str]) -> int:
    return len({tuple(value_of(run, key) for key in keys) for run in runs})


def chosen_keys(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """Return the keys of the given names; `model` and `model.name` are the same.

    Raises:
        ConfigError: no run has a key of that name.
    """
    every = sorted({key for run in runs for key in run.settings})
    keys = [name.strip().removesuffix(".name") for name in names]
    unknown = [key for key in keys if key not in every]
    if unknown:
        raise ConfigError(Mistake("--by", "must name keys of the runs", key, suggest(key, every)) for key in unknown)
    return keys


def value_of(run: Run, key: str) -> str:
    """Write a run's value of a key in the syntax of the command line."""
    return spell(run.settings[key]) if key in run.settings else UNREAD


def _rank(value: Any) -> tuple[bool, float, str]:
    """Order numbers by size, before all other values."""
    if isinstance(value, (int, float)):
        return False, float(value), ""
    return True, 0.0, spell(value)
