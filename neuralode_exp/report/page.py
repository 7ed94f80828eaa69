"""The page report.html: one self-contained file. Its tables can be sorted, and its legends hide curves."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from neuralode_exp.report.chart import swatch
from neuralode_exp.report.search import Search
from neuralode_exp.report.tables import Table

HERE = Path(__file__).parent
SHOWN = 10  # groups that a chart shows at first, the best ones
IMAGE_TYPES = {".png": "image/png", ".gif": "image/gif"}
LONG = 60  # a cell with more characters may take several lines
IMAGES_MIB = 8.0  # most MiB of images in a section


@dataclass(frozen=True)
class DatasetSection:
    """The part of the page about one dataset.

    Args:
        name: name of the dataset.
        labels: labels of its groups.
        objectives: objectives of its groups; the groups with the lowest are shown at first.
        charts: SVG text, in which group i has the class `g<i>`.
        images: folder of the best run's figures; None without one.
        best: description of the best run.
    """

    name: str
    labels: Sequence[str]
    objectives: Sequence[float]
    charts: Sequence[str]
    images: Path | None
    best: str


def page(
    counts: str,
    groups: Table,
    failures: Table,
    runs: Table,
    sections: Sequence[DatasetSection],
    searches: Sequence[Search],
) -> str:
    body = [
        "<h1>Report</h1>",
        f"<p>{escape(counts)}. Mean ± standard deviation over the completed runs of a group. A click on a heading"
        " sorts.</p>",
        table(groups),
    ]
    if failures.rows:
        body += [f"<h2>Without a result ({len(failures.rows)})</h2>", table(failures)]
    body += [_section(number, section) for number, section in enumerate(sections)]
    body += [_search(search) for search in searches]
    body.append(f"<details><summary>All {len(runs.rows)} runs</summary>{table(runs)}</details>")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Report</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{(HERE / 'page.css').read_text(encoding='utf-8')}</style></head><body>{''.join(body)}"
        f"<script>{(HERE / 'page.js').read_text(encoding='utf-8')}</script></body></html>\n"
    )


def _search(search: Search) -> str:
    importances = f"<h3>Importance of the parameters</h3>{table(search.importances)}" if search.importances.rows else ""
    return (
        f'<section><h2>Search in {escape(search.folder.name)}</h2><div class="charts">{search.history}</div>'
        f"{importances}<details><summary>All {len(search.trials.rows)} trials</summary>{table(search.trials)}</details>"
        "</section>"
    )


def table(content: Table) -> str:
    """Write a table; a cell with a number carries its value for the script that sorts."""
    heads = "".join(f'<th scope="col"><button>{escape(head)}</button></th>' for head in content.heads)
    rows = "".join(
        "<tr>" + "".join(map(_cell, row, numbers)) + "</tr>"
        for row, numbers in zip(content.rows, content.numbers, strict=True)
    )
    return f'<div class="wide"><table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'


def _cell(text: str, number: float | None) -> str:
    if number is not None:
        return f'<td class="n" data-n="{number!r}">{escape(text)}</td>'
    kind = ' class="long"' if len(text) > LONG else ""
    return f"<td{kind}>{escape(text)}</td>"


def _section(number: int, section: DatasetSection) -> str:
    ranked = sorted(range(len(section.labels)), key=lambda index: section.objectives[index])
    shown = set(ranked[:SHOWN])
    legend = "".join(
        f'<label><input type="checkbox" data-g="{index}"{" checked" if index in shown else ""}>'
        f"{swatch(index)}{escape(label)}</label>"
        for index, label in enumerate(section.labels)
    )
    hidden = "".join(f"#s{number} .g{i}{{display:none}}" for i in range(len(section.labels)) if i not in shown)
    drawn = f'<div class="legend">{legend}</div><div class="charts">{"".join(section.charts)}</div>'
    images = _images(section.images) if section.images else ""
    if not (section.charts or images):
        return ""
    best = f"<h3>Best run: {escape(section.best)}</h3>" if images else ""
    return (
        f'<section id="s{number}"><style>{hidden}</style><h2>{escape(section.name)}</h2>'
        f"{drawn if section.charts else ''}{best}{images}</section>"
    )


def _images(folder: Path) -> str:
    """Put images into the page up to IMAGES_MIB, and name those that are left out."""
    figures, left = [], IMAGES_MIB * 2**20
    for path in sorted(path for path in folder.glob("*") if path.suffix in IMAGE_TYPES):
        name = escape(path.name)
        left -= path.stat().st_size
        if left < 0:
            figures.append(f"<figure><figcaption>{name} is too large for this page</figcaption></figure>")
            continue
        data = base64.b64encode(path.read_bytes()).decode()
        source = f"data:{IMAGE_TYPES[path.suffix]};base64,{data}"
        figures.append(f'<figure><img src="{source}" alt="{name}"><figcaption>{name}</figcaption></figure>')
    return f'<div class="images">{"".join(figures)}</div>' if figures else ""
