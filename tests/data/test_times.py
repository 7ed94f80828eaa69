"""Which column of a table has the times: names and dates decide, and what may be two columns is refused."""

from pathlib import Path
from typing import Any

import pytest

from neuralode_exp.data.csv_trajectories import Measured, read_trajectories

UP, WAVE = [1, 2, 4, 7, 8], [3, 1, 2, 3, 1]
DAYS = [f"2020-01-{k:02d}" for k in (1, 2, 3, 4, 5)]


def read(tmp_path: Path, head: str, *columns: Any, **keys: Any) -> Measured:
    rows = [",".join(map(str, row)) for row in zip(*columns, strict=True)]
    (tmp_path / "x.csv").write_text("\n".join([head, *rows]), encoding="utf-8")
    return read_trajectories(tmp_path / "x.csv", **keys)


def refused(tmp_path: Path, head: str, *columns: Any, **keys: Any) -> str:
    with pytest.raises(ValueError, match=r"\w") as error:
        read(tmp_path, head, *columns, **keys)
    return str(error.value).replace(str(tmp_path / "x.csv"), "FILE")


@pytest.mark.parametrize(
    ("head", "columns", "understood"),
    [
        ("date,T,P", (DAYS, UP, WAVE), '"date" (dates, in days), states "T", "P"'),
        ("hours,T [K],P", (UP, UP, WAVE), '"hours", states "T [K]", "P"'),
        ("id,year,x,y", (UP, UP, WAVE, UP), '"year", states "id", "x", "y"'),
        ("Temp,Day", (UP, UP), '"Day", states "Temp"'),
        ("T,t [s]", (UP, UP), '"t [s]", states "T"'),
        ("T,x", (UP, WAVE), '"T", states "x"'),
        ("x,time_s", (UP, UP), '"time_s", states "x"'),
        ("hours of sleep,Day", (UP, UP), '"Day", states "hours of sleep"'),
        (",x", ([0.0, 0.5, 0.7, 1.1, 2.0], WAVE), '"", states "x"'),
        (",x,t", ([0, 2, 3, 5, 6], WAVE, UP), '"t", states "x"'),  # the row numbers of some of the rows
    ],
)
def test_a_name_of_time_and_dates_go_first(tmp_path: Path, head: str, columns: Any, understood: str) -> None:
    assert f"time {understood}, 1 trajectory" in read(tmp_path, head, *columns).note


@pytest.mark.parametrize(
    ("head", "columns", "rule"),
    [
        ("id,x", (UP, UP), 'must be one column, but FILE has "id", "x"; add dataset.time=1'),
        ("x,t,date", (UP, UP, DAYS), 'must be one column, but FILE has "t", "date"; add dataset.time=2'),
        ("time,day", (WAVE, UP), 'must be one column, but FILE has "time", "day"; add dataset.time=2'),
        (
            "year,month,x",
            ([2020] * 5, WAVE, UP),
            'must be one column, but FILE has "year", "month"; write them as one column such as 2020-01-31 12:00, or '
            "add dataset.time=1",
        ),
        (
            "date,time,x",
            (DAYS, ["10:00"] * 5, UP),
            'must be one column, but FILE has "date", "time"; write them as one column such as 2020-01-31 12:00, or '
            "add dataset.time=1",
        ),
        *(
            (
                "month,pop,x",
                ([month] * 5, UP, WAVE),
                f"must be a column of numbers or of dates such as 2020-01-31 12:00, got month with '{month}'; write "
                "its cells so, or add dataset.time=NAME for another column",
            )
            for month in ("Jan 2020", "Jan")
        ),
    ],
)
def test_two_columns_that_may_be_times_are_refused_with_the_key(
    tmp_path: Path, head: str, columns: Any, rule: str
) -> None:
    assert refused(tmp_path, head, *columns) == f"`time` {rule}"


def test_the_key_decides(tmp_path: Path) -> None:
    assert 'time "x", states "id", ' in read(tmp_path, "id,x", UP, UP, time="x").note


@pytest.mark.parametrize("cell", ["1/25/20", "25-Jan-2020", "10:00:00", "2020-W01"])
def test_a_date_that_cannot_be_read_is_named(tmp_path: Path, cell: str) -> None:
    unread, generic = refused(tmp_path, "when,x", [cell] * 5, WAVE).splitlines()
    assert unread == (
        "FILE:2: when must be a number in the digits 0 to 9, without a unit or a separator of thousands, or a date "
        f"such as 2020-01-31 12:00, got '{cell}' (5 such rows)"
    )
    assert generic.startswith("`time` must be a column that increases, ")
    assert f"or of dates such as 2020-01-31 12:00, got date with '{cell}'" in refused(
        tmp_path, "date,x", [cell] * 5, WAVE
    )


@pytest.mark.parametrize(
    ("times", "got"),
    [
        (
            [202010, 202011, 202012, 202101],
            "202012 and then 202101, which are dates in digits alone; write the first as 2020-12",
        ),
        (
            [20200130, 20200131, 20200201],
            "20200131 and then 20200201, which are dates in digits alone; write the first as 2020-01-31",
        ),
        (
            [2020013122, 2020013123, 2020020100],
            "2020013123 and then 2020020100, which are dates in digits alone; write the first as 2020-01-31 23",
        ),
    ],
)
@pytest.mark.parametrize("keys", [{}, {"time": "month"}])
def test_dates_in_digits_are_refused(tmp_path: Path, times: list[int], got: str, keys: dict[str, str]) -> None:
    line = refused(tmp_path, "month,x", times, WAVE[: len(times)], **keys)
    assert line == f"`time` must be numbers or dates such as 2020-01-31, got month with {got}"


@pytest.mark.parametrize(
    "times",
    [
        [202001, 202002, 202003, 202005],  # months of one year are as far apart as numbers
        [20200101, 20210101, 20220101, 20230101],  # and so are years
        [202011, 202012, 202013, 202014],
        [100, 101, 102, 103],
    ],
)
def test_numbers_that_only_look_like_dates_are_numbers(tmp_path: Path, times: list[int]) -> None:
    assert read(tmp_path, "t,x", times, WAVE[:4]).trajectories[0].t.tolist() == times


def test_row_numbers_among_the_states_get_a_warning_with_the_key(tmp_path: Path) -> None:
    columns = ("id,year,x,y", [1, 2, 3, 4, 5], UP, WAVE, UP)
    assert read(tmp_path, *columns).warnings == ['"id" counts the rows; dataset.states=[x,y] leaves it out']
    assert read(tmp_path, *columns, states=("id", "x")).warnings == []


def test_a_trajectory_without_values_is_named_at_its_own_line(tmp_path: Path) -> None:
    line = refused(tmp_path, "trajectory,t,x", list("aabb"), [0, 1, 0, 1], [1, 2, "", ""])
    assert line == "FILE:4: a trajectory must have at least 2 rows, got 0 with values, of 'b'; delete it"


@pytest.mark.parametrize("value", [-9, -999, -99.9, -99.99, -9999.9, 1e20])
def test_words_for_a_missing_value_are_suspected(tmp_path: Path, value: float) -> None:
    x = [value, *([0.1, 0.2, 0.3, 0.2] * 5)]
    (warning,) = read(tmp_path, "t,x", range(21), x).warnings
    assert f'"x" has {value:g} far off its other values' in warning
    assert not read(tmp_path, "t,x", range(21), [-123.4, *x[1:]]).warnings
