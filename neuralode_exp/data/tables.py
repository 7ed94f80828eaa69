"""Read tables as named columns of numbers, from text in any common form, npy, npz, parquet, xlsx and mat."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neuralode_exp.data.columns import Column, Table
from neuralode_exp.data.delimited import MISSING, Rows, cell_of, is_number, parse, rows_of

BUNDLED = Path(__file__).parent / "assets"
DAY_AND_MONTH = re.compile(r"(\d{1,2})([/.-])(\d{1,2})\2(\d{4})(.*)")
EXTRAS = {".parquet": "pyarrow", ".xlsx": "openpyxl"}
LIKE_A_NUMBER = re.compile(r"[+-]?\d")  # a digit of any script


def read_table(path: str | Path, missing: Iterable[str] = ()) -> Table:
    """Read a table from a file.

    Args:
        path: a file of text (csv, tsv, txt, dat or any other name), npy, npz, parquet, xlsx or mat, or the name of a
            data set that comes with the package.
        missing: cells that stand for a missing value, beside empty cells and the words that pandas knows.

    Raises:
        ValueError: there is no such file, or it is not a table.
    """
    path = Path(path)
    if not path.is_file() and path.name == str(path) and (BUNDLED / path).is_file():
        path = BUNDLED / path
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ValueError(f"`path` must name a file, got {path}, which {what}")
    kind = path.suffix.lower()
    try:
        table = READERS[kind](path) if kind in READERS else OF_CELLS.get(kind, _read_text)(path, frozenset(missing))
    except ImportError:
        extra = EXTRAS[kind]
        raise ValueError(f"{path} needs {extra}; pip install {extra}, or save the table as csv") from None
    except ValueError as error:
        raise ValueError(f"{path} {error}") from None
    if not table.columns or not len(table.lines):
        raise ValueError(f"{path} must have rows and columns, it has none")
    numbers = {float(word.replace(",", ".")) for word in missing if is_number(word)}
    table.columns = [_without(column, numbers) for column in table.columns]
    for column in table.numbers():
        assert column.values is not None
        wrong = np.flatnonzero(np.isinf(column.values))
        rule = f"{column.name} must be finite; leave the cell empty"
        table.faults += [(int(table.lines[i]), rule, str(column.values[i])) for i in wrong]
    return table


def _without(column: Column, numbers: set[float]) -> Column:
    x = column.values
    if x is None or not (hit := np.isin(x, list(numbers))).any():
        return column
    return Column(column.name, np.where(hit, np.nan, x), column.text, column.dates)


def _read_text(path: Path, missing: frozenset[str]) -> Table:
    return _of_rows(path, parse(path.read_bytes()), missing)


def _of_rows(path: Path, rows: Rows, missing: frozenset[str], row: str = "line") -> Table:
    names = rows.names or [str(k + 1) for k in range(len(rows.cells[0]))]
    table = Table(path, [], np.array(rows.lines), row, rows.faults)
    for name, cells in zip(names, zip(*rows.cells, strict=True), strict=True):
        table.columns.append(_column(name, cells, missing | MISSING, table))
    return table


def _column(name: str, cells: Sequence[str], missing: frozenset[str], table: Table) -> Column:
    """Make a column of numbers if most cells are numbers, of dates if most are dates, and else of text."""
    import pandas as pd  # the import takes a second, and only tables need it

    empty = np.array([cell in missing for cell in cells])
    written = pd.Series(cells, dtype=object).mask(empty)
    numbers = pd.to_numeric(written, errors="coerce")
    infinite = np.array([cell.lower().lstrip("+-") in ("inf", "infinity") for cell in cells])
    wrong = numbers.isna().to_numpy() & ~empty & ~infinite
    # For a number beyond float64, such as 1e999, pandas 2 fails and pandas 3 gives infinity.
    numbers_of_python = [i for i in np.flatnonzero(wrong).tolist() if is_number(cells[i])]
    beyond = [i for i in numbers_of_python if np.isinf(float(cells[i].replace(",", ".")))]
    if beyond:
        numbers[beyond], wrong[beyond] = np.inf, False
    kept = len(cells) - int(empty.sum())
    if kept == 0:
        return Column(name, numbers.to_numpy(np.float64), cells)
    if 2 * wrong.sum() < kept:
        rule = f"{name} must be a number; a missing one is an empty cell"
        table.faults += [(int(table.lines[i]), rule, repr(cells[i])) for i in np.flatnonzero(wrong).tolist()]
        exact = numbers.to_numpy() if numbers.dtype == np.int64 else numbers.to_numpy(np.float64)
        return Column(name, exact, cells)
    dates = _dates(name, written)
    unread = dates.isna().to_numpy() & ~empty
    if 2 * unread.sum() >= kept:
        like_numbers = [i for i, cell in enumerate(cells) if LIKE_A_NUMBER.match(cell)]
        if 2 * len(like_numbers) > kept:
            rule = (
                f"{name} must be a number in the digits 0 to 9, without a unit or a separator of thousands, or a date "
                "such as 2020-01-31 12:00"
            )
            table.faults += [(int(table.lines[i]), rule, repr(cells[i])) for i in like_numbers]
        return Column(name, None, cells)
    rule = f"{name} must be a date such as 2020-01-31 12:00"
    table.faults += [(int(table.lines[i]), rule, repr(cells[i])) for i in np.flatnonzero(unread).tolist()]
    return _of_dates(name, dates, cells)


def _dates(name: str, written: Any) -> Any:
    """Read dates in the order of ISO 8601, or with day or month first if a number above 12 shows which it is."""
    import pandas as pd

    found = [match for cell in written.dropna() if (match := DAY_AND_MONTH.fullmatch(cell))]
    if 2 * len(found) > written.notna().sum():
        first, second = (max(int(match[k]) for match in found) for k in (1, 3))
        dotted = all(match[2] == "." for match in found)  # dates with dots have the day first
        if first <= 12 and second <= 12 and not dotted:
            raise ValueError(
                f'must have dates with one meaning, got {found[0][0]} in column "{name}"; write them as 2020-01-31'
            )
        month, day = (3, 1) if dotted or first > 12 else (1, 3)

        def iso(cell: str) -> str:
            match = DAY_AND_MONTH.fullmatch(cell)
            return f"{match[4]}-{int(match[month]):02d}-{int(match[day]):02d}{match[5]}" if match else cell

        written = written.map(iso, na_action="ignore")
    return pd.to_datetime(written, errors="coerce", utc=True, format="ISO8601")


def _of_dates(name: str, dates: Any, cells: Sequence[str]) -> Column:
    stamps = dates.astype("datetime64[ns, UTC]").astype(np.int64).to_numpy()
    missing = dates.isna().to_numpy()
    return Column(name, np.where(missing, np.nan, stamps) if missing.any() else stamps, cells, dates=True)


def _loaded(load: Callable[[Path], Any], path: Path, kind: str, fix: str) -> Any:
    """Return what a library reads. For a damaged file, or another kind of file, libraries raise many kinds of errors.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is not of its kind.
    """
    path.open("rb").close()
    try:
        return load(path)
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        raise ValueError(f"must be {kind}; {fix}") from error


def _read_npy(path: Path) -> Table:
    def load(path: Path) -> np.ndarray:
        with path.open("rb") as file:
            # np.load would also open zip files and, if allowed, pickles.
            return np.lib.format.read_array(file, allow_pickle=False)

    return _of_arrays(path, {"": _loaded(load, path, "a plain npy file of numbers", "save it with numpy.save")})


def _read_npz(path: Path) -> Table:
    def load(path: Path) -> dict[str, np.ndarray]:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)

    return _of_arrays(path, _loaded(load, path, "an npz file of arrays of numbers", "save it with numpy.savez"))


def _read_mat(path: Path) -> Table:
    from scipy.io import loadmat

    loaded = _loaded(loadmat, path, "a mat file of version 7 or earlier", "save it with save(FILE, '-v7')")
    found = {name: np.squeeze(x) for name, x in loaded.items() if not name.startswith("__")}
    return _of_arrays(path, {name: x for name, x in found.items() if x.dtype.kind in "iufc" and x.ndim in (1, 2)})


def _of_arrays(path: Path, arrays: dict[str, np.ndarray]) -> Table:
    """Make columns from arrays of shape (n,) or (n, d). They are called name, or name1, ..., named."""
    columns: list[tuple[str, np.ndarray]] = []
    for name, array in arrays.items():
        if array.dtype.names:
            columns += [(part, array[part]) for part in array.dtype.names]
        elif array.dtype.kind not in "iuf":
            raise ValueError(f"must hold real numbers, got dtype {array.dtype}{f' of {name}' if name else ''}")
        elif (array.ndim != 2 and not (name and array.ndim == 1)) or 0 in array.shape:
            raise ValueError(f"must hold an array of shape (n, d) with n, d >= 1, got {array.shape}")
        elif array.ndim == 1:
            columns.append((name, array))
        else:
            columns += [(f"{name}{k}", x) for k, x in enumerate(array.T, 1)]
    twice = [name for name, n in Counter(name for name, _ in columns).items() if n > 1]
    if twice:
        raise ValueError(f"must hold arrays whose columns have different names, got {twice[0]} twice; rename one")
    if len({len(x) for _, x in columns}) > 1:
        lengths = ", ".join(f"{name} {len(x)}" for name, x in columns)
        raise ValueError(f"must hold arrays of the same length, got {lengths}")
    n = len(columns[0][1]) if columns else 0
    kept = [Column(name, x.astype(np.int64 if x.dtype.kind in "iu" else np.float64), ()) for name, x in columns]
    return Table(path, kept, np.arange(1, n + 1), "row")


def _read_parquet(path: Path) -> Table:
    import pandas as pd

    frame = _loaded(pd.read_parquet, path, "a parquet file", "save it with DataFrame.to_parquet")
    if not isinstance(frame.index, pd.RangeIndex) or frame.index.name is not None:
        # A column without a name, as in a csv that pandas writes.
        names = ["" if name is None else str(name) for name in frame.index.names]
        frame = frame.reset_index(names=names, allow_duplicates=True)
    table = Table(path, [], np.arange(1, len(frame) + 1), "row")
    for name, series in frame.items():
        if series.dtype.kind == "M":
            table.columns.append(_of_dates(str(name), pd.to_datetime(series, utc=True), series.astype(str).tolist()))
        elif series.dtype.kind in "iuf":
            table.columns.append(Column(str(name), series.to_numpy(np.float64), series.astype(str).tolist()))
        else:
            table.columns.append(_column(str(name), _as_text(series), MISSING, table))
    return table


def _read_xlsx(path: Path, missing: frozenset[str]) -> Table:
    import pandas as pd

    def load(path: Path) -> Any:
        return pd.read_excel(path, header=None, dtype=object)

    frame = _loaded(load, path, "an xlsx file", "save it again as xlsx, or as csv")
    rows = enumerate(zip(*(_as_text(series) for _, series in frame.items()), strict=True), 1)
    return _of_rows(path, rows_of([(n, list(row)) for n, row in rows if any(row)], frame.shape[1]), missing, "row")


def _as_text(series: Any) -> list[str]:
    return ["" if empty else cell_of(str(cell)) for cell, empty in zip(series, series.isna(), strict=True)]


OF_CELLS: dict[str, Callable[[Path, frozenset[str]], Table]] = {".xlsx": _read_xlsx}
READERS: dict[str, Callable[[Path], Table]] = {
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".mat": _read_mat,
    ".parquet": _read_parquet,
}
