"""Measured trajectories from a csv file: read and checked by line, and held out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from neuralode_exp.data.observed import Observed, Trajectories
from neuralode_exp.data.tables import LISTED, is_number, read_rows


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One trajectory: increasing times t, shape (n,), and states z, shape (n, d), n >= 2, both float64."""

    name: str
    t: Tensor
    z: Tensor


@dataclass(frozen=True, eq=False)
class Split:
    """Trajectories to train on and trajectories held out; `note` says in words which were."""

    train: list[Trajectory]
    held_out: list[Trajectory]
    note: str


def read_trajectories(path: str | Path) -> list[Trajectory]:
    """Read a csv file with the columns trajectory,t,z1,...,zd.

    The trajectory is any label; rows of one trajectory stand in order of time, at irregular times if need be, and
    may alternate with others'. Blank lines and lines that begin with # are skipped.

    Args:
        path: a text file in UTF-8, with either end of line and with or without a byte order mark.

    Raises:
        ValueError: no such file, a wrong header, no rows; or problems in rows, one line of the message for each,
            with the row's line number.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"`path` must be a csv file with the columns trajectory,t,z1,...,zd, got {path}: no such file")
    rows = read_rows(path)
    if not rows:
        raise ValueError(f"{path} must have a header trajectory,t,z1,...,zd and rows, it is empty")
    header = [cell.strip() for cell in rows[0][1]]
    d = len(header) - 2
    if d < 1 or header != ["trajectory", "t", *(f"z{i}" for i in range(1, d + 1))]:
        got = ",".join(header)
        raise ValueError(
            f"{path}:{rows[0][0]}: the header must be trajectory,t,z1,...,zd, got {got}; rename the columns"
        )
    if len(rows) == 1:
        raise ValueError(f"{path} must have rows below its header, it has none")
    return _parse(path, header, rows[1:])


def _parse(path: Path, header: list[str], rows: list[tuple[int, list[str]]]) -> list[Trajectory]:
    problems: list[tuple[int, str]] = []
    observations: dict[str, list[list[float]]] = {}
    first_line: dict[str, int] = {}
    last: dict[str, tuple[int, float]] = {}  # line and time of a trajectory's latest row
    for line, row in rows:
        name = row[0].strip()
        first_line.setdefault(name, line)
        observations.setdefault(name, [])
        numbers, wrong = _numbers(header, row)
        if not wrong and name in last and numbers[0] <= last[name][1]:
            before, t = last[name]
            fix = "keep one of the two rows" if numbers[0] == t else "sort the rows by time"
            wrong = f"t must increase within a trajectory, got {numbers[0]:g} after {t:g} in line {before}; {fix}"
        if wrong:
            problems.append((line, wrong))
        else:
            last[name] = line, numbers[0]
            observations[name].append(numbers)
    wrong_lines = {line for line, _ in problems}
    faulty = {row[0].strip() for line, row in rows if line in wrong_lines}
    problems += [
        (first_line[name], f"a trajectory must have at least 2 rows, {name!r} has 1; delete it")
        for name, kept in observations.items()
        if len(kept) < 2 and name not in faulty
    ]
    if problems:
        raise ValueError(_report(path, sorted(problems)))
    tables = {name: torch.tensor(kept, dtype=torch.float64) for name, kept in observations.items()}
    return [Trajectory(name, table[:, 0].clone(), table[:, 1:].clone()) for name, table in tables.items()]


def _numbers(header: list[str], row: list[str]) -> tuple[list[float], str]:
    """Return t, z1, ..., zd of a row and what is wrong with it, in words ("" if nothing)."""
    if len(row) != len(header):
        return [], f"a row must have {len(header)} columns, got {len(row)}"
    if not row[0].strip():
        return [], "trajectory must not be empty; give each trajectory a name"
    numbers = []
    for column, cell in zip(header[1:], row[1:], strict=True):
        if not cell.strip():
            return [], f"{column} must not be empty; delete the row, times may be irregular"
        if not is_number(cell):
            return [], f"{column} must be a number, got {cell.strip()!r}"
        if not math.isfinite(float(cell)):
            return [], f"{column} must be finite, got {cell.strip()}; delete the row, times may be irregular"
        numbers.append(float(cell))
    return numbers, ""


def _report(path: Path, problems: list[tuple[int, str]]) -> str:
    lines = [f"{path}:{line}: {problem}" for line, problem in problems[:LISTED]]
    if len(problems) > LISTED:
        lines.append(f"{path}: {len(problems)} problems in all, the first {LISTED} are listed")
    return "\n".join(lines)


def split(trajectories: Sequence[Trajectory], validation: float = 0.2, seed: int = 0) -> Split:
    """Hold out a random fraction of the trajectories, at least one; of a single trajectory, its last part in time.

    Args:
        trajectories: from `read_trajectories`.
        validation: the fraction, of trajectories or of the single one's observations; 0 holds out nothing.
        seed: of the choice.

    Raises:
        ValueError: `validation` is not in [0, 1), or a single trajectory is too short to give two observations to
            either part.
    """
    if not 0 <= validation < 1:
        raise ValueError(f"`validation` must be a fraction in [0, 1), got {validation}")
    n = len(trajectories)
    if validation == 0:
        return Split(list(trajectories), [], "nothing is held out")
    if n == 1:
        return _split_in_time(trajectories[0], validation)
    size = min(max(round(validation * n), 1), n - 1)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()
    train, held_out = sorted(order[size:]), sorted(order[:size])
    note = f"held out: {size} of {n} trajectories"
    return Split([trajectories[i] for i in train], [trajectories[i] for i in held_out], note)


def _split_in_time(trajectory: Trajectory, validation: float) -> Split:
    n = len(trajectory.t)
    if n < 4:
        raise ValueError(
            f"a single trajectory must have at least 4 observations to hold out its last part, {trajectory.name!r} "
            f"has {n}; use validation=0"
        )
    cut = n - min(max(round(validation * n), 2), n - 2)
    train, held_out = (
        Trajectory(trajectory.name, trajectory.t[part], trajectory.z[part]) for part in (slice(cut), slice(cut, n))
    )
    note = f"held out: the last {n - cut} of {n} observations, from t = {held_out.t[0]:g} on, of the only trajectory"
    return Split([train], [held_out], note)


def observe(path: str | Path, validation: float, seed: int, dtype: torch.dtype) -> Observed:
    """Read a file and split it, with states of `dtype` and times as they are.

    Raises:
        ValueError: from `read_trajectories` and `split`, or the states leave the range of `dtype`.
    """
    trajectories = read_trajectories(path)
    # As for systems: the square of a state must be finite too.
    largest = max(float(trajectory.z.abs().max()) for trajectory in trajectories)
    if largest > math.sqrt(torch.finfo(dtype).max):
        precision = str(dtype).removeprefix("torch.")
        raise ValueError(f"states must have squares in the range of {precision}, got |z| = {largest:.1e}; rescale")
    parts = split(trajectories, validation, seed)
    held_out = [Trajectories(x.t, z := x.z.to(dtype)[:, None], z) for x in parts.held_out]
    states = [x.z.to(dtype) for x in parts.train]
    return Observed([x.t for x in parts.train], states, validation=held_out, note=parts.note)
