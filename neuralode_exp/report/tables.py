"""The tables of a report, as rows of text, as plain text and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from neuralode_exp.aligned import aligned
from neuralode_exp.report.columns import cell, number
from neuralode_exp.report.grouping import SEED, Group, value_of
from neuralode_exp.report.runs import Run
from neuralode_exp.tags import Tag


@dataclass(frozen=True)
class Table:
    """The text of each cell, and the number by which it sorts, or None for a cell that sorts by its text."""

    heads: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: tuple[tuple[float | None, ...], ...]


def of_groups(groups: Sequence[Group], keys: Sequence[str], columns: Sequence[Tag]) -> Table:
    """Return a row for each group: keys, number of runs, mean ± standard deviation of each column."""
    rows, numbers = [], []
    for group in groups:
        statistics = [group.statistic(column.name) for column in columns]
        rows.append((*group.values, group.count, *(cell(group, column) for column in columns)))
        means = (one.mean if one else None for one in statistics)
        numbers.append((*map(_number, group.values), float(len(group.completed)), *means))
    return Table((*keys, "runs", *(column.heading for column in columns)), tuple(rows), tuple(numbers))


def of_runs(groups: Sequence[Group], keys: Sequence[str], columns: Sequence[Tag], root: Path) -> Table:
    """Return a row for each run."""
    rows, numbers = [], []
    for group in groups:
        for run in group.runs:
            seed = value_of(run, SEED)
            values = [run.metrics.get(column.name) for column in columns]
            shown = ("" if value is None else number(value) for value in values)
            rows.append((*group.values, seed, run.status, *shown, place(run, root)))
            numbers.append((*map(_number, group.values), _number(seed), None, *values, None))
    heads = (*keys, SEED, "status", *(column.heading for column in columns), "folder")
    return Table(heads, tuple(rows), tuple(numbers))


def of_failures(groups: Sequence[Group], keys: Sequence[str], root: Path) -> Table:
    """Return a row for each run without a result, with the reason."""
    bad = [(group, run) for group in groups for run in group.runs if not run.completed]
    rows = tuple(
        (run.status, *group.values, value_of(run, SEED), run.reason or "", place(run, root)) for group, run in bad
    )
    heads = ("status", *keys, SEED, "reason", "folder")
    return Table(heads, rows, tuple((None,) * len(heads) for _ in rows))


def place(run: Run, root: Path) -> str:
    """Return the run's folder, relative to `root` if it is in there."""
    return str(run.folder.relative_to(root)) if run.folder.is_relative_to(root) else str(run.folder)


def plain(table: Table) -> str:
    """Align columns with spaces."""
    return aligned([table.heads, *table.rows])


def markdown(table: Table) -> str:
    """Write a table that GitHub and others render."""
    rows = [table.heads, ("---",) * len(table.heads), *table.rows]
    return "\n".join("| " + " | ".join(x.replace("|", "\\|") for x in row) + " |" for row in rows)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
