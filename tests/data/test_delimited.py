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
        ("# t, x\n# [s], [kg]\n", ["t", "x"]),
        ("# t, x\n# measured in a lab\n", ["t", "x"]),
        ("# [s], [kg]\n", []),
        ("sep=,\nt,x\n", ["t", "x"]),
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


@pytest.mark.parametrize("separator", ["\t", ";", " ", ","])
def test_commas_that_may_separate_thousands_are_refused(separator: str) -> None:
    text = "\n".join(separator.join(row) for row in [("year", "pop"), ("1990", '"900"'), ("1991", '"1,014"')])
    with pytest.raises(ValueError, match=r"got 1,014 in line 3, which may be 1014 or 1\.014; write it as one of these"):
        parse((text if separator == "," else text.replace('"', "")).encode())


@pytest.mark.parametrize("other", ["0,125", "1,5", "1,0145", "1234,5", ",125"])
def test_decimal_commas_that_no_thousands_have_decide_for_the_file(other: str) -> None:
    assert parse(f"t;x;y\n0;{other};1,014\n1;{other};2,5\n".encode()).cells[0][2] == "1.014"
    assert parse(f"t;x;y\n0;{other};1,014\n1;{other};2,014\n".encode()).cells[1][2] == "2.014"


def test_excels_line_with_the_separator_is_no_header() -> None:
    rows = parse(b"sep=;\nt;x\n0;1\n1;2\n")
    assert (rows.names, rows.cells, rows.lines) == (["t", "x"], [["0", "1"], ["1", "2"]], [3, 4])
    assert parse(b"sep=|\nt|x\n0|1\n").cells == [["0", "1"]]


def test_a_label_that_looks_like_a_comment_is_refused() -> None:
    rows = parse(b"trajectory,t,x\nA,0,1\n#B,0,3\n# of a day\n#B,1,4\n")
    rule = "a row must not begin with # or %; write its first cell in quotes, or delete the row"
    assert rows.faults == [(3, rule, "'#B'"), (5, rule, "'#B'")]
    rows = parse(b'trajectory,t,x\nA,0,1\n"#B",0,3\n')
    assert (rows.cells[1][0], rows.faults) == ("#B", [])
    assert parse(b"t,x\n0,1\n# 1,2\n2,3\n").lines == [2, 4]  # a row that someone took out


def test_a_quoted_cell_with_a_line_break_keeps_the_lines_of_later_rows() -> None:
    rows = parse(b't,"x\n(m)",note\n0,1,"a\nb"\n1,2,c\n\n2,3\n')
    assert rows.names == ["t", "x (m)", "note"]
    assert rows.cells == [["0", "1", "a b"], ["1", "2", "c"]]
    assert rows.lines == [3, 5]
    assert rows.faults == [(7, "a row must have 3 columns", "2")]


def test_the_minus_sign_of_typography_is_one() -> None:
    assert parse("t,x−1\n0,−1\n1,−2.5e−3\n".encode()).cells == [["0", "-1"], ["1", "-2.5e-3"]]


@pytest.mark.parametrize("cell", ["2020-01-31", "1.2.2020 12:00"])
def test_a_name_above_dates_is_a_header(cell: str) -> None:
    assert parse(f"date,2019\n{cell},1\n{cell},2\n".encode()).names == ["date", "2019"]
    assert parse(f"date,who\n{cell},a\n{cell},b\n".encode()).names == ["date", "who"]
    assert parse(f"{cell},1,a\n{cell},2,b\n".encode()).names == []
    assert parse(f"who,{cell},{cell}\na,1,2\nb,3,4\n".encode()).names == ["who", cell, cell]


@pytest.mark.parametrize("cell", ["٢", "1_000", "1.234,5", "1 2", "", "kg", "0x10"])
def test_no_numbers(cell: str) -> None:
    assert not is_number(cell)


def test_what_numpy_saves_is_read(tmp_path) -> None:
    array = np.random.default_rng(0).normal(size=(5, 3))
    np.savetxt(tmp_path / "x.txt", array, header="t x y")
    rows = parse((tmp_path / "x.txt").read_bytes())
    assert rows.names == ["t", "x", "y"]
    np.testing.assert_array_equal(np.array(rows.cells, dtype=float), array)
