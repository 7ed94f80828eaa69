"""How a text is written: encodings, separators, decimals, comments, headers and rows of units."""

import numpy as np
import pytest

from neuralode_exp.data.delimited import decode, is_number, parse

CELLS = [["0", "1.5"], ["1", "-2e3"], ["2", "0.25"]]


def text(separator: str, head: str = "t,x", comma: bool = False) -> str:
    rows = [separator.join(row) for row in CELLS]
    return "\n".join([head.replace(",", separator), *(row.replace(".", ",") if comma else row for row in rows)])


@pytest.mark.parametrize("separator", [",", ";", "\t", " ", "   "])
@pytest.mark.parametrize("comma", [False, True])
def test_separators_and_decimal_signs(separator: str, comma: bool) -> None:
    if comma and separator == ",":
        pytest.skip("two meanings")
    rows = parse(text(separator, comma=comma).encode())
    assert rows.names == ["t", "x"]
    assert rows.cells == CELLS
    assert rows.lines == [2, 3, 4]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "latin-1"])
def test_encodings(encoding: str) -> None:
    assert parse(text(",", "t,größe").encode(encoding)).names == ["t", "größe"]


@pytest.mark.parametrize("content", [b"\x00\x01\x02\x03\x00\x05", b"PK\x03\x04\x00\x00\x08\x00\xff"])
def test_what_is_no_text_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="must be text in UTF-8, UTF-16 or Latin-1, got something else"):
        decode(content + b"\x00\xd8\x00")


@pytest.mark.parametrize(
    ("head", "names"),
    [
        ("t,x\n", ["t", "x"]),
        ("# of a day\n\nt,x\n", ["t", "x"]),
        ("# of a day\n% t,x\n", ["t", "x"]),
        ("t,x\ns,kg\n", ["t", "x"]),
        ("t,x\n(s),\n", ["t", "x"]),
        ("t,1\n", ["t", "1"]),
        ("# only a remark, with, commas\n", []),
        ("", []),
    ],
)
def test_headers_comments_and_units(head: str, names: list[str]) -> None:
    rows = parse((head + "\n".join(",".join(row) for row in CELLS)).encode())
    assert (rows.names, rows.cells) == (names, CELLS)


def test_a_label_in_the_first_row_is_no_header() -> None:
    rows = parse(b"a,0,1\na,1,2\nb,0,3\n")
    assert rows.names == []
    assert len(rows.cells) == 3


def test_a_separator_at_the_end_of_each_line_makes_no_column() -> None:
    rows = parse(b"t;x;\n0;1;\n1;2;\n")
    assert (rows.names, rows.cells) == (["t", "x"], [["0", "1"], ["1", "2"]])


def test_both_decimals_in_one_file_are_refused() -> None:
    with pytest.raises(ValueError, match=r"decimals of one kind, got 0,5 in line 2 and 1\.5 in line 3"):
        parse(b"t;x\n0,5;1\n1;1.5\n")


@pytest.mark.parametrize("cell", ["٢", "1_000", "1.234,5", "1 2", "", "kg", "0x10"])
def test_no_numbers(cell: str) -> None:
    assert not is_number(cell)


def test_what_numpy_saves_is_read(tmp_path) -> None:
    array = np.random.default_rng(0).normal(size=(5, 3))
    np.savetxt(tmp_path / "x.txt", array, header="t x y")
    rows = parse((tmp_path / "x.txt").read_bytes())
    assert rows.names == ["t", "x", "y"]
    np.testing.assert_array_equal(np.array(rows.cells, dtype=float), array)
