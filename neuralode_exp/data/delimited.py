"""Read text files of rows and columns, and find out their encoding, separator, decimal sign, comments and header."""

from __future__ import annotations

import csv
import re
from collections import Counter
from dataclasses import dataclass, field

# The words that pandas takes as a missing value, https://pandas.pydata.org/docs/reference/api/pandas.read_csv.html
MISSING = frozenset(
    (
        "",
        "#N/A",
        "#N/A N/A",
        "#NA",
        "-1.#IND",
        "-1.#QNAN",
        "-NaN",
        "-nan",
        "1.#IND",
        "1.#QNAN",
        "<NA>",
        "N/A",
        "NA",
        "NULL",
        "NaN",
        "None",
        "n/a",
        "nan",
        "null",
    )
)
COMMENTS = ("#", "%")
BLANKS = " "  # any number of them
SEPARATORS = ("\t", ";", ",", BLANKS)
EXCELS_SEPARATOR = re.compile(r'"?sep=([^\w"])"?', re.IGNORECASE)
LOOKED_AT = 200  # rows that are used to find the separator
DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d+)?|[+-]?\d+,")
MAYBE_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
DATE = re.compile(r"\d{1,4}([/.-])\d{1,2}\1\d")
DECIMAL_POINT = re.compile(r"[+-]?(\d*\.\d+|\d+\.)([eE][+-]?\d+)?")


@dataclass(eq=False)
class Rows:
    """The cells of a text, without blanks around them. `names` is empty if there is no header."""

    names: list[str]
    cells: list[list[str]]
    lines: list[int]
    faults: list[tuple[int, str, str]] = field(default_factory=list)  # (line, rule, got)


def parse(content: bytes) -> Rows:
    """Find out the format of a text, and split it into cells.

    Raises:
        ValueError: it is not text, has no rows, has decimals with a point and with a comma, or has commas that may
            separate thousands.
    """
    separator, comments, lines, late = _content(decode(content))
    if not lines:
        raise ValueError("must have rows, it has none")
    if max(len(text) for _, text in lines) > csv.field_size_limit():
        raise ValueError(f"must have lines of at most {csv.field_size_limit()} characters, it has longer ones")
    if separator is None:
        separator = _separator([text for _, text in lines[:LOOKED_AT]])
    rows = _split(lines, separator)
    width = _width([row for _, row in rows[:LOOKED_AT]])
    if all(not row[-1] for _, row in rows if len(row) == width) and width > 1:  # each line ends with a separator
        width -= 1
        rows = [(line, row[:-1] if len(row) > width and not row[-1] else row) for line, row in rows]
    found = rows_of([(line, row) for line, row in rows if any(row)], width)
    found.names = found.names or _names(comments, separator, width)
    if not any(is_number(row[0]) for row in found.cells):  # else `#` before a number takes a row out
        rule = f"a row must not begin with {' or '.join(COMMENTS)}; write its first cell in quotes, or delete the row"
        at = [
            (line, row) for line, row in _split(late, separator) if len(row) == width > 1 and any(map(is_number, row))
        ]
        found.faults += [(line, rule, repr(row[0])) for line, row in at]
    _decimal_comma(found)
    return found


def rows_of(rows: list[tuple[int, list[str]]], width: int) -> Rows:
    """Separate the header, a row of units and rows of another width from rows with their line numbers.

    Raises:
        ValueError: there are no rows below the header.
    """
    sound = [(line, row) for line, row in rows if len(row) == width]
    names, sound = _header(sound)
    if not sound:
        raise ValueError("must have rows below its header, it has none")
    found = Rows(names, [row for _, row in sound], [line for line, _ in sound])
    rule = f"a row must have {width} columns"
    found.faults = [(line, rule, str(len(row))) for line, row in rows if len(row) != width]
    return found


def decode(content: bytes) -> str:
    """Decode text in UTF-8 or UTF-16, with or without a byte order mark, or in Latin-1.

    Raises:
        ValueError: it is not text in one of these encodings.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    elif content and b"\0" in content[:200]:
        encodings = ["utf-16-le" if content[1:2] == b"\0" else "utf-16-be"]
    else:
        encodings = ["utf-8-sig", "latin-1"]  # -sig removes Excel's byte order mark
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise ValueError("must be text in UTF-8, UTF-16 or Latin-1, got something else; save it as UTF-8")


def is_number(cell: str) -> bool:
    """Return whether a cell is a number in the digits 0 to 9, with a decimal point or comma."""
    cell = cell.strip()
    if "_" in cell or not cell.isascii():  # float() would accept both
        return False
    try:
        float(cell.replace(",", ".") if DECIMAL_COMMA.fullmatch(cell) else cell)
    except ValueError:
        return False
    return True


def cell_of(text: str) -> str:
    """Return a cell in one line without blanks around it, and a number with the ASCII minus sign."""
    text = text.strip().replace("\n", " ")
    return number if "\N{MINUS SIGN}" in text and is_number(number := text.replace("\N{MINUS SIGN}", "-")) else text


Lines = list[tuple[int, str]]


def _content(text: str) -> tuple[str | None, list[str], Lines, Lines]:
    """Return the separator that Excel's first line names, comments before the first row, rows, and later comments."""
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    named = EXCELS_SEPARATOR.fullmatch(lines[0][1]) if lines else None
    if named:
        del lines[0]
    rows = [(n, line) for n, line in lines if not line.lstrip().startswith(COMMENTS)]
    comments = [(n, line.strip()) for n, line in lines if line.lstrip().startswith(COMMENTS)]
    first = rows[0][0] if rows else 0
    early, late = ([x for x in comments if (x[0] < first) == before] for before in (True, False))
    return named[1] if named else None, [line for _, line in early], rows, late


def _names(comments: list[str], separator: str, width: int) -> list[str]:
    """Return the names of the columns from the last comment that has them, and not their units in brackets."""
    for comment in reversed(comments):
        cells = _split([(0, comment.lstrip("#% "))], separator)[0][1]
        words = [cell for cell in cells if re.match(r"[^\W\d_]", cell)]
        if len(cells) == width and words and not any(map(is_number, cells)):
            return cells
    return []


def _split(lines: Lines, separator: str) -> list[tuple[int, list[str]]]:
    """Split lines into cells. A quoted cell may go on in the next lines, and the row has the number of its first."""
    if separator == BLANKS:
        return [(n, [cell_of(cell) for cell in line.split()]) for n, line in lines]
    reader = csv.reader((f"{line}\n" for _, line in lines), delimiter=separator)
    rows, began = [], 0
    try:
        for row in reader:
            rows.append((lines[began][0], [cell_of(cell) for cell in row]))
            began = reader.line_num
    except csv.Error:
        raise ValueError(
            f"must have a second quotation mark for each first one, line {lines[began][0]} lacks it"
        ) from None
    return rows


def _width(rows: list[list[str]]) -> int:
    return Counter(map(len, rows)).most_common(1)[0][0]


def _separator(lines: list[str]) -> str:
    """Return the separator that makes most cells numbers, if half of the lines then have the same number of columns."""
    scores = []
    for separator in SEPARATORS:
        rows = [row for _, row in _split(list(enumerate(lines)), separator)]
        width = _width(rows)
        alike = [row for row in rows if len(row) == width]
        body = alike[1:] or alike
        cells = [cell for row in body for cell in row]
        numbers = sum(cell in MISSING or is_number(cell) for cell in cells) / len(cells)
        scores.append((width > 1, 2 * len(alike) >= len(rows), numbers) if width > 1 else (False, False, 0.0))
    best = max(scores)
    return SEPARATORS[scores.index(best)] if best[0] else ";"  # a single column


def _header(rows: list[tuple[int, list[str]]]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the names of the columns, if the first row has them, and the rows below names and units."""
    if not rows or not _heads(rows[0][1], [row for _, row in rows[1:LOOKED_AT]]):
        return [], rows
    names, rows = rows[0][1], rows[1:]
    if len(rows) > 1 and _heads(rows[0][1], [row for _, row in rows[1:LOOKED_AT]], units=True):
        rows = rows[1:]
    return names, rows


def _heads(row: list[str], below: list[list[str]], *, units: bool = False) -> bool:
    """Return whether a row has words in columns whose other rows have numbers or dates."""
    if units or not below:
        if any(is_number(cell) for cell in row):
            return False
        if not below:
            return True
    words = [k for k, cell in enumerate(row) if cell not in MISSING and not is_number(cell)]
    columns = {k: [cell for other in below if (cell := other[k]) not in MISSING] for k in words}
    over_values = [k for k, cells in columns.items() if cells and _heads_column(row[k], cells)]
    if units:
        texts = [k for k in words if k not in over_values]
        return bool(over_values) and all(len(row[k]) < 10 and row[k] not in columns[k] for k in texts)
    no_number = bool(words) and not any(is_number(cell) for cell in row)
    return bool(over_values) and (no_number or len(over_values) == len(words))


def _heads_column(word: str, cells: list[str]) -> bool:
    """Return whether half of the cells are numbers, or dates if the word is none."""
    dates = not DATE.match(word)
    return 2 * sum(is_number(cell) or (dates and DATE.match(cell) is not None) for cell in cells) >= len(cells)


def _decimal_comma(rows: Rows) -> None:
    """Replace decimal commas by points. Refuse a file that has both, or commas that may all separate thousands."""
    commas = [
        (i, k)
        for i, row in enumerate(rows.cells)
        for k, cell in enumerate(row)
        if "," in cell and DECIMAL_COMMA.fullmatch(cell)
    ]
    if not commas:
        return
    if all(MAYBE_THOUSANDS.fullmatch(rows.cells[i][k]) for i, k in commas):
        i, k = commas[0]
        cell = rows.cells[i][k]
        raise ValueError(
            f"must have numbers with one meaning, got {cell} in line {rows.lines[i]}, which may be "
            f"{cell.replace(',', '')} or {cell.replace(',', '.')}; write it as one of these"
        )
    points = ((i, cell) for i, row in enumerate(rows.cells) for cell in row if DECIMAL_POINT.fullmatch(cell))
    if (point := next(points, None)) is not None:
        i, k = commas[0]
        raise ValueError(
            f"must have decimals of one kind, got {rows.cells[i][k]} in line {rows.lines[i]} and {point[1]} in line "
            f"{rows.lines[point[0]]}; write both with a point"
        )
    for i, k in commas:
        rows.cells[i][k] = rows.cells[i][k].replace(",", ".")
