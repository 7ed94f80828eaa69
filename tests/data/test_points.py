import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from neuralode_exp.data.points import PointTarget, read_points
from neuralode_exp.trainers.density.build import build

TWO_ROWS = [[1.0, 2.5], [-3.0, 4e-3]]


def points_of(path: Path, names: Sequence[str] | None = None) -> torch.Tensor:
    return read_points(path, names)[0]


def write(folder: Path, text: str) -> Path:
    path = folder / "points.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text",
    ["1,2.5\n-3,4e-3\n", "x,y\n1,2.5\n-3,4e-3", "# x, y\n\n1, 2.5\n\n-3, 0.004\n", "\ufeff1,2.5\r\n-3,4e-3\r\n"],
    ids=["plain", "header", "blank lines", "byte order mark"],
)
def test_csv_is_read(tmp_path: Path, text: str) -> None:
    points = points_of(write(tmp_path, text))
    assert points.dtype == torch.float64
    assert points.tolist() == TWO_ROWS


def test_one_column_has_one_dimension(tmp_path: Path) -> None:
    assert points_of(write(tmp_path, "1\n2\n3\n")).shape == (3, 1)


@pytest.mark.parametrize("dtype", ["float64", "float32", "int16", ">f8"])
def test_npy_is_read(tmp_path: Path, dtype: str) -> None:
    array = np.array([[1, 2, 3], [4, 5, 6]], dtype=dtype)
    np.save(tmp_path / "points.npy", array)
    points = points_of(tmp_path / "points.npy")
    assert points.dtype == torch.float64
    assert points.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_each_kind_of_mistake_stands_once_with_its_first_line(tmp_path: Path) -> None:
    path = write(tmp_path, "x,y\n1,2\n1,2,3\n\n4,five\n6,nan\n7,1e999\n8,\n9,10\n9,six\n")
    with pytest.raises(ValueError, match=r"points\.csv") as error:
        points_of(path)
    assert str(error.value).replace(str(path), "FILE").splitlines() == [
        "FILE:3: a row must have 2 columns, got 3",
        "FILE:5: y must be a number, got 'five' (2 such rows); a missing one is an empty cell",
        "FILE:7: y must be finite, got inf; leave the cell empty",
        "FILE:6: y must not be empty (2 such rows); delete the row, or leave the column out with dataset.columns",
    ]


@pytest.mark.parametrize("text", ["", "\n\n", "x,y\n"])
def test_empty_csv_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="must have rows"):
        points_of(write(tmp_path, text))


def test_columns_are_chosen_by_name_or_number_and_text_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path, "n,x,who,y\n0,5,a,2\n1,6,b,3\n2,8,c,5\n")
    assert points_of(path).tolist() == [[0, 5, 2], [1, 6, 3], [2, 8, 5]]
    assert points_of(path, ("y", "2")).tolist() == [[2, 5], [3, 6], [5, 8]]
    assert PointTarget(path, 0.0, columns=("x",)).note == f'read 3 points of {path}: "x"; left out: n, who, y'
    with pytest.raises(ValueError, match="`columns` must be columns of numbers, got who with 'a'"):
        points_of(path, ("who",))


def test_row_numbers_and_labels_get_a_warning_with_the_key(tmp_path: Path) -> None:
    text = "n,x,kind\n" + "".join(f"{i},{math.sin(i)},{i % 3}\n" for i in range(100))
    numbers, label = PointTarget(path := write(tmp_path, text)).warnings
    assert numbers == f'"n" of {path} counts the rows; dataset.columns=[x,kind] leaves it out'
    assert label == f'"kind" of {path} looks like a label; dataset.columns=[n,x] leaves it out'
    assert PointTarget(path, columns=("x",)).warnings == []


@pytest.mark.parametrize("shape", [(4,), (0, 2), (2, 0), (2, 2, 2), ()])
def test_npy_of_another_shape_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "points.npy", np.zeros(shape))
    with pytest.raises(ValueError, match=r"shape \(n, d\) with n, d >= 1, got \("):
        points_of(tmp_path / "points.npy")


def test_npy_with_bad_rows_pickles_or_rubbish_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "points.npy"
    np.save(path, np.array([[0.0, 1.0], [np.nan, 1.0], [np.inf, 2.0]]))
    with pytest.raises(ValueError, match=r"row 3: 1 must be finite, got inf(.|\n)*row 2: 1 must not be empty"):
        points_of(path)
    np.save(path, np.array([[{}, 1]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="must be a plain npy file of numbers; save it with"):
        points_of(path)
    np.save(path, np.array([["a", "b"]]))
    with pytest.raises(ValueError, match="must hold real numbers, got dtype <U1"):
        points_of(path)
    for content in (b"", b"1,2\n", b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="must be a plain npy file of numbers"):
            points_of(path)


def test_wrong_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`path` must name a file, got .*, which does not exist"):
        points_of(tmp_path / "points.csv")
    path = tmp_path / "points.csv"
    path.write_bytes(b"\xff\xfe1,2")
    with pytest.raises(ValueError, match="must be text in UTF-8, UTF-16 or Latin-1"):
        points_of(path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "points.npy"
    np.save(path, np.random.default_rng(0).normal(size=(1000, 3)) * [1.0, 20.0, 0.1] + [0.0, 5e6, -1.0])
    return path


def test_split_holds_each_row_once_and_depends_on_the_seed_alone(file: Path) -> None:
    target = PointTarget(path=file, validation=0.25, seed=3)
    train, held_out = target.train, target.held_out
    assert (len(train), len(held_out), target.dim) == (750, 250, 3)
    rows = torch.cat((train, held_out)) * target.unit + target.offset
    torch.testing.assert_close(rows.sort(0).values, points_of(file).sort(0).values, rtol=1e-12, atol=1e-12)
    assert torch.equal(train, PointTarget(file, 0.25, 3).train)
    assert not torch.equal(train, PointTarget(file, 0.25, 4).train)


def test_training_rows_are_standardised_and_samples_are_training_rows(file: Path) -> None:
    target = PointTarget(file)
    zero, one = torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    # 5e6 with a deviation of 20: nine digits of sixteen are left.
    torch.testing.assert_close(target.train.mean(0), zero, rtol=0, atol=1e-8)
    torch.testing.assert_close(target.train.std(0), one, rtol=0, atol=1e-8)
    x = target.sample(50, torch.Generator().manual_seed(1))
    assert torch.equal(x, target.sample(50, torch.Generator().manual_seed(1)))
    assert ((x[:, None, :] == target.train).all(2).sum(1) == 1).all()
    assert ((x > target.box[0]) & (x < target.box[1])).all()
    assert target.log_prob(x) is None


def test_nothing_may_be_held_out(file: Path) -> None:
    assert PointTarget(file, validation=0.0).held_out.shape == (0, 3)


def test_a_single_held_out_point_is_for_validation(tmp_path: Path, compose) -> None:
    path = write(tmp_path, "x,y\n1,2\n2,1\n3,5\n4,4\n5,7\n")
    task = build(compose("dataset=points", f"dataset.path={path}", "trainer.batch_size=4"), torch.device("cpu"))
    assert (len(task.validation), len(task.test)) == (1, 0)


@pytest.mark.parametrize("validation", [-0.1, 1.0, math.nan])
def test_validation_must_be_a_fraction(file: Path, validation: float) -> None:
    with pytest.raises(ValueError, match=r"`validation` must be a fraction in \[0, 1\), got"):
        PointTarget(file, validation)


def test_points_that_cannot_be_standardised_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"column 2 of .* must vary, its standard deviation is 0\.0"):
        PointTarget(write(tmp_path, "1,7\n2,7\n3,7\n"))
    with pytest.raises(ValueError, match="must have 2 points to train on, got 1 of 2"):
        PointTarget(write(tmp_path, "1,7\n2,7\n"))
