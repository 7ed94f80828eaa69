"""The one reader of tables in text files."""

import csv
from pathlib import Path

LISTED = 10  # problems in one message


def read_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Return (line number, cells) of each line with content; blank lines and those that begin with # are none.

    Args:
        path: a text file in UTF-8 with commas, either end of line, with or without a byte order mark.

    Raises:
        ValueError: it is something else.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:  # -sig: Excel's byte order mark is not part of a name
            reader = csv.reader(file)
            rows = [(reader.line_num, row) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} must be csv text in UTF-8, got something else; save it as such") from error
    return [(line, row) for line, row in rows if any(map(str.strip, row)) and not row[0].lstrip().startswith("#")]


def is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
