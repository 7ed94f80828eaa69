"""The final table of a grid, on the screen and as sweep.csv."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from neuralode_exp.aligned import aligned

if TYPE_CHECKING:
    from neuralode_exp.sweep.cells import Cell, Outcome

FILE_NAME = "sweep.csv"
COLUMNS = ("cell", "status", "objective", "seconds", "label", "run", "same_as", "overrides", "reason")


def text(cells: Sequence[Cell], outcomes: Sequence[Outcome]) -> str:
    """Return a line for each cell: number, status, objective, seconds, name, arguments that differ, reason."""
    shared = set.intersection(*(set(cell.overrides) for cell in cells)) if len(cells) > 1 else set()
    rows = [("cell", "status", "objective", "seconds", "run", "overrides", "")]
    for cell, end in zip(cells, outcomes, strict=True):
        status = end.status if cell.same_as is None else f"same as {cell.same_as}"
        numbers = (_number(end.objective, ".5g"), _number(end.seconds, ".1f"))
        name = cell.name if cell.gap is None else cell.label
        words = " ".join(word for word in cell.overrides if word not in shared)
        rows.append((str(cell.number), status, *numbers, name, words, end.reason if cell.same_as is None else ""))
    return aligned(rows, right=(0, 2, 3))


def counts(cells: Sequence[Cell], outcomes: Sequence[Outcome]) -> str:
    """Count the cells by how they ended, as `12 completed, 1 failed, 3 same as another`."""
    found = Counter(
        end.status if cell.same_as is None else "same as another" for cell, end in zip(cells, outcomes, strict=True)
    )
    return ", ".join(f"{n} {status}" for status, n in found.items())


def write_csv(sweep_dir: Path, cells: Sequence[Cell], outcomes: Sequence[Outcome]) -> None:
    """Write sweep.csv, a row for each cell; a file with the same content is left as it is."""
    content = io.StringIO()
    rows = csv.writer(content, lineterminator="\n")
    rows.writerow(COLUMNS)
    for cell, end in zip(cells, outcomes, strict=True):
        run = cell.folder.name if cell.gap is None else None
        words = " ".join(cell.overrides)
        numbers = (cell.number, end.status, end.objective, end.seconds)
        rows.writerow((*numbers, cell.label, run, cell.same_as, words, end.reason))
    write_if_changed(sweep_dir / FILE_NAME, content.getvalue())


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a sweep.csv, each a mapping from column names to text."""
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_if_changed(path: Path, content: str) -> None:
    if not path.exists() or path.read_text(encoding="utf-8") != content:
        path.write_text(content, encoding="utf-8")


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
