"""Read measured trajectories from a table, and find out which columns are time, states and labels."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from neuralode_exp.data.columns import Column, Table, problem, suspects
from neuralode_exp.data.tables import read_table

TIME_UNITS = {"days": 86400e9, "hours": 3600e9, "minutes": 60e9, "seconds": 1e9, "nanoseconds": 1.0}
EXACT = 2**53  # float64 is exact for whole numbers up to this one


@dataclass(frozen=True, eq=False)
class Trajectory:
    """A trajectory: increasing times t, shape (n,), and states z, shape (n, d), n >= 2, with NaN for missing values.

    Both are float64. Times that float64 cannot hold exactly are int64.
    """

    name: str
    t: Tensor
    z: Tensor


@dataclass(frozen=True, eq=False)
class Measured:
    """The content of a file: trajectories, names of the states, a note on how it was read, and warnings."""

    trajectories: list[Trajectory]
    states: list[str]  # names of the first columns of z; the inputs follow them
    note: str
    warnings: list[str]


@dataclass(frozen=True, eq=False)
class Roles:
    """The roles of the columns. Without a column of times, the time step is constant."""

    time: Column | None
    states: list[Column]
    labels: list[Column]
    inputs: list[Column]


def read_trajectories(
    path: str | Path,
    *,
    time: str | None = None,
    states: Sequence[str] | None = None,
    trajectory: Sequence[str] | None = None,
    step: float | None = None,
    missing: Sequence[str] = (),
    repeats: str = "refuse",
    inputs: Sequence[str] = (),
) -> Measured:
    """Read a table of trajectories. Their times may be irregular.

    Args:
        path: file for `read_table`.
        time: column of the times; None: one called t or time, the only column of dates, or the first that increases.
        states: columns of the states; None: all other columns of numbers.
        trajectory: columns whose cells together name the trajectory of a row; None: one called trajectory, if any.
        step: time between two rows, if there is no column of times.
        missing: cells that stand for a missing value, beside empty cells and the words that pandas knows.
        repeats: `refuse` a time that occurs twice in a trajectory, or take the `mean` of its rows.
        inputs: columns of the inputs u that drive the states. In z they come after the states.

    Raises:
        ValueError: the file or an argument is wrong. The message has one line for each kind of mistake, with the first
            line of the file that has it. If an argument is wrong, the line begins with its name in backticks.
    """
    table = read_table(path, missing)
    roles = _roles(table, time, states, trajectory, step, inputs)
    used = [*([roles.time] if roles.time else []), *roles.states, *roles.inputs]
    unread = [column for column in table.columns if column.values is None and column not in roles.labels]
    problems = table.problems([*used, *(unread if states is None else [])])
    if not roles.states and not problems:
        problems.append(
            f"`states` must be columns of numbers, {table.path} has none beside its time; it has {table.names}"
        )
    found, wrong = _trajectories(table, roles, step, repeats)
    if problems := [*problems, *wrong]:
        raise ValueError("\n".join(dict.fromkeys(problems)))
    return Measured(found, [column.name for column in roles.states], _note(table, roles, found, step), _odd(roles))


def _roles(
    table: Table,
    time: str | None,
    states: Sequence[str] | None,
    trajectory: Sequence[str] | None,
    step: float | None,
    inputs: Sequence[str],
) -> Roles:
    problems: list[str] = []

    def chosen(key: str, names: Sequence[str]) -> list[Column]:
        columns = []
        for name in names:
            try:
                columns.append(table.column(key, name))
            except ValueError as error:
                problems.append(str(error))
        return columns

    labels = chosen("trajectory", trajectory or [c.name for c in table.columns if _plain(c.name) == "trajectory"][:1])
    times = chosen("time", [time] if time is not None else [])
    picked = chosen("states", states or [])
    driving = chosen("inputs", inputs)
    for key, columns in (("time", times), ("states", picked), ("inputs", driving)):
        problems += [
            f"`{key}` must be a column of numbers{' or dates' * (key == 'time')}, got {c.name} with {c.text[0]!r}"
            for c in columns
            if c.values is None
        ]
        problems += [
            f"`{key}` must be a column with values, got {c.name}, all empty; leave it out" for c in columns if _empty(c)
        ]
    problems += _given_twice({"time": times, "states": picked, "inputs": driving})
    if time is not None and step is not None:
        problems.append(f"`step` must be left out where there is a column of times, got {step:g} and {time}")
    if not problems and time is None and step is None:
        try:
            times = [_find_time(table, labels, [*picked, *driving])]
        except ValueError as error:
            problems.append(str(error))
    if problems:
        raise ValueError("\n".join([*problems, *table.problems([*times, *picked])]))
    others = [c for c in table.numbers() if c not in (*times, *labels, *driving) and not _empty(c)]
    return Roles(times[0] if times else None, picked if states else others, labels, driving)


def _empty(column: Column) -> bool:
    return column.values is not None and bool(np.isnan(column.values.astype(np.float64)).all())


def _given_twice(columns: Mapping[str, Sequence[Column]]) -> list[str]:
    """Return a line for each column that has two roles, or one role twice."""
    roles: dict[Column, str] = {}
    problems = []
    for key, of_key in columns.items():
        for column, times in Counter(of_key).items():
            if (before := roles.setdefault(column, key)) != key:
                got = f"{column.name}, which `{before}` has too; leave it out of one"
                problems.append(f"`{key}` must be columns without another role, got {got}")
            elif times > 1:
                problems.append(f"`{key}` must name each column once, got {column.name} twice; leave one out")
    return problems


def _plain(name: str) -> str:
    """Return a name in lower case, without a unit in brackets."""
    return re.sub(r"\s*[(\[].*", "", name).strip().lower()


def _find_time(table: Table, labels: list[Column], states: list[Column]) -> Column:
    free = [c for c in table.columns if c.values is not None and c not in labels and c not in states]
    for candidates in ([c for c in free if _plain(c.name) in ("t", "time")], [c for c in free if c.dates]):
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            names = ", ".join(f'"{column.name}"' for column in candidates)
            place = table.columns.index(candidates[0]) + 1
            raise ValueError(f"`time` must be one column, but {table.path} has {names}; add dataset.time={place}")
    groups = _groups(table, labels)
    for column in free:
        x = column.values
        assert x is not None
        if column.name and all(len(i) > 1 and bool((np.diff(x[i]) > 0).all()) for i in groups.values()):
            return column
    apart = "" if labels else ", name the column of trajectories by dataset.trajectory=NAME"
    raise ValueError(
        f"`time` must be a column that increases, got {table.names} in {table.path}; sort the rows by time{apart}, or "
        "add dataset.step=0.1 if the table has no times"
    )


def _groups(table: Table, labels: list[Column]) -> dict[str, np.ndarray]:
    """Return the rows of each trajectory by its label, in the order of the file."""
    n = len(table.lines)
    if not labels:
        return {"the only one": np.arange(n)}
    cells = [column.text or [f"{x:g}" for x in column.values] for column in labels]  # type: ignore[union-attr]
    rows: dict[str, list[int]] = {}
    for i, names in enumerate(zip(*cells, strict=True)):
        rows.setdefault(", ".join(names), []).append(i)
    return {name: np.array(places) for name, places in rows.items()}


def _trajectories(table: Table, roles: Roles, step: float | None, repeats: str) -> tuple[list[Trajectory], list[str]]:
    """Return the trajectories, and one line for each kind of mistake."""
    faults: dict[str, list[tuple[int, str]]] = {}
    if roles.time is None:
        times = np.zeros(len(table.lines))
    else:
        assert roles.time.values is not None
        times = _in_units(roles.time)
    columns = [c.values for c in (*roles.states, *roles.inputs)]
    z = np.stack(columns, 1).astype(np.float64) if roles.states else times[:, None]  # type: ignore[arg-type]
    name = roles.time.name if roles.time else "t"
    apart = "" if roles.labels else ", or name the column that tells trajectories apart: dataset.trajectory=NAME"
    found = []
    for label, rows in _groups(table, roles.labels).items():
        if not label.strip(", "):
            faults.setdefault("trajectory must not be empty; give each a name", []).append((rows[0], ""))
        no_time = np.isnan(times[rows])
        for i in rows[no_time]:
            faults.setdefault(f"{name} must not be empty; delete the row, times may be irregular", []).append((i, ""))
        dropped = no_time | ~np.isfinite(z[rows]).any(1)
        t = (times[rows] if step is None else step * np.arange(len(rows)))[~dropped]
        rows = rows[~dropped]
        back, again = (
            f"{name} must increase within a trajectory; sort the rows by time{apart}",
            f"{name} must not stand twice in a trajectory; keep one of the rows, or dataset.repeats=mean",
        )
        differences = np.diff(t)
        for k in np.flatnonzero(differences <= 0 if repeats == "refuse" else differences < 0):
            got = f"{t[k + 1]:.12g} after {t[k]:.12g} in {table.row} {table.lines[rows[k]]}"
            faults.setdefault(again if t[k + 1] == t[k] else back, []).append((rows[k + 1], got))
        if len(np.unique(t)) < 2:
            if dropped.any() and table.faults:  # rows with faults are missing here
                continue
            place = rows[0] if len(rows) else 0
            faults.setdefault("a trajectory must have at least 2 rows; delete it", []).append(
                (place, f"1, of {label!r}")
            )
            continue
        found.append(Trajectory(label, torch.from_numpy(t), torch.from_numpy(z[rows])))
    kinds = [(table, int(table.lines[at[0][0]]), at[0][1], rule, len(at)) for rule, at in faults.items()]
    return [_mean_of_repeats(x) for x in found], [problem(*kind) for kind in kinds]


def _in_units(time: Column) -> np.ndarray:
    """Return times as float64, or int64 if float64 is too coarse. Dates count from the first one in their unit."""
    x = time.values
    assert x is not None
    if time.dates:
        return (x - np.nanmin(x)) / TIME_UNITS[_unit(time)]
    return x.astype(np.float64) if x.dtype != np.int64 or np.abs(x).max() < EXACT else x


def _unit(dates: Column) -> str:
    """Return the largest unit of time that is not longer than the usual step between dates."""
    assert dates.values is not None
    steps = np.abs(np.diff(dates.values[~dates.missing]))
    usual = float(np.median(steps[steps > 0])) if (steps > 0).any() else 1.0
    return next((name for name, unit in TIME_UNITS.items() if unit <= usual), "nanoseconds")


def _mean_of_repeats(trajectory: Trajectory) -> Trajectory:
    t, count = torch.unique_consecutive(trajectory.t, return_counts=True)
    if len(t) == len(trajectory.t):
        return trajectory
    means = [z.nanmean(dim=0) for z in trajectory.z.split(count.tolist())]
    return replace(trajectory, t=t, z=torch.stack(means))


def _note(table: Table, roles: Roles, found: list[Trajectory], step: float | None) -> str:
    time = f"steps of {step:g}" if roles.time is None else f'time "{roles.time.name}"'
    if roles.time and roles.time.dates:
        time += f" (dates, in {_unit(roles.time)})"
    states = ", ".join(f'"{column.name}"' for column in roles.states)
    states += "".join(f'{", " if i else ", inputs "}"{column.name}"' for i, column in enumerate(roles.inputs))
    n = f"{len(found)} {'trajectory' if len(found) == 1 else 'trajectories'}"
    if roles.labels:
        n += " by " + ", ".join(f'"{column.name}"' for column in roles.labels)
    used = [*roles.states, *roles.inputs, *roles.labels, roles.time]
    unused = [column.name or "row numbers" for column in table.columns if column not in used]
    left_out = f"; left out: {', '.join(unused)}" if unused else ""
    empty = sum(int(column.missing.sum()) for column in roles.states)
    gaps = f", {empty} missing cells" if empty else ""
    return f"read {len(table.lines)} rows of {table.path}: {time}, states {states}{gaps}, {n}{left_out}"


def _odd(roles: Roles) -> list[str]:
    return [
        f'"{column.name}" has {value:g} far off its other values; if it stands for a missing value, add '
        f"dataset.missing=[{value:g}]"
        for column in roles.states
        for value in suspects(column)
    ]
