"""Reading measured trajectories: what is accepted, each mistake with its line, the split and what training gets."""

from pathlib import Path

import pytest
import torch

import neuralode_exp.data
from neuralode_exp.data.csv_trajectories import Trajectory, observe, read_trajectories, split

LYNX_HARE = Path(neuralode_exp.data.__file__).parent / "assets" / "lynx-hare.csv"
HEADER = "trajectory,t,z1,z2\n"


def write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "data.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def line(name: str, t: list[float]) -> Trajectory:
    """z = 10 t."""
    times = torch.tensor(t, dtype=torch.float64)
    return Trajectory(name, times, 10 * times[:, None])


def test_lynx_and_hare() -> None:
    (trajectory,) = read_trajectories(LYNX_HARE)
    assert torch.equal(trajectory.t, torch.arange(1900.0, 1921.0, dtype=torch.float64))
    assert trajectory.z.shape == (21, 2)
    assert trajectory.z[3].tolist() == [77.4, 35.2]
    assert trajectory.z.sum(dim=0) == pytest.approx([715.7, 423.5])


def test_alternating_irregular_trajectories(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + "b,0,1,2\n7,-1,5,6\nb,0.25,3,4\n7,1e1,7,8\nb,0.5, 1 ,0\n")
    b, seven = read_trajectories(path)
    assert (b.name, seven.name) == ("b", "7")
    assert b.t.tolist() == [0, 0.25, 0.5]
    assert b.z.tolist() == [[1, 2], [3, 4], [1, 0]]
    assert seven.t.tolist() == [-1, 10]
    assert seven.z.tolist() == [[5, 6], [7, 8]]


@pytest.mark.parametrize(
    "text",
    [
        "trajectory,t,z1\r\na,0,1\r\na,1,2\r\n",
        "\ufefftrajectory,t,z1\na,0,1\na,1,2",
        "# a comment, with a comma\n\ntrajectory, t, z1\na,0,1\n\n  # another\na,1,2\n,,\n",
        '"trajectory","t","z1"\n"a",0,1\n"a","1","2"\n',
    ],
    ids=["crlf", "byte order mark, no last newline", "comments and blanks", "quoted"],
)
def test_spellings_of_one_file(tmp_path: Path, text: str) -> None:
    (trajectory,) = read_trajectories(write(tmp_path, text))
    assert trajectory.name == "a"
    assert trajectory.t.tolist() == [0, 1]
    assert trajectory.z.tolist() == [[1], [2]]


GOOD = "a,0,1,2\na,1,1,2\n"


@pytest.mark.parametrize(
    ("rows", "line_number", "message"),
    [
        (GOOD + "a,2,,2\n", 4, "z1 must not be empty; delete the row, times may be irregular"),
        (GOOD + "a,,1,2\n", 4, "t must not be empty; delete the row, times may be irregular"),
        (GOOD + ",2,1,2\n", 4, "trajectory must not be empty; give each trajectory a name"),
        (GOOD + "a,2,1,x\n", 4, "z2 must be a number, got 'x'"),
        (GOOD + "a,2,nan,1\n", 4, "z1 must be finite, got nan; delete the row, times may be irregular"),
        (GOOD + "a,2,1e999,1\n", 4, "z1 must be finite, got 1e999; delete the row, times may be irregular"),
        (GOOD + "a,2,1\n", 4, "a row must have 4 columns, got 3"),
        (GOOD + "a,2,1,2,3\n", 4, "a row must have 4 columns, got 5"),
        (
            GOOD + "\n# x\na,0.5,1,2\n",
            6,
            "t must increase within a trajectory, got 0.5 after 1 in line 3; sort the rows",
        ),
        (
            GOOD + "a,1,1,2\n",
            4,
            "t must increase within a trajectory, got 1 after 1 in line 3; keep one of the two rows",
        ),
        (GOOD + "b,1,1,2\n", 4, "a trajectory must have at least 2 rows, 'b' has 1; delete it"),
    ],
)
def test_wrong_rows(tmp_path: Path, rows: str, line_number: int, message: str) -> None:
    path = write(tmp_path, HEADER + rows)
    with pytest.raises(ValueError, match=r"data\.csv") as error:
        read_trajectories(path)
    assert str(error.value).startswith(f"{path}:{line_number}: {message}")
    assert "\n" not in str(error.value)


def test_all_problems_at_once(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + "b,0,1,2\n" + GOOD + "a,0.5,1,2\na,2,,2\na,2\na,3,1,2\n")
    with pytest.raises(ValueError, match=r"data\.csv") as error:
        read_trajectories(path)
    assert [row.split(":")[1] for row in str(error.value).splitlines()] == ["2", "5", "6", "7"]

    path = write(tmp_path, HEADER + GOOD + "a,x,1,2\n" * 25)
    with pytest.raises(ValueError, match=r"data\.csv") as error:
        read_trajectories(path)
    rows = str(error.value).splitlines()
    assert len(rows) == 11
    assert rows[-1] == f"{path}: 25 problems in all, the first 10 are listed"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have a header trajectory,t,z1,...,zd and rows, it is empty"),
        ("\n\n", "must have a header trajectory,t,z1,...,zd and rows, it is empty"),
        (HEADER, "must have rows below its header, it has none"),
        ("0,0,1,2\n0,1,1,2\n", ":1: the header must be trajectory,t,z1,...,zd, got 0,0,1,2; rename the columns"),
        ("trajectory,t\na,0\n", ":1: the header must be trajectory,t,z1,...,zd, got trajectory,t; rename the columns"),
        ("trajectory,t,x,y\n" + GOOD, ":1: the header must be trajectory,t,z1,...,zd, got trajectory,t,x,y"),
        ("trajectory;t;z1\na;0;1\n", ":1: the header must be trajectory,t,z1,...,zd, got trajectory;t;z1"),
        ((HEADER + GOOD).encode("utf-16"), "must be csv text in UTF-8, got something else"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ValueError, match=r"data\.csv") as error:
        read_trajectories(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    for path in (tmp_path / "nothing.csv", tmp_path):
        with pytest.raises(ValueError, match=r"`path` must be a csv file .*: no such file"):
            read_trajectories(path)


def test_split_by_trajectories() -> None:
    trajectories = [line(str(i), [0, 1]) for i in range(10)]
    parts = split(trajectories, 0.3, seed=1)
    names = [[trajectory.name for trajectory in part] for part in (parts.train, parts.held_out)]
    assert sorted(names[0] + names[1]) == sorted(str(i) for i in range(10))
    assert len(names[1]) == 3
    assert parts.note == "held out: 3 of 10 trajectories"
    again = split(trajectories, 0.3, seed=1)
    assert [trajectory.name for trajectory in again.held_out] == names[1]
    others = {tuple(trajectory.name for trajectory in split(trajectories, 0.3, seed).held_out) for seed in range(10)}
    assert len(others) > 5
    assert len(split(trajectories[:2], 0.9).train) == 1
    assert len(split(trajectories, 0.01).held_out) == 1
    assert split(trajectories, 0).held_out == []


def test_split_of_one_trajectory_is_in_time() -> None:
    parts = split(read_trajectories(LYNX_HARE), 0.2)
    assert parts.train[0].t.tolist() == list(range(1900, 1917))
    assert parts.held_out[0].t.tolist() == list(range(1917, 1921))
    assert parts.note == "held out: the last 4 of 21 observations, from t = 1917 on, of the only trajectory"
    with pytest.raises(ValueError, match=r"must have at least 4 observations .*, 'a' has 3; use validation=0"):
        split([line("a", [0, 1, 2])])
    with pytest.raises(ValueError, match=r"`validation` must be a fraction in \[0, 1\), got 1"):
        split([line("a", [0, 1, 2])], 1)


def test_times_stay_as_they_are_and_states_take_the_precision(tmp_path: Path) -> None:
    """Seconds since 1970: float32 resolves 128 s."""
    path = write(tmp_path, HEADER + "a,1700000000,1,2\na,1700000001,1,2\nb,0,1,2\nb,1,1,2\n")
    observed = observe(path, 0.5, 0, torch.float32)
    assert sorted(len(t) for t in observed.times) == [2]
    assert all(t.diff().tolist() == [1.0] for t in (*observed.times, observed.validation[0].t))
    assert observed.states[0].dtype == observed.validation[0].z.dtype == torch.float32
    assert observed.validation[0].z.shape == (2, 1, 2)
    assert (observed.noise, observed.known, observed.test) == (None, None, [])


def test_states_outside_the_precision_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + "a,0,1,2\na,1,1e31,2\n")
    with pytest.raises(ValueError, match=r"range of float32, got \|z\| = 1.0e\+31; rescale"):
        observe(path, 0.0, 0, torch.float32)
    assert observe(path, 0.0, 0, torch.float64).states[0].isfinite().all()
