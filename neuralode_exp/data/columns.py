"""A table of named columns of numbers, and the faults of its cells."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from neuralode_exp.data.delimited import MISSING

FAR = 10  # a value so many quartile distances from the median may stand for a missing value


@dataclass(frozen=True, eq=False)
class Column:
    """A column of a table.

    Args:
        name: its name in the header, or its number from 1.
        values: float64 with NaN for a missing cell, or int64; dates in nanoseconds; None if the cells are other text.
        text: the cells as written in the file.
        dates: whether the values are dates.
    """

    name: str
    values: np.ndarray | None
    text: Sequence[str]
    dates: bool = False

    @property
    def missing(self) -> np.ndarray:
        if self.values is None:
            return np.array([cell in MISSING for cell in self.text])
        return ~np.isfinite(self.values)


def plain(name: str) -> str:
    """Return a name without a unit in brackets."""
    return re.sub(r"\s*[(\[].*", "", name).strip()


@dataclass(eq=False)
class Table:
    """Columns of the same length, and the faults of their cells.

    Args:
        path: the file.
        columns: the columns from left to right.
        lines: for each row its line in the file, or its number from 1.
        faults: (line, rule, got) of each cell or row that is wrong.
    """

    path: Path
    columns: list[Column]
    lines: np.ndarray
    row: str = "line"
    faults: list[tuple[int, str, str]] = field(default_factory=list)

    @property
    def names(self) -> str:
        return ", ".join(f'"{column.name}"' for column in self.columns)

    def column(self, key: str, name: str) -> Column:
        """Return the column with a name or a number from 1. Errors name `key`, which asked for it.

        Raises:
            ValueError: there is no such column, or several have this name.
        """
        named = [column for column in self.columns if column.name == name]
        if len(named) > 1:
            places = [str(k) for k, column in enumerate(self.columns, 1) if column.name == name]
            raise ValueError(f"`{key}` must be one column, got {name}, the name of columns {', '.join(places)}")
        if not named and name.isdecimal() and 1 <= int(name) <= len(self.columns):
            return self.columns[int(name) - 1]
        if not named:
            raise ValueError(f"`{key}` must be a column of {self.path}, got {name}; it has {self.names}")
        return named[0]

    def numbers(self) -> list[Column]:
        """Return the columns of numbers, without dates and without a nameless column of row numbers."""
        found = [column for column in self.columns if column.values is not None and not column.dates]
        return [column for column in found if column.name or not _numbers_rows(column)]

    def groups(self, labels: Sequence[Column]) -> dict[str, np.ndarray]:
        """Return the rows of each trajectory by its label, in the order of the file."""
        n = len(self.lines)
        if not labels:
            return {"the only one": np.arange(n)}
        cells = [column.text or [f"{x:g}" for x in column.values] for column in labels]  # type: ignore[union-attr]
        rows: dict[str, list[int]] = {}
        for i, names in enumerate(zip(*cells, strict=True)):
            rows.setdefault(", ".join(names), []).append(i)
        return {name: np.array(places) for name, places in rows.items()}

    def problems(self, used: Iterable[Column] | None = None) -> list[str]:
        """Return one line for each kind of fault, with its first place. Faults in unused columns are left out."""
        names = {column.name for column in self.columns} - {c.name for c in (self.columns if used is None else used)}
        kinds: dict[str, list[tuple[int, str]]] = {}
        for line, rule, got in sorted(self.faults, key=lambda fault: fault[0]):
            if rule.split(" must ")[0] not in names:
                kinds.setdefault(rule, []).append((line, got))
        return [problem(self, *places[0], rule, len(places)) for rule, places in kinds.items()]


def problem(table: Table, line: int, got: str, rule: str, n: int = 1) -> str:
    """Return one line for a kind of mistake: its first place, the rule, and how often it occurs."""
    rule, _, fix = rule.partition("; ")
    times = f" ({n} such rows)" if n > 1 else ""
    place = f"{table.path}:{line}" if table.row == "line" else f"{table.path}, row {line}"
    return f"{place}: {rule}{f', got {got}' if got else ''}{times}{f'; {fix}' if fix else ''}"


def counts(column: Column) -> bool:
    """Return whether a column is 0, 1, 2, ... or 1, 2, 3, ..."""
    x = column.values
    return x is not None and len(x) > 2 and x[0] in (0, 1) and bool((np.diff(x) == 1).all())


def _numbers_rows(column: Column) -> bool:
    """Return whether a column has whole numbers that increase, as the row numbers of some of the rows of a table."""
    x = column.values
    return x is not None and bool((np.diff(x) > 0).all() and (x == np.round(x)).all())


def suspects(column: Column) -> list[float]:
    """Return numbers far from all others, such as -999, -99.9 or 1e20, which may stand for a missing value."""
    assert column.values is not None
    x = column.values[~column.missing].astype(np.float64)
    if len(x) < 8:
        return []
    low, middle, high = np.quantile(x, (0.25, 0.5, 0.75))
    ends = [end for end in (x.min(), x.max()) if abs(end - middle) > FAR * max(high - low, 1e-300)]
    return [float(end) for end in ends if abs(end) >= 1e19 or re.fullmatch(r"-?9+\.(0|9+)", str(float(end)))]
