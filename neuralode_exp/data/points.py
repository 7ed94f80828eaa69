"""The user's own points from a csv or npy file, split into training and held-out rows and standardised."""

import math
from pathlib import Path
from typing import final

import numpy as np
import torch
from torch import Tensor

from neuralode_exp.data.tables import LISTED, is_number, read_rows
from neuralode_exp.data.target import Target, as_points


def read_points(path: str | Path) -> Tensor:
    """Read points from `path`.

    A csv file has one point a line, its coordinates separated by commas; blank lines and those that begin with #
    are skipped, and so is a first line without any number (a header). An npy file has an array of shape (n, d).

    Args:
        path: a file whose name ends in .csv or .npy.

    Returns:
        the points, shape (n, d), float64.

    Raises:
        ValueError: no such file, no points, or rows that are not d finite numbers, listed by line.
    """
    path = Path(path)
    if path.suffix.lower() not in (".csv", ".npy"):
        raise ValueError(f"`path` must end in .csv or .npy, got {path}")
    if not path.is_file():
        raise ValueError(f"`path` must name a file, {path} does not exist")
    points = _read_csv(path) if path.suffix.lower() == ".csv" else _read_npy(path)
    return torch.from_numpy(points)


@final
class PointTarget(Target):
    """The points of a file, as a target without a known density.

    A random part of the rows is held out. Samples and box are standardised: `offset` and `unit` are the mean
    and the standard deviation of the training rows.

    Args:
        path: file for `read_points`.
        validation: fraction of the rows that is held out, in [0, 1).
        seed: of the split.

    Raises:
        ValueError: from `read_points`; a constant column, or fewer than 2 rows left to train on.
    """

    def __init__(self, path: str | Path, validation: float = 0.2, seed: int = 0) -> None:
        if not 0 <= validation < 1:
            raise ValueError(f"`validation` must be a fraction in [0, 1), got {validation}")
        points = read_points(path)
        shuffled = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))]
        n_held_out = math.ceil(validation * len(points))
        held_out, train = shuffled[:n_held_out], shuffled[n_held_out:]
        if len(train) < 2:
            raise ValueError(f"{path} must have 2 points to train on, got {len(train)} of {len(points)}")
        self.dim = points.shape[1]
        self.unit, self.offset = torch.std_mean(train, 0)
        for column, std in enumerate(self.unit.tolist(), 1):
            if not 0 < std < math.inf:
                raise ValueError(f"column {column} of {path} must vary, its standard deviation is {std}")
        self.train, self._held_out = (train - self.offset) / self.unit, (held_out - self.offset) / self.unit
        low, high = torch.aminmax((points - self.offset) / self.unit, dim=0)
        margin = (high - low) / 10
        self.box = torch.stack((low - margin, high + margin))

    def sample(self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
        """Draw n training points with replacement, shape (n, d)."""
        row = torch.randint(len(self.train), (n,), generator=generator, device=generator.device)
        return self.train.to(generator.device)[row].to(dtype)

    def held_out(self, n: int, generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Tensor:
        """Return the first n held-out points; the split has shuffled them."""
        return self._held_out[:n].to(generator.device, dtype)

    def all_held_out(self) -> Tensor:
        """Return every held-out point."""
        return self._held_out

    def log_prob(self, x: Tensor) -> None:
        as_points(x, self.dim)


def _read_csv(path: Path) -> np.ndarray:
    lines = read_rows(path)
    if lines and not any(is_number(cell) for cell in lines[0][1]):
        lines = lines[1:]
    if not lines:
        raise ValueError(f"{path} must have at least one point, got none")
    dim = len(lines[0][1])
    faults = ((line, _fault(cells, dim)) for line, cells in lines)
    _refuse(path, [f"line {line}: {fault}" for line, fault in faults if fault])
    return np.array([cells for _, cells in lines], dtype=np.float64)


def _read_npy(path: Path) -> np.ndarray:
    try:
        with path.open("rb") as file:
            # np.load would also open zip files and, asked to, pickles.
            array = np.lib.format.read_array(file, allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{path} must be a plain npy file of numbers; save it with numpy.save") from error
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{path} must hold real numbers, got dtype {array.dtype}")
    if array.ndim != 2 or 0 in array.shape:
        raise ValueError(f"{path} must hold an array of shape (n, d) with n, d >= 1, got {array.shape}")
    wrong = np.flatnonzero(~np.isfinite(array).all(1))
    _refuse(path, [f"row {row}: {array[row].tolist()} is not finite" for row in wrong])
    return array.astype(np.float64)


def _fault(cells: list[str], dim: int) -> str:
    """Say what is wrong with a row, or return an empty string."""
    if len(cells) != dim:
        return f"{len(cells)} numbers where the first row has {dim}"
    for cell in cells:
        if not is_number(cell):
            return f"{cell!r} is not a number"
        if not math.isfinite(float(cell)):
            return f"{cell.strip()} is not finite"
    return ""


def _refuse(path: Path, faults: list[str]) -> None:
    if not faults:
        return
    listed = "; ".join(faults[:LISTED])
    more = f"; and {len(faults) - LISTED} more" if len(faults) > LISTED else ""
    raise ValueError(f"{path} must have the same number of finite numbers in each row; {listed}{more}")
