"""Collect runs in one table, averaged over their seeds, and draw their curves.

    neuralode report outputs/multirun/2026-01-31/12-00-00.000000
    neuralode report SWEEP ANOTHER --by model,solver.rtol --columns error/test,nfe/forward,seconds

Prints the table and writes report.html, one self-contained page, and report.md.
Exit status: 0 done, 2 the request is wrong.
"""

from __future__ import annotations

import sys
from pathlib import Path

from neuralode_exp import commands
from neuralode_exp.config import ConfigError
from neuralode_exp.report.report import html, make_report, markdown, text
from neuralode_exp.tracking.metrics import DamagedMetrics


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = commands.parser("report", __doc__)
    parser.add_argument(
        "folders", nargs="+", type=Path, metavar="FOLDER", help="folder of a run, of a grid, or of several of them"
    )
    parser.add_argument(
        "--by", metavar="KEYS", help="config keys that set groups apart; default: all keys that differ, without seed"
    )
    parser.add_argument("--columns", metavar="TAGS", help="metrics to show; default: the usual ones that the runs have")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to write to; default: the first FOLDER")
    args = parser.parse_args(argv)
    out: Path = args.out or args.folders[0]
    try:
        report = make_report(args.folders, _names(args.by), _names(args.columns))
        commands.require_writable(out)
        pages = {"report.html": html(report), "report.md": markdown(report)}
    except (ConfigError, DamagedMetrics, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 2
    out.mkdir(parents=True, exist_ok=True)
    for name, page in pages.items():
        (out / name).write_text(page, encoding="utf-8")
    print(text(report), "", *(out / name for name in pages), sep="\n")
    return 0


def _names(given: str | None) -> list[str] | None:
    return given.split(",") if given else None
