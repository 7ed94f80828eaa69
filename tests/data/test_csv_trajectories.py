"""Reading measured trajectories: what columns are for, each kind of mistake with its first line, split and units."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

import neuralode_exp.data
from neuralode_exp.data.csv_trajectories import Trajectory, read_trajectories
from neuralode_exp.data.measured import observe, split

LYNX_HARE = Path(neuralode_exp.data.__file__).parent / "assets" / "lynx-hare.csv"
HEADER = "trajectory,t,z1,z2\n"
GOOD = "a,0,1,2\na,1,1,2\n"
SUBJECTS = "Subject,Dose,Time,conc\n1,4,0,1\n1,4,2,3\n2,5,0,2\n2,5,3,1\n"


def write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "data.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def line(name: str, t: list[float]) -> Trajectory:
    """z = 10 t."""
    times = torch.tensor(t, dtype=torch.float64)
    return Trajectory(name, times, 10 * times[:, None])


def problems(path: Path, **columns: Any) -> list[str]:
    with pytest.raises(ValueError, match=r"\w") as error:
        read_trajectories(path, **columns)
    return str(error.value).replace(str(path), "FILE").splitlines()


def test_lynx_and_hare() -> None:
    (trajectory,) = read_trajectories(LYNX_HARE).trajectories
    assert torch.equal(trajectory.t, torch.arange(1900.0, 1921.0, dtype=torch.float64))
    assert trajectory.z.shape == (21, 2)
    assert trajectory.z[3].tolist() == [77.4, 35.2]
    assert trajectory.z.sum(dim=0) == pytest.approx([715.7, 423.5])


@pytest.mark.parametrize("path", sorted(LYNX_HARE.parent.glob("*.csv")), ids=lambda path: path.stem)
def test_a_set_of_the_package_is_known_by_its_name(path: Path) -> None:
    named, there = read_trajectories(path.name), read_trajectories(path)
    assert named.note == there.note
    assert "trajectory" in named.note
    assert path.read_text().startswith("# ")  # its source


def test_a_long_forecast_is_made_of_short_ones(tmp_path: Path) -> None:
    path = write(tmp_path, rows(100))
    whole = observe(path, 0.5, 0, torch.float64)
    assert [len(x.t) for x in whole.validation] == [50]
    parts = observe(path, 0.5, 0, torch.float64, forecast=20).validation
    assert [x.t.tolist() for x in parts] == [
        [float(k) for k in range(a, b)] for a, b in ((50, 71), (70, 91), (90, 100))
    ]
    assert len(observe(path, 0.5, 0, torch.float64, forecast=1).validation) == 20


def test_alternating_irregular_trajectories(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + "b,0,1,2\n7,-1,5,6\nb,0.25,3,4\n7,1e1,7,8\nb,0.5, 1 ,0\n")
    b, seven = read_trajectories(path).trajectories
    assert (b.name, seven.name) == ("b", "7")
    assert b.t.tolist() == [0, 0.25, 0.5]
    assert b.z.tolist() == [[1, 2], [3, 4], [1, 0]]
    assert seven.t.tolist() == [-1, 10]
    assert seven.z.tolist() == [[5, 6], [7, 8]]


@pytest.mark.parametrize(
    ("text", "columns", "understood"),
    [
        ("year,hare,lynx\n1900,3,4\n1901,2,5\n", {}, 'time "year", states "hare", "lynx", 1 trajectory'),
        ("x,Time (s),y\n1,0,1\n0,1,2\n", {}, 'time "Time (s)", states "x", "y", 1 trajectory'),
        ("x,y\n1,0\n0,1\n1,4\n", {}, 'time "y", states "x", 1 trajectory'),
        ("x,y\n1,0\n0,1\n1,4\n", {"time": "2"}, 'time "y", states "x", 1 trajectory'),
        ("x,y\n1,0\n0,-1\n", {"step": 0.5}, 'steps of 0.5, states "x", "y", 1 trajectory'),
        (",t,x\n0,0,5\n1,2,3\n2,3,5\n", {}, 'time "t", states "x", 1 trajectory; left out: row numbers'),
        ("t,x,note\n0,1,up\n1,2,down\n", {}, 'time "t", states "x", 1 trajectory; left out: note'),
        (
            "x,date\n1,2020-01-01\n2,2020-01-02\n3,2020-01-04\n",
            {},
            'time "date" (dates, in days), states "x", 1 trajectory',
        ),
        (
            SUBJECTS,
            {"trajectory": ("Subject", "Dose")},
            'time "Time", states "conc", 2 trajectories by "Subject", "Dose"',
        ),
        (
            SUBJECTS,
            {"trajectory": ("1",), "states": ("conc",)},
            'time "Time", states "conc", 2 trajectories by "Subject"; left out: Dose',
        ),
    ],
)
def test_what_is_understood_is_said(tmp_path: Path, text: str, columns: Mapping[str, Any], understood: str) -> None:
    path = write(tmp_path, text)
    note = read_trajectories(path, **columns).note
    assert note == f"read {len(text.splitlines()) - 1} rows of {path}: {understood}"


@pytest.mark.parametrize(
    ("dates", "t"),
    [
        (["2020-01-01", "2020-01-02", "2020-01-04"], [0, 1, 3]),
        (["2020-01-01 00:00", "2020-01-01 06:00", "2020-01-01 07:00"], [0, 6, 7]),
        (["2020-01-01T00:00:00Z", "2020-01-01T00:00:01.5Z", "2020-01-01T00:00:02Z"], [0, 1.5, 2]),
        (["28/02/2020", "29/02/2020", "01/03/2020"], [0, 1, 2]),
        (["02/28/2020", "02/29/2020", "03/01/2020"], [0, 1, 2]),
        (["1.2.2020", "2.2.2020", "3.2.2020"], [0, 1, 2]),
    ],
)
def test_dates_are_numbers_from_the_first(tmp_path: Path, dates: list[str], t: list[float]) -> None:
    path = write(tmp_path, "when,x\n" + "".join(f"{date},{k}\n" for k, date in enumerate(dates)))
    assert read_trajectories(path).trajectories[0].t.tolist() == t


def test_dates_with_two_meanings_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "when,x\n01/02/2020,1\n02/02/2020,2\n")
    rule = 'FILE must have dates with one meaning, got 01/02/2020 in column "when"; write them as 2020-01-31'
    assert problems(path) == [rule]


@pytest.mark.parametrize(
    ("rows", "line_number", "message"),
    [
        (GOOD + "a,,1,2\n", 4, "t must not be empty; delete the row, times may be irregular"),
        (GOOD + ",2,1,2\n", 4, "trajectory must not be empty; give each a name"),
        (GOOD + "a,2,1,x\n", 4, "z2 must be a number, got 'x'; a missing one is an empty cell"),
        (GOOD + "a,2,1e999,1\n", 4, "z1 must be finite, got inf; leave the cell empty"),
        (GOOD + "a,2,1\n", 4, "a row must have 4 columns, got 3"),
        (GOOD + "a,2,1,2,3\n", 4, "a row must have 4 columns, got 5"),
        (
            GOOD + "\n# x\na,0.5,1,2\n",
            6,
            "t must increase within a trajectory, got 0.5 after 1 in line 3; sort the rows by time",
        ),
        (
            GOOD + "a,1,1,2\n",
            4,
            "t must not stand twice in a trajectory, got 1 after 1 in line 3; keep one of the rows, or "
            "dataset.repeats=mean",
        ),
        (GOOD + "b,1,1,2\n", 4, "a trajectory must have at least 2 rows, got 1, of 'b'; delete it"),
    ],
)
def test_wrong_rows(tmp_path: Path, rows: str, line_number: int, message: str) -> None:
    found = problems(write(tmp_path, HEADER + rows))
    assert f"FILE:{line_number}: {message}" in found
    assert len(found) == 1 or ",2,1,2\n" in rows  # a row without a label is a trajectory of one row too


def test_each_kind_of_mistake_stands_once_with_its_count(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + "b,0,1,2\nb,1,1,2\n" + GOOD + "a,0.5,1,2\na,2,x,2\na,3\na,4,y,2\na,5,1,2,3\n")
    assert problems(path) == [
        "FILE:7: z1 must be a number, got 'x' (2 such rows); a missing one is an empty cell",
        "FILE:8: a row must have 4 columns, got 2 (2 such rows)",
        "FILE:6: t must increase within a trajectory, got 0.5 after 1 in line 5; sort the rows by time",
    ]


def test_times_that_go_back_without_a_label_are_refused_with_both_ways_out(tmp_path: Path) -> None:
    assert problems(write(tmp_path, SUBJECTS)) == [
        "FILE:4: Time must increase within a trajectory, got 0 after 2 in line 3; sort the rows by time, or name the "
        "column that tells trajectories apart: dataset.trajectory=NAME"
    ]


def test_a_row_without_states_keeps_its_place_in_time(tmp_path: Path) -> None:
    (trajectory,) = read_trajectories(write(tmp_path, "x,y\n1,2\n,NA\n3,\n"), step=0.5).trajectories
    assert trajectory.t.tolist() == [0, 1]
    assert trajectory.z[:, 0].tolist() == [1, 3]


def test_repeated_times_may_be_averaged_cell_by_cell(tmp_path: Path) -> None:
    path = write(tmp_path, "t,x,y\n0,1,1\n1,2,\n1,4,5\n2,0,0\n")
    (trajectory,) = read_trajectories(path, repeats="mean").trajectories
    assert trajectory.t.tolist() == [0, 1, 2]
    assert trajectory.z.tolist() == [[1, 1], [3, 5], [0, 0]]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"time": "tt"}, '`time` must be a column of FILE, got tt; it has "t", "x", "who", "gone"'),
        ({"states": ("x", "9")}, '`states` must be a column of FILE, got 9; it has "t", "x", "who", "gone"'),
        ({"states": ("who",)}, "`states` must be a column of numbers, got who with 'a'"),
        ({"step": 0.1, "time": "t"}, "`step` must be left out where there is a column of times, got 0.1 and t"),
        ({"states": ("x", "x")}, "`states` must name each column once, got x twice; leave one out"),
        (
            {"states": ("x",), "inputs": ("x",)},
            "`inputs` must be columns without another role, got x, which `states` has too; leave it out of one",
        ),
        (
            {"time": "1", "states": ("t", "x")},
            "`states` must be columns without another role, got t, which `time` has too; leave it out of one",
        ),
        ({"states": ("x", "gone")}, "`states` must be a column with values, got gone, all empty; leave it out"),
    ],
)
def test_wrong_columns(tmp_path: Path, columns: Mapping[str, Any], message: str) -> None:
    text = "t,x,who,gone\n0,1,a,\n1,2,b,\n"
    assert problems(write(tmp_path, text), **columns) == [message]
    assert read_trajectories(write(tmp_path, text)).states == ["x"]  # what is empty is no state


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a,b\n1,2\n0,1\n",
            '`time` must be a column that increases, got "a", "b" in FILE; sort the rows by time, '
            "name the column of trajectories by dataset.trajectory=NAME, or add dataset.step=0.1 "
            "if the table has no times",
        ),
        ("t,time,x\n0,0,1\n1,1,2\n", '`time` must be one column, but FILE has "t", "time"; add dataset.time=1'),
        (
            "t,note\n0,a\n1,b\n",
            '`states` must be columns of numbers, FILE has none beside its time; it has "t", "note"',
        ),
    ],
)
def test_what_cannot_be_told_apart_is_refused_with_the_line_to_type(tmp_path: Path, text: str, message: str) -> None:
    assert problems(write(tmp_path, text)) == [message]


def test_split_by_trajectories() -> None:
    trajectories = [line(str(i), [0, 1]) for i in range(10)]
    parts = split(trajectories, 0.3, seed=1)
    names = [[x.name for x in parts.train], [part.held_out.name for part in parts.held_out]]
    assert sorted(names[0] + names[1]) == sorted(str(i) for i in range(10))
    assert len(names[1]) == 3
    assert parts.note == "held out: 3 of 10 trajectories"
    again = split(trajectories, 0.3, seed=1)
    assert [part.held_out.name for part in again.held_out] == names[1]
    others = {tuple(part.held_out.name for part in split(trajectories, 0.3, seed).held_out) for seed in range(10)}
    assert len(others) > 5
    assert len(split(trajectories[:2], 0.9).train) == 1
    assert len(split(trajectories, 0.01).held_out) == 1
    assert split(trajectories, 0).held_out == []


def test_split_of_one_trajectory_is_in_time() -> None:
    parts = split(read_trajectories(LYNX_HARE).trajectories, 0.2)
    assert parts.train[0].t.tolist() == list(range(1900, 1917))
    assert parts.held_out[0].held_out.t.tolist() == list(range(1917, 1921))
    assert parts.note == "held out: the last 4 of 21 observations, from t = 1917 on, of the only trajectory"
    with pytest.raises(ValueError, match=r"must have at least 4 observations .*, 'a' has 3; add rows"):
        split([line("a", [0, 1, 2])])
    with pytest.raises(ValueError, match=r"`validation` must be a fraction in \[0, 1\), got 1"):
        split([line("a", [0, 1, 2])], 1)


def test_of_few_trajectories_one_and_the_ends_of_the_others_are_held_out() -> None:
    trajectories = [line(str(i), list(range(10))) for i in range(4)]
    parts = split(trajectories, 0.2)
    assert parts.note == "held out: 1 of 4 trajectories and the last part of 3 others"
    whole, *ends = parts.held_out
    assert len(whole.held_out.t) == 10
    assert whole.held_out.name not in {x.name for x in parts.train}
    for end, train in zip(ends, parts.train, strict=True):
        assert end.held_out.name == train.name
        assert torch.cat([train.t, end.held_out.t]).tolist() == list(range(10))
    assert len(split(trajectories, 0.2, hold_out="trajectories").held_out) == 1
    assert [len(part.held_out.t) for part in split(trajectories, 0.2, hold_out="ends").held_out] == [2] * 4
    assert len(split([*trajectories, trajectories[0]], 0.2).held_out) == 1


def rows(n: int, shift: str = "", *, factor: float = 1, offset: float = 0, start: int = 0) -> str:
    """t = start + 0, 1, ... as whole numbers, z = factor * (t^2 - start^2 ...) + offset."""
    return "t,x,y\n" + "".join(f"{start + k},{k * k * factor + offset},{(k % 3) * factor + offset}\n" for k in range(n))


def test_units_of_the_file_leave_times_and_states_as_they_are(tmp_path: Path) -> None:
    observed = observe(write(tmp_path, rows(12, start=1_700_000_000)), 0.25, 0, torch.float32, units="file")
    assert observed.times[0].tolist() == [1_700_000_000.0 + k for k in range(9)]
    assert observed.states[0].dtype == observed.validation[0].z.dtype == torch.float32
    assert observed.states[0][:3].tolist() == [[0, 0], [1, 1], [4, 2]]
    assert observed.validation[0].z.shape == (3, 1, 2)
    assert (observed.noise, observed.known, observed.test, observed.scale) == (None, None, [], None)


@pytest.mark.parametrize(
    "change",
    [
        {"factor": 1e-9},
        {"factor": 1e20},
        {"offset": 300},
        {"offset": 1e6},
        {"start": 100_000},
        {"start": 1_700_000_000_000_000_000},
    ],
)
def test_units_of_the_spread_are_the_same_for_any_scale(tmp_path: Path, change: Mapping[str, Any]) -> None:
    plain = observe(write(tmp_path, rows(12)), 0.25, 0, torch.float32, units="spread")
    observed = observe(write(tmp_path, rows(12, **change)), 0.25, 0, torch.float32, units="spread")
    assert observed.times[0].tolist() == plain.times[0].tolist() == list(range(9))
    assert observed.validation[0].t.tolist() == [0, 1, 2]  # from their own start
    torch.testing.assert_close(observed.states[0], plain.states[0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(observed.validation[0].z, plain.validation[0].z, rtol=1e-5, atol=1e-5)
    z = plain.states[0]
    torch.testing.assert_close(z.mean(0), torch.zeros(2), rtol=0, atol=1e-6)
    torch.testing.assert_close(z.std(0, correction=0), torch.ones(2))


def test_steps_of_any_unit_of_time_are_alike(tmp_path: Path) -> None:
    texts = ["t,x\n" + "".join(f"{k * step!r},{k % 4}\n" for k in range(10)) for step in (0.03, 3e7)]
    slow, fast = (observe(write(tmp_path, text), 0.2, 0, torch.float32, units="spread").times[0] for text in texts)
    torch.testing.assert_close(slow, fast)


def test_missing_cells_stay_missing_and_states_to_start_from_are_filled(tmp_path: Path) -> None:
    text = "t,x,y\n" + "".join(f"{k},{k},{'' if k in (2, 8) else -999 if k == 4 else k * k}\n" for k in range(10))
    observed = observe(write(tmp_path, text), 0.2, 0, torch.float64, units="spread", missing=("-999",))
    assert 'states "x", "y", 3 missing cells' in observed.note
    assert observed.states[0].isnan().nonzero().tolist() == [[2, 1], [4, 1]]
    (held_out,) = observed.validation
    assert held_out.judged.isnan().nonzero().tolist() == [[0, 0, 1]]
    assert held_out.z.isfinite().all()
    assert observed.scale is not None
    known = torch.tensor([0.0, 1, 9, 25, 36, 49]).double()
    torch.testing.assert_close(observed.scale.offset[1], known.mean())
    torch.testing.assert_close(observed.scale.unit[1], known.std(correction=0))


def test_a_sentinel_far_off_gets_a_warning_with_the_key(tmp_path: Path) -> None:
    text = "t,x\n" + "".join(f"{k},{-999 if k == 5 else k % 4}\n" for k in range(20))
    (warning,) = read_trajectories(write(tmp_path, text)).warnings
    assert warning == (
        '"x" has -999 far off its other values; if it stands for a missing value, add dataset.missing=[-999]'
    )
    assert not read_trajectories(write(tmp_path, text), missing=("-999",)).warnings


def test_states_outside_the_precision_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, rows(9, factor=1e30))
    with pytest.raises(
        ValueError, match=r"float32 can hold, got .* with 6.4e\+31; use other units or precision=float64"
    ):
        observe(path, 0.0, 0, torch.float32, units="file")
    assert observe(path, 0.0, 0, torch.float32, units="spread").states[0].abs().max() < 5
    with pytest.raises(ValueError, match=r"squares float64 can hold, got .* with 6.4e\+201; use other units$"):
        observe(write(tmp_path, rows(9, factor=1e200)), 0.0, 0, torch.float64, units="spread")


def test_too_few_rows_for_the_noise_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"must have at least 5 observations, .*, the longest has 3; add rows"):
        observe(write(tmp_path, rows(5)), 0.3, 0, torch.float32, units="spread")
