"""Tables in the formats of other programs: no row and no column is lost, and what is damaged is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.io import savemat

from neuralode_exp.data.csv_trajectories import read_trajectories
from neuralode_exp.data.tables import read_table

X = [3.0, 1.0, 2.0, 3.0, 1.0]
T = [0.0, 0.5, 0.7, 1.1, 2.0]
FRAME = pd.DataFrame({"t": T, "x": X})


def refused(path: Path) -> str:
    with pytest.raises(ValueError, match=r"\w") as error:
        read_table(path)
    return str(error.value).replace(str(path), "FILE")


def sheet(path: Path, *rows: list[Any]) -> Path:
    pytest.importorskip("openpyxl")
    pd.DataFrame(list(rows)).to_excel(path, header=False, index=False)
    return path


def test_a_sheet_without_header_keeps_its_first_row(tmp_path: Path) -> None:
    table = read_table(sheet(tmp_path / "x.xlsx", *map(list, zip(T, X, strict=True))))
    assert [column.name for column in table.columns] == ["1", "2"]
    assert table.columns[1].values is not None
    assert table.columns[1].values.tolist() == X


def test_a_sheet_may_have_units_and_dates_and_its_rows_are_those_of_the_program(tmp_path: Path) -> None:
    days = pd.date_range("2020-01-30", periods=5)
    rows = [list(row) for row in zip(days, X, strict=True)]
    path = sheet(tmp_path / "x.xlsx", ["date", "x"], ["", "[m]"], *rows)
    assert read_trajectories(path).trajectories[0].t.tolist() == [0, 1, 2, 3, 4]
    assert 'time "date" (dates, in days), states "x"' in read_trajectories(path).note
    rows[2][1] = "kg"
    table = read_table(sheet(tmp_path / "x.xlsx", ["date", "x"], ["", "[m]"], *rows))
    assert table.problems() == [
        f"{tmp_path / 'x.xlsx'}, row 5: x must be a number, got 'kg'; a missing one is an empty cell"
    ]


def test_the_row_numbers_that_pandas_writes_into_a_sheet_are_left_out(tmp_path: Path) -> None:
    pytest.importorskip("openpyxl")
    FRAME.to_excel(tmp_path / "x.xlsx")
    assert read_trajectories(tmp_path / "x.xlsx").note.endswith("left out: row numbers")


@pytest.mark.parametrize(
    ("frame", "understood"),
    [
        (FRAME, 'time "t", states "x", 1 trajectory'),
        (FRAME[["x"]].set_index(pd.date_range("2020-01-01", periods=5)), 'time "" (dates, in days), states "x", 1'),
        (FRAME[["x"]].set_index(pd.date_range("2020", periods=5, name="when")), 'time "when" (dates, in days), states'),
        (FRAME.set_index("t"), 'time "t", states "x", 1 trajectory'),
        (FRAME[FRAME.x != 1], 'time "t", states "x", 1 trajectory; left out: row numbers'),
    ],
    ids=["plain", "dates", "named dates", "times", "some rows"],
)
def test_the_index_of_a_parquet_file_is_a_column(tmp_path: Path, frame: pd.DataFrame, understood: str) -> None:
    pytest.importorskip("pyarrow")
    frame.to_parquet(tmp_path / "x.parquet")
    assert understood in read_trajectories(tmp_path / "x.parquet").note


def an_npy_named_npz(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.ones((3, 2)))


def a_cut_mat(path: Path) -> None:
    savemat(path, {"t": T, "x": X})
    path.write_bytes(path.read_bytes()[:-20])


def a_mat_of_version_7_3(path: Path) -> None:
    path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + b"\x89HDF\r\n\x1a\n")


NPZ = "FILE must be an npz file of arrays of numbers; save it with numpy.savez"
MAT = "FILE must be a mat file of version 7 or earlier; save it with save(FILE, '-v7')"


@pytest.mark.parametrize(
    ("name", "save", "rule"),
    [
        ("x.npz", an_npy_named_npz, NPZ),
        ("x.npz", lambda path: np.savez(path, x=np.array([{}, 1], dtype=object)), NPZ),
        ("x.npz", lambda path: path.write_bytes(b"PK\x03\x04"), NPZ),
        (
            "x.npz",
            lambda path: np.savez(path, x=np.ones((3, 2)), x1=np.ones(3)),
            "FILE must hold arrays whose columns have different names, got x1 twice; rename one",
        ),
        ("x.mat", a_cut_mat, MAT),
        ("x.mat", a_mat_of_version_7_3, MAT),
        ("x.mat", lambda path: path.write_bytes(b"t,x\n0,1\n"), MAT),
        (
            "x.mat",
            lambda path: savemat(path, {"t": T, "z": 1j * np.array(X)}),
            "FILE must hold real numbers, got dtype complex128 of z",
        ),
    ],
)
def test_what_is_damaged_or_has_no_numbers_is_refused_in_one_line(
    tmp_path: Path, name: str, save: Callable[[Path], Any], rule: str
) -> None:
    save(tmp_path / name)
    assert refused(tmp_path / name) == rule


@pytest.mark.parametrize(
    ("suffix", "extra", "rule"),
    [
        (".xlsx", "openpyxl", "FILE must be an xlsx file; save it again as xlsx, or as csv"),
        (".parquet", "pyarrow", "FILE must be a parquet file; save it with DataFrame.to_parquet"),
    ],
)
def test_damaged_files_of_extras_are_refused_in_one_line(tmp_path: Path, suffix: str, extra: str, rule: str) -> None:
    pytest.importorskip(extra)
    (tmp_path / f"x{suffix}").write_bytes(b"PK\x03\x04 PAR1")
    assert refused(tmp_path / f"x{suffix}") == rule


def test_a_scalar_or_text_in_a_mat_file_is_no_column(tmp_path: Path) -> None:
    savemat(tmp_path / "x.mat", {"t": T, "x": X, "omega": 2j, "who": "me"})
    assert read_table(tmp_path / "x.mat").names == '"t", "x"'
