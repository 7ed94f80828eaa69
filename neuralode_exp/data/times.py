"""Find out which column of a table has the times, and convert times to numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from neuralode_exp.data.columns import Column, Table, counts, plain
from neuralode_exp.data.delimited import MISSING

TIME_UNITS = {"days": 86400e9, "hours": 3600e9, "minutes": 60e9, "seconds": 1e9, "nanoseconds": 1.0}
EXACT = 2**53  # float64 is exact for whole numbers up to this one
NAMES = re.compile(r"(date|time|datetime|timestamp|year|month|week|day|hour|minute)s?|seconds", re.IGNORECASE)
IN_NAMES = re.compile(
    r"(?<![a-z])(date|time|year|yr|month|week|day|hour|hr|minute|second|sec)s?(?![a-z])", re.IGNORECASE
)
DATES_IN_DIGITS = {6: "%Y-%m", 8: "%Y-%m-%d", 10: "%Y-%m-%d %H", 12: "%Y-%m-%d %H:%M", 14: "%Y-%m-%d %H:%M:%S"}
ALIKE = 0.01  # dates in digits that differ from even ones by less are numbers


def find_time(table: Table, labels: Sequence[Column], others: Sequence[Column]) -> Column:
    """Return the column of the times: the only one with a name of time or with dates, or the only one that increases.

    Args:
        table: the table.
        labels: columns that name trajectories.
        others: further columns that have a role.

    Raises:
        ValueError: no column or several may be that of the times.
    """
    free = [c for c in table.columns if c not in labels and c not in others and not c.missing.all()]
    named = [c for c in free if plain(c.name) == "t" or NAMES.fullmatch(plain(c.name))]
    found = [c for c in free if c.values is not None and (c in named or c.dates)]
    unread = [c for c in named if c.values is None and (not found or re.search(r"\d", _first(c)))]
    if unread and not found:
        raise ValueError(
            f"`time` must be a column of numbers or of dates such as 2020-01-31 12:00, got {unread[0].name} with "
            f"{_first(unread[0])!r}; write its cells so, or add dataset.time=NAME for another column"
        )
    groups = list(table.groups(labels).values())
    if not found:
        found = [c for c in free if (c.name or not counts(c)) and _increases(c, groups)]
        speaking = [c for c in found if IN_NAMES.search(c.name)]
        found = speaking if len(speaking) == 1 else found
    if len(found) + len(unread) == 1:
        return found[0]
    if found:
        names = ", ".join(f'"{c.name}"' for c in table.columns if c in found or c in unread)
        best = next((c for c in found if _increases(c, groups)), None)
        join = "" if best and not unread else "write them as one column such as 2020-01-31 12:00, or "
        place = table.columns.index(best or found[0]) + 1
        raise ValueError(f"`time` must be one column, but {table.path} has {names}; {join}add dataset.time={place}")
    apart = "" if labels else ", name the column of trajectories by dataset.trajectory=NAME"
    rule = (
        f"`time` must be a column that increases, got {table.names} in {table.path}; sort the rows by time{apart}, or "
        "add dataset.step=0.1 if the table has no times"
    )
    raise ValueError("\n".join([*table.problems([c for c in free if c.values is None]), rule]))


def _first(column: Column) -> str:
    return next(cell for cell in column.text if cell not in MISSING)


def _increases(column: Column, groups: Sequence[np.ndarray]) -> bool:
    """Return whether a column increases in each trajectory."""
    x = column.values
    return x is not None and all(len(rows) > 1 and bool((np.diff(x[rows]) > 0).all()) for rows in groups)


def dates_in_digits(time: Column) -> str | None:
    """Return what is wrong with times such as 202012, 202101: they are dates, and not as far apart as numbers."""
    import pandas as pd

    assert time.values is not None
    x = time.values[~time.missing]
    if time.dates or not len(x) or x.min() < 1 or (x != np.round(x)).any():
        return None
    written = [str(int(value)) for value in (x.min(), x.max())]
    if len(written[0]) != len(written[1]) or (form := DATES_IN_DIGITS.get(len(written[0]))) is None:
        return None
    digits = re.sub(r"[^%\w]", "", form)
    dates = pd.to_datetime(pd.Series(x.astype(np.int64)).astype(str), format=digits, errors="coerce")
    if dates.isna().any() or dates.dt.year.max() >= 2200:
        return None
    since = dates.dt.year * 12 + dates.dt.month if digits == "%Y%m" else dates.astype("datetime64[ns]").astype(np.int64)
    steps = np.diff(x)
    forward = np.flatnonzero(steps > 0)
    rates = steps[forward] / np.diff(since)[forward]
    if not len(rates) or rates.max() <= (1 + ALIKE) * rates.min():
        return None
    k = int(forward[rates.argmax()])
    return (
        f"`time` must be numbers or dates such as 2020-01-31, got {time.name} with {int(x[k])} and then "
        f"{int(x[k + 1])}, which are dates in digits alone; write the first as {dates[k].strftime(form)}"
    )


def in_units(time: Column) -> np.ndarray:
    """Return times as float64, or int64 if float64 is too coarse. Dates count from the first one in their unit."""
    x = time.values
    assert x is not None
    if time.dates:
        return (x - np.nanmin(x)) / TIME_UNITS[unit_of(time)]
    return x.astype(np.float64) if x.dtype != np.int64 or np.abs(x).max() < EXACT else x


def unit_of(dates: Column) -> str:
    """Return the largest unit of time that is not longer than the usual step between dates."""
    assert dates.values is not None
    steps = np.abs(np.diff(dates.values[~dates.missing]))
    usual = float(np.median(steps[steps > 0])) if (steps > 0).any() else 1.0
    return next((name for name, unit in TIME_UNITS.items() if unit <= usual), "nanoseconds")
