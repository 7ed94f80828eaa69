"""The plain copy of a run's scalars: metrics.csv with the columns step, tag and value."""

import csv
import os
from pathlib import Path

FILE_NAME = "metrics.csv"
HEADER = ("step", "tag", "value")


def read_metrics(folder: Path | str) -> dict[str, tuple[list[int], list[float]]]:
    """Return for every tag of a run its steps and its values, in the order in which they were written.

    A last line without its newline was cut off by the end of the process and is left out.
    A folder without metrics.csv has no metrics yet.
    """
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for step, tag, value in _rows(Path(folder) / FILE_NAME):
        steps, values = curves.setdefault(tag, ([], []))
        steps.append(int(step))
        values.append(float(value))
    return curves


def keep_before(folder: Path, step: int) -> None:
    """Rewrite metrics.csv, in one atomic exchange, with only the rows before `step`."""
    path = folder / FILE_NAME
    rows = [row for row in _rows(path) if int(row[0]) < step]
    temporary = path.with_name(FILE_NAME + ".tmp")
    with open(temporary, "w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(rows)
    os.replace(temporary, path)


def _rows(path: Path) -> list[list[str]]:
    if not path.exists():
        return []
    complete, _, _ = path.read_text().rpartition("\n")
    return list(csv.reader(complete.splitlines()))[1:]
