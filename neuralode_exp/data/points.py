"""Read the user's own points from a table, split them into training and held-out rows, and standardise them."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

from neuralode_exp.data.columns import Column, Table, counts, problem, suspects
from neuralode_exp.data.tables import read_table
from neuralode_exp.data.target import Target, as_points

FEW_LABELS = 10  # a column of at most so many different whole numbers, in at least 10^2 rows, may be a label


def read_points(path: str | Path, names: Sequence[str] | None = None) -> tuple[Tensor, Table, list[Column]]:
    """Read points, one per row, with their table and the columns of their coordinates.

    Args:
        path: file for `read_table`.
        names: names or numbers of the coordinates' columns; None: all columns of numbers.

    Returns:
        The points, shape (n, d), float64, the table, and the columns of the coordinates.

    Raises:
        ValueError: there is no such file, it has no points, or rows are wrong. The message has one line for each kind
            of mistake.
    """
    table = read_table(path)
    used = [table.column("columns", name) for name in names] if names else table.numbers()
    texts = [column for column in used if column.values is None]
    problems = [f"`columns` must be columns of numbers, got {column.name} with {column.text[0]!r}" for column in texts]
    problems += table.problems([*used, *([] if names else [c for c in table.columns if c.values is None])])
    if not used:
        problems.append(f"{table.path} must have a column of numbers, it has {table.names}")
    for column in used:
        if column.values is not None and (empty := np.flatnonzero(np.isnan(column.values))).size:
            rule = f"{column.name} must not be empty; delete the row, or leave the column out with dataset.columns"
            wrong = {line for line, _, _ in table.faults}
            rows = [line for i in empty if (line := int(table.lines[i])) not in wrong]
            problems += [problem(table, rows[0], "", rule, len(rows))] if rows else []
    if problems:
        raise ValueError("\n".join(dict.fromkeys(problems)))
    points = np.stack([column.values for column in used], 1).astype(np.float64)  # type: ignore[misc]
    return torch.from_numpy(points), table, used


def _odd(table: Table, used: Sequence[Column]) -> Iterator[str]:
    """Yield a warning for each column that may not be a coordinate, with the key that leaves it out."""
    for column in used:
        assert column.values is not None
        others = ",".join(other.name for other in used if other is not column)
        if len(used) > 1 and counts(column):
            yield f'"{column.name}" of {table.path} counts the rows; dataset.columns=[{others}] leaves it out'
        elif len(used) > 1 and len(column.values) >= FEW_LABELS**2 and _is_label(column.values):
            yield f'"{column.name}" of {table.path} looks like a label; dataset.columns=[{others}] leaves it out'
        for value in suspects(column):
            fix = "delete the row if it stands for a missing value"
            yield f'"{column.name}" of {table.path} has {value:g} far off its other values; {fix}'


def _is_label(x: np.ndarray) -> bool:
    """Return whether a column has few different values, all of them whole numbers."""
    return len(np.unique(x)) <= FEW_LABELS and bool((x == np.round(x)).all())


@final
class PointTarget(Target):
    """The points of a file, a target whose density is not known.

    A random part of the rows is held out. Samples and box are standardised: `offset` and `unit` are the mean
    and the standard deviation of the training rows.

    Args:
        path: file for `read_points`.
        validation: fraction of the rows that is held out, in [0, 1).
        seed: seed of the split.
        columns: for `read_points`.

    Attributes:
        names: names of the coordinates.
        train, held_out: the points, shape (n, d), shuffled.
        note: a note to the user on how the file was read.
        warnings: columns that may not be coordinates.

    Raises:
        ValueError: `read_points` fails, a column is constant, or fewer than 2 training rows are left.
    """

    def __init__(
        self,
        path: str | Path,
        validation: float = 0.2,
        seed: int = 0,
        columns: Sequence[str] | None = None,
    ) -> None:
        if not 0 <= validation < 1:
            raise ValueError(f"`validation` must be a fraction in [0, 1), got {validation}")
        points, table, used = read_points(path, columns)
        self.names = [column.name for column in used]
        unused = [column.name or "row numbers" for column in table.columns if column not in used]
        self.note = f"read {len(points)} points of {path}: " + ", ".join(f'"{name}"' for name in self.names)
        self.note += f"; left out: {', '.join(unused)}" if unused else ""
        self.warnings = list(_odd(table, used))
        shuffled = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))]
        n_held_out = math.ceil(validation * len(points))
        held_out, train = shuffled[:n_held_out], shuffled[n_held_out:]
        if len(train) < 2:
            raise ValueError(f"{path} must have 2 points to train on, got {len(train)} of {len(points)}")
        self.dim = points.shape[1]
        self.unit, self.offset = torch.std_mean(train, 0)
        for name, std in zip(self.names, self.unit.tolist(), strict=True):
            if not 0 < std < math.inf:
                raise ValueError(f"column {name} of {path} must vary, its standard deviation is {std}")
        self.train, self.held_out = (train - self.offset) / self.unit, (held_out - self.offset) / self.unit
        low, high = torch.aminmax((points - self.offset) / self.unit, dim=0)
        margin = (high - low) / 10
        self.box = torch.stack((low - margin, high + margin))

    def sample(self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
        """Draw n training points with replacement, shape (n, d)."""
        row = torch.randint(len(self.train), (n,), generator=generator, device=generator.device)
        return self.train.to(generator.device)[row].to(dtype)

    def log_prob(self, x: Tensor) -> None:
        as_points(x, self.dim)
