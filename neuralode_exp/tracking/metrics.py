"""metrics.csv, a plain copy of a run's scalars with the columns step, tag and value."""

import csv
import io
from collections.abc import Collection, Iterator
from pathlib import Path

from neuralode_exp.tracking.whole_files import write_whole

FILE_NAME = "metrics.csv"
HEADER = ("step", "tag", "value")


class DamagedMetrics(ValueError):
    """A line of metrics.csv is none of its rows."""


def read_metrics(folder: Path | str, tags: Collection[str] | None = None) -> dict[str, tuple[list[int], list[float]]]:
    """Return the steps and values of each tag, or of the given tags, in the order in which they were written.

    A last line without a newline is left out, because the process ended while writing it. The result is empty if there
    is no metrics.csv yet.

    Raises:
        DamagedMetrics: a line is not `step,tag,value`.
    """
    curves: dict[str, tuple[list[int], list[float]]] = {}
    for step, tag, value in _rows(Path(folder) / FILE_NAME):
        if tags is None or tag in tags:
            steps, values = curves.setdefault(tag, ([], []))
            steps.append(step)
            values.append(value)
    return curves


def keep_before(folder: Path, step: int) -> None:
    """Replace metrics.csv atomically by a copy with only the rows before `step`."""
    path = folder / FILE_NAME
    content = io.StringIO()
    csv.writer(content, lineterminator="\n").writerows([HEADER, *(row for row in _rows(path) if row[0] < step)])
    write_whole(path, content.getvalue().encode())


def _rows(path: Path) -> Iterator[tuple[int, str, float]]:
    complete, _, _ = path.read_bytes().rpartition(b"\n") if path.exists() else (b"", b"", b"")
    rows = csv.reader(complete.decode(errors="replace").splitlines())
    next(rows, None)
    for row in rows:
        try:
            step, tag, value = row
            yield int(step), tag, float(value)
        except ValueError:
            got = f"{path}:{rows.line_num} must be step,tag,value, got {','.join(row)[:40]!r}; delete that line"
            raise DamagedMetrics(got) from None
