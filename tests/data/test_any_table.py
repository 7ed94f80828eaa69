"""The spiral z' = Az in every form that people's tables have: sound ones are the plain one, others are refused."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.io import savemat

from neuralode_exp.data.measured import observe
from neuralode_exp.data.observed import Observed

T = np.arange(60) / 8
Z = np.exp(-T / 10)[:, None] * np.stack([np.cos(T), np.sin(T)], 1)
PLAIN = np.column_stack([T, Z])


def text(
    table: np.ndarray = PLAIN,
    head: str | None = "t,x,y",
    separator: str = ",",
    *,
    number: Callable[[float], str] = repr,
    times: Callable[[float], str] | None = None,
    label: str = "",
) -> str:
    """A table with one more word before each row, and one more in the header, if there is a label."""
    rows = [[*([label] if label else []), *map(number, row.tolist())] for row in table]
    if times:
        rows = [[times(t), *row[1:]] for t, row in zip(table[:, 0], rows, strict=True)]
    lines = [separator.join(row) for row in rows]
    return "\n".join([*([head.replace(",", separator)] if head is not None else []), *lines, ""])


def saved(save: Callable[..., None], *args: Any, **arrays: Any) -> bytes:
    file = io.BytesIO()
    save(file, *args, **arrays)
    return file.getvalue()


def date(t: float) -> str:
    return str(np.datetime64("2020-02-28T00:00") + np.timedelta64(round(t * 8), "h"))


def moved(time: float = 0.0, factor: float = 1.0, offset: float = 0.0) -> np.ndarray:
    return np.column_stack([T + time, Z * factor + offset])


GAPS = text().splitlines()
GAPS[10] = GAPS[10].rsplit(",", 1)[0] + ","
GAPS[20] = GAPS[20].rsplit(",", 1)[0] + ",NA"
SENTINEL = [line if k != 10 else line.rsplit(",", 1)[0] + ",-999" for k, line in enumerate(text().splitlines())]
TWICE = text().splitlines()
TWICE.insert(6, TWICE[5])
COMMA = lambda x: repr(x).replace(".", ",")  # noqa: E731
NANOSECONDS = lambda t: str(1_700_000_000_000_000_000 + round(t * 1e9))  # noqa: E731

# Form -> its file and keys of the dataset.
SOUND: dict[str, tuple[str, str | bytes, Mapping[str, Any]]] = {
    "csv": ("x.csv", text(), {}),
    "tsv": ("x.tsv", text(separator="\t"), {}),
    "semicolons": ("x.csv", text(separator=";"), {}),
    "blanks": ("x.dat", text(separator="   "), {}),
    "decimal comma": ("x.csv", text(separator=";", number=COMMA), {}),
    "decimal comma and tabs": ("x.txt", text(separator="\t", number=COMMA), {}),
    "byte order mark": ("x.csv", text().encode("utf-8-sig"), {}),
    "utf-16": ("x.csv", text().encode("utf-16"), {}),
    "latin-1": ("x.csv", text(head="t,größe,y").encode("latin-1"), {}),
    "carriage returns": ("x.csv", text().replace("\n", "\r\n"), {}),
    "no header": ("x.csv", text(head=None), {}),
    "comments": ("x.txt", "# of a day\n% and another\n" + text(), {}),
    "header in a comment": ("x.txt", "# t x y\n" + text(head=None, separator=" "), {}),
    "units": ("x.csv", text(head="t,x,y\ns,m,m"), {}),
    "quotes": ("x.csv", text(number=lambda x: f'"{x!r}"'), {}),
    "names of its own": ("x.csv", text(head="year,hare,lynx"), {}),
    "time not first": ("x.csv", text(PLAIN[:, [1, 0, 2]], head="x,time,y"), {"states": ("x", "y")}),
    "columns by number": ("x.csv", text(PLAIN[:, [1, 0, 2]], head=None), {"time": "2", "states": ("1", "3")}),
    "a step": ("x.csv", text(PLAIN[:, 1:], head="x,y"), {"step": 0.125}),
    "a label": ("x.csv", text(head="who,t,x,y", label="a b"), {"trajectory": ("who",)}),
    "text to leave out": ("x.csv", text(head="note,t,x,y", label="fine"), {}),
    "row numbers": ("x.csv", "\n".join(f"{k - 1 if k else ''},{x}" for k, x in enumerate(text().splitlines())), {}),
    "dates": ("x.csv", text(times=date), {}),
    "times in nanoseconds": ("x.csv", text(times=NANOSECONDS), {}),
    "repeated times": ("x.csv", "\n".join(TWICE), {"repeats": "mean"}),
    "npy": ("x.npy", saved(np.save, PLAIN), {}),
    "npz": ("x.npz", saved(np.savez, t=T, z=Z), {}),
    "mat": ("x.mat", saved(savemat, {"t": T[:, None], "z": Z}), {}),
}
SCALES = {
    "1e5 later": moved(time=1e5),
    "1e6 later": moved(time=1e6),
    "since 1970": moved(time=1.7e9),
    "1e-9": moved(factor=1e-9),
    "1e9": moved(factor=1e9),
    "1e20": moved(factor=1e20),
    "offset 300": moved(offset=300),
    "offset 1e6": moved(offset=1e6),
}
PARSED = {
    "missing cells": ("\n".join(GAPS), {}, [(9, 1), (19, 1)]),
    "a sentinel": ("\n".join(SENTINEL), {"missing": ("-999",)}, [(9, 1)]),
}

LINES = text().splitlines()


def changed(*changes: tuple[int, str]) -> str:
    lines = list(LINES)
    for k, line in changes:
        lines[k] = line
    return "\n".join(lines)


# Form -> its file, keys of the dataset and what is said of it.
UNSOUND: dict[str, tuple[str, str | bytes, Mapping[str, Any], str]] = {
    "dates with two meanings": (
        "x.csv",
        text(times=lambda t: f"{1 + int(t)}/{1 + round(t * 8) % 8}/2020"),
        {},
        'must have dates with one meaning, got 1/1/2020 in column "t"; write them as 2020-01-31',
    ),
    "both decimals": ("x.csv", text(separator=";").replace("0.125;", "0,125;"), {}, "must have decimals of one kind"),
    "time goes back": ("x.csv", "\n".join([*LINES, *LINES[1:]]), {}, "dataset.trajectory=NAME"),
    "time twice": ("x.csv", "\n".join(TWICE), {}, "or dataset.repeats=mean"),
    "no time": ("x.csv", text(PLAIN[:, 1:], head="x,y"), {}, "or add dataset.step=0.1 if the table has no times"),
    "two times": ("x.csv", text(head="t,time,x"), {}, "`time` must be one column"),
    "three rows": ("x.csv", "\n".join(LINES[:4]), {}, "must have at least 4 observations"),
    "text in a number": ("x.csv", changed((5, "0.5,12 kg,0")), {}, "x.csv:6: x must be a number, got '12 kg'"),
    "other digits": ("x.csv", changed((5, "0.5,٢,0")), {}, "x.csv:6: x must be a number, got '٢'"),
    "thousands": ("x.csv", changed((5, "0.5,1 000,0")), {}, "x.csv:6: x must be a number, got '1 000'"),
    "ragged": ("x.csv", changed((5, "0.5,1"), (9, "1,1")), {}, "x.csv:6: a row must have 3 columns, got 2 (2 such"),
    "infinite": ("x.csv", changed((5, "0.5,inf,0")), {}, "x.csv:6: x must be finite, got inf; leave the cell empty"),
    "no rows": ("x.csv", LINES[0], {}, "must have rows below its header, it has none"),
    "unknown column": ("x.csv", text(), {"states": ("z",)}, "`states` must be a column of"),
    "no text": ("x.csv", b"\x00\x01\x02\x03\x00\x05\x00\xd8\x00", {}, "must be text in UTF-8, UTF-16 or Latin-1"),
}


def read(folder: Path, name: str, content: str | bytes, keys: Mapping[str, Any]) -> Observed:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return observe(path, 0.2, 0, torch.float32, units="spread", **keys)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Observed:
    return read(tmp_path_factory.mktemp("plain"), *SOUND["csv"])


def assert_same(observed: Observed, plain: Observed, tolerance: float) -> None:
    """What is trained on and what is held out; times in steps, states in spreads."""
    torch.testing.assert_close(observed.times, plain.times, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(observed.states, plain.states, rtol=tolerance, atol=tolerance)
    for x, y in zip(observed.validation, plain.validation, strict=True):
        torch.testing.assert_close((x.t, x.z), (y.t, y.z), rtol=1e-5, atol=max(tolerance, 1e-5))


@pytest.mark.parametrize("form", SOUND)
def test_a_sound_table_is_the_plain_one(form: str, tmp_path: Path, plain: Observed) -> None:
    assert_same(read(tmp_path, *SOUND[form]), plain, 1e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_scales_and_offsets_do_not_matter(scale: str, tmp_path: Path, plain: Observed) -> None:
    # Times since 1970 have 2e-7 of a second in float64, and states about 1e6 have 1e-10.
    assert_same(read(tmp_path, "x.csv", text(SCALES[scale]), {}), plain, 1e-6)


@pytest.mark.parametrize("form", PARSED)
def test_missing_cells_alone_are_missing(form: str, tmp_path: Path, plain: Observed) -> None:
    content, keys, cells = PARSED[form]
    observed = read(tmp_path, "x.csv", content, keys)
    assert observed.states[0].isnan().nonzero().tolist() == [list(cell) for cell in cells]
    known = ~observed.states[0].isnan()
    assert known.sum() == plain.states[0].numel() - len(cells)
    # The mean and the spread lack the missing cells.
    torch.testing.assert_close(observed.states[0][known], plain.states[0][known], rtol=0.1, atol=0.1)


@pytest.mark.parametrize("form", UNSOUND)
def test_an_unsound_table_is_refused_in_one_line(form: str, tmp_path: Path) -> None:
    *file, line = UNSOUND[form]
    with pytest.raises(ValueError, match=r"\w") as error:
        read(tmp_path, *file)  # type: ignore[arg-type]
    assert line in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize(("suffix", "extra"), [(".parquet", "pyarrow"), (".xlsx", "openpyxl")])
def test_tables_of_extras_are_the_plain_one(suffix: str, extra: str, tmp_path: Path, plain: Observed) -> None:
    pytest.importorskip(extra)
    frame = pd.DataFrame(PLAIN, columns=["t", "x", "y"])
    path = tmp_path / f"x{suffix}"
    frame.to_parquet(path) if suffix == ".parquet" else frame.to_excel(path, index=False)
    assert_same(observe(path, 0.2, 0, torch.float32, units="spread"), plain, 1e-6)
