"""The columns of a table of runs, and how their numbers are written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from neuralode_exp.config.errors import ConfigError, Mistake, suggest
from neuralode_exp.config.kinds import KINDS
from neuralode_exp.report.grouping import Group, Statistic
from neuralode_exp.report.runs import Run
from neuralode_exp.tags import TAGS, Tag, tag_of

MEASURED = "dynamics/validation_error"


def default_columns(runs: Iterable[Run]) -> list[Tag]:
    """Return the usual columns that a completed run has; for tables of measurements the validation error too."""
    completed = [run.metrics for run in runs if run.completed]
    present = {name for metrics in completed for name in metrics}
    shown = {tag.name for tag in TAGS.values() if tag.column} & present
    if any(MEASURED in metrics and "dynamics/trajectory_error" not in metrics for metrics in completed):
        shown.add(MEASURED)  # without a known truth there is no trajectory error
    return [tag for tag in TAGS.values() if tag.name in shown]


def objective_tag(trainer: str, given: str | None, validation: float | None) -> str:
    """Return the tag that a run minimises: the given one, or its trainer's default.

    With nothing held out, `dataset.validation=0`, the default is the loss of training.
    """
    if given is None and validation == 0:
        return "loss/train"
    return given or next((kind.objectives[0] for kind in KINDS.values() if kind.trainer == trainer), "objective")


def with_unit(tag: str, value: float) -> str:
    """Write a value with its name and unit, as `validation error 0.36 %`."""
    name, _, unit = tag_of(tag).heading.partition(" (")
    return f"{name} {value:.4g} {unit.removesuffix(')')}".rstrip()


def chosen_columns(runs: Sequence[Run], tags: Sequence[str]) -> list[Tag]:
    """Return the columns of the given tags.

    Raises:
        ConfigError: no run has a metric of that tag.
    """
    every = sorted({tag for run in runs for tag in run.metrics})
    tags = [tag.strip().removeprefix("final/") for tag in tags]
    unknown = [tag for tag in tags if tag not in every]
    if unknown:
        raise ConfigError(
            Mistake("--columns", "must name metrics of the runs", tag, suggest(tag, every)) for tag in unknown
        )
    return [tag_of(tag) for tag in tags]


def cell(group: Group, column: Tag) -> str:
    """Write `mean ± deviation`, with the number of values if some completed runs lack the metric."""
    statistic = group.statistic(column.name)
    if statistic is None:
        return ""
    missing = len(group.completed) - statistic.n
    return spread(statistic) + (f" (n = {statistic.n})" if missing else "")


def spread(statistic: Statistic) -> str:
    """Write a mean, rounded to the second digit of its standard deviation."""
    mean, std = statistic.mean, statistic.std
    if not std:  # one value, or equal values, such as the number of parameters
        return number(mean)
    decimals = 1 - math.floor(math.log10(std))
    if not -5 < decimals < 6:
        return f"{mean:.3g} ± {std:.2g}"
    decimals = max(decimals, 0)
    return f"{mean:.{decimals}f} ± {std:.{decimals}f}"


def number(value: float) -> str:
    """Write a number with four digits, or in full if it is a whole number."""
    if math.isfinite(value) and value == int(value) and abs(value) < 1e9:
        return str(int(value))
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}"
