"""Read measured trajectories from a table, and find out which columns are time, states and labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from neuralode_exp.data.columns import Column, Table, counts, plain, problem, suspects
from neuralode_exp.data.tables import read_table
from neuralode_exp.data.times import dates_in_digits, find_time, in_units, unit_of


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
        time: column of the times; None: the only one called t, time, year, day, ... or with dates, or else the only one
            that increases.
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
    odd = list(_odd(roles, picked=states is not None))
    return Measured(found, [column.name for column in roles.states], _note(table, roles, found, step), odd)


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

    labels = chosen(
        "trajectory", trajectory or [c.name for c in table.columns if plain(c.name).lower() == "trajectory"][:1]
    )
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
            times = [find_time(table, labels, [*picked, *driving])]
        except ValueError as error:
            problems.append(str(error))
    problems += [wrong for c in times if c.values is not None and (wrong := dates_in_digits(c))]
    if problems:
        raise ValueError("\n".join(dict.fromkeys([*problems, *table.problems([*times, *picked])])))
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


def _trajectories(table: Table, roles: Roles, step: float | None, repeats: str) -> tuple[list[Trajectory], list[str]]:
    """Return the trajectories, and one line for each kind of mistake."""
    faults: dict[str, list[tuple[int, str]]] = {}
    if roles.time is None:
        times = np.zeros(len(table.lines))
    else:
        assert roles.time.values is not None
        times = in_units(roles.time)
    columns = [c.values for c in (*roles.states, *roles.inputs)]
    z = np.stack(columns, 1).astype(np.float64) if roles.states else times[:, None]  # type: ignore[arg-type]
    name = roles.time.name if roles.time else "t"
    apart = "" if roles.labels else ", or name the column that tells trajectories apart: dataset.trajectory=NAME"
    found = []
    for label, rows in table.groups(roles.labels).items():
        if not label.strip(", "):
            faults.setdefault("trajectory must not be empty; give each a name", []).append((rows[0], ""))
        no_time = np.isnan(times[rows])
        for i in rows[no_time]:
            faults.setdefault(f"{name} must not be empty; delete the row, times may be irregular", []).append((i, ""))
        dropped = no_time | ~np.isfinite(z[rows]).any(1)
        t = (times[rows] if step is None else step * np.arange(len(rows)))[~dropped]
        first, rows = rows[0], rows[~dropped]
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
            got = f"{len(np.unique(t))}{' with values' * bool(dropped.any())}, of {label!r}"
            faults.setdefault("a trajectory must have at least 2 rows; delete it", []).append((first, got))
            continue
        found.append(Trajectory(label, torch.from_numpy(t), torch.from_numpy(z[rows])))
    kinds = [(table, int(table.lines[at[0][0]]), at[0][1], rule, len(at)) for rule, at in faults.items()]
    return [_mean_of_repeats(x) for x in found], [problem(*kind) for kind in kinds]


def _mean_of_repeats(trajectory: Trajectory) -> Trajectory:
    t, count = torch.unique_consecutive(trajectory.t, return_counts=True)
    if len(t) == len(trajectory.t):
        return trajectory
    means = [z.nanmean(dim=0) for z in trajectory.z.split(count.tolist())]
    return replace(trajectory, t=t, z=torch.stack(means))


def _note(table: Table, roles: Roles, found: list[Trajectory], step: float | None) -> str:
    time = f"steps of {step:g}" if roles.time is None else f'time "{roles.time.name}"'
    if roles.time and roles.time.dates:
        time += f" (dates, in {unit_of(roles.time)})"
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


def _odd(roles: Roles, *, picked: bool) -> Iterator[str]:
    """Yield a warning for each column that may not be a state, unless the user picked it, and for odd values."""
    for column in roles.states:
        others = ",".join(other.name for other in roles.states if other is not column)
        if others and not picked and counts(column):
            yield f'"{column.name}" counts the rows; dataset.states=[{others}] leaves it out'
        for value in suspects(column):
            yield (
                f'"{column.name}" has {value:g} far off its other values; if it stands for a missing value, add '
                f"dataset.missing=[{value:g}]"
            )
