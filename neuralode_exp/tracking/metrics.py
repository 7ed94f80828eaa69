"""metrics.csv, a plain copy of a run's scalars with the columns step, tag and value."""

import csv
import io
from collections.abc import Collection, Iterator
from pathlib import Path

from neuralode_exp.tracking.whole_files import write_whole

FILE_NAME = "metrics.csv"
HEADER = ("step", "tag", "value")


def read_metrics(folder: Path | str, tags: Collection[str] | None = None) -> dict[str, tuple[list[int], list[float]]]:
    """Return the steps and values of each tag, or of the given tags, in the order in which they were written.

    A last line without a newline is left out, because the process ended while writing it. The result is empty if there
    is no metrics.csv yet.
    """
    curves: dict[str, tuple[list[str], list[str]]] = {}
    for step, tag, value in _rows(Path(folder) / FILE_NAME):
        if tag not in curves:
            curves[tag] = [], []
        steps, values = curves[tag]
        steps.append(step)
        values.append(value)
    return {
        tag: (list(map(int, steps)), list(map(float, values)))
        for tag, (steps, values) in curves.items()
        if tags is None or tag in tags
    }


def keep_before(folder: Path, step: int) -> None:
    """Replace metrics.csv atomically by a copy with only the rows before `step`."""
    path = folder / FILE_NAME
    content = io.StringIO()
    csv.writer(content, lineterminator="\n").writerows([HEADER, *(row for row in _rows(path) if int(row[0]) < step)])
    write_whole(path, content.getvalue().encode())


def _rows(path: Path) -> Iterator[list[str]]:
    complete, _, _ = path.read_text(encoding="utf-8").rpartition("\n") if path.exists() else ("", "", "")
    rows = csv.reader(complete.splitlines())
    next(rows, None)
    return rows
