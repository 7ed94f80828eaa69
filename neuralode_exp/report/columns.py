"""What a table of runs can show, and how numbers are written in it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from neuralode_exp.config.errors import ConfigError, Mistake, suggest
from neuralode_exp.report.grouping import Group, Statistic
from neuralode_exp.report.runs import Run


@dataclass(frozen=True)
class Column:
    """A metric of the runs: its tag, its heading with the unit, whether it is shown unless asked otherwise."""

    tag: str
    title: str
    by_default: bool = True


COLUMNS = (
    Column("error/test", "test error (%)"),
    Column("error/validation", "validation error (%)", by_default=False),
    Column("dynamics/trajectory_error", "trajectory error"),
    Column("dynamics/field_error", "field error"),
    Column("dynamics/eigenvalue_error", "eigenvalue error"),
    Column("dynamics/validation_error", "validation error", by_default=False),
    Column("density/nll", "NLL (nat)"),
    Column("density/kl", "KL (nat)"),
    Column("loss/validation", "validation loss", by_default=False),
    Column("loss/train", "training loss", by_default=False),
    Column("parameters", "parameters"),
    Column("nfe/forward", "NFE forward"),
    Column("nfe/backward", "NFE backward"),
    Column("time/step_ms", "ms per step"),
    Column("time/field_ms", "ms f", by_default=False),
    Column("time/trace_ms", "ms f + trace", by_default=False),
    Column("time/determinant_ms", "ms f + log-determinant", by_default=False),
    Column("memory/saved_mib", "saved MiB"),
    Column("memory/autograd_peak_mib", "autograd peak MiB", by_default=False),
    Column("memory/peak_device_mib", "peak device MiB"),
    Column("memory/peak_rss_mib", "peak RSS MiB", by_default=False),
    Column("solver/failures", "solver failures", by_default=False),
    Column("solver/consistency", "solver consistency", by_default=False),
    Column("seconds", "seconds"),
)
BY_TAG = {column.tag: column for column in COLUMNS}
# What a run is for, by which groups are compared: the first that it has.
ERRORS = ("error/test", "dynamics/trajectory_error", "dynamics/validation_error", "density/kl", "density/nll")


def default_columns(runs: Iterable[Run]) -> list[Column]:
    """Return those that a completed run has."""
    present = {tag for run in runs if run.completed for tag in run.metrics}
    return [column for column in COLUMNS if column.by_default and column.tag in present]


def chosen_columns(runs: Sequence[Run], tags: Sequence[str]) -> list[Column]:
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
    return [BY_TAG.get(tag, Column(tag, tag)) for tag in tags]


def error_tag(runs: Iterable[Run]) -> str | None:
    """Return the tag by which these runs are compared."""
    present = {tag for run in runs for tag in run.metrics}
    return next((tag for tag in ERRORS if tag in present), None)


def cell(group: Group, column: Column) -> str:
    """Write `mean +- deviation`, and the number of values where it is not that of the completed runs."""
    statistic = group.statistic(column.tag)
    if statistic is None:
        return ""
    missing = len(group.completed) - statistic.n
    return spread(statistic) + (f" (n = {statistic.n})" if missing else "")


def spread(statistic: Statistic) -> str:
    """Write a mean to the second digit of its deviation."""
    mean, std = statistic.mean, statistic.std
    if not std:  # one value, or the same one each time, as of parameters
        return number(mean)
    decimals = 1 - math.floor(math.log10(std))
    if not -5 < decimals < 6:
        return f"{mean:.3g} ± {std:.2g}"
    decimals = max(decimals, 0)
    return f"{mean:.{decimals}f} ± {std:.{decimals}f}"


def number(value: float) -> str:
    """Write four digits, and whole numbers in full."""
    if math.isfinite(value) and value == int(value) and abs(value) < 1e9:
        return str(int(value))
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}"
