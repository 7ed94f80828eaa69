"""Measure trained runs again, under other solvers or on other data.

    neuralode evaluate outputs/2026-01-31/12-00-00.000000-odenet-circle-dopri5 solver=rk4
    neuralode evaluate RUN dataset.noise=0 device=cpu --json
    neuralode evaluate RUN [RUN...] solver=euler,rk4,dopri5 solver.rtol=1e-2,1e-4,1e-6 solver.step_size=1,0.5

With one run and one value for each key it prints the test metrics beside those that the run has stored. With several
runs or values it measures each run under each solver with its tolerances or step sizes. Then it prints a table and
writes work-precision.csv and work-precision.png: the error against the truth (or the data) and against a tight solve of
the same field, over evaluations and over seconds. A tolerance is both rtol and atol. The weights are the last ones
(averaged, if the run averages them).

Exit status: 0 done, 1 the evaluation failed, 2 the request is wrong.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import sys
from pathlib import Path

from neuralode_exp import commands
from neuralode_exp.config import ConfigError, Mistake


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = commands.parser("evaluate", __doc__)
    parser.add_argument(
        "words",
        nargs="+",
        metavar="RUN | KEY=VALUE[,VALUE...]",
        help="folders of completed runs, and keys of solver and dataset, or device, threads and precision",
    )
    parser.add_argument("--weights", choices=("last", "best"), default="last", help="default: last")
    parser.add_argument(
        "--json",
        action="store_true",
        help="print JSON: the changes with stored and new metrics, or all rows of the table",
    )
    parser.add_argument(
        "--out", type=Path, help="folder for the table of several runs or values; default: that of the first run"
    )
    args = parser.parse_intermixed_args(argv)
    args.changes = [word for word in args.words if "=" in word and not Path(word).is_dir()]
    args.runs = [Path(word) for word in args.words if word not in args.changes]
    if not args.runs:
        parser.error("RUN must be the folder of a run, got none")
    from neuralode_exp.load import NotLoadable  # imported after the parser, so that --help need not wait for torch
    from neuralode_exp.ode import SolverError

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        return _compare(args) if len(args.runs) > 1 or _has_several(args.changes) else _evaluate(args)
    except (ConfigError, NotLoadable) as error:
        print(error, file=sys.stderr)
        return 2
    except (SolverError, ValueError, OSError, MemoryError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1


def _has_several(words: list[str]) -> bool:
    from neuralode_exp.work_precision import combinations

    return len(list(combinations(words))) > 1


def _compare(args: argparse.Namespace) -> int:
    """Measure several runs or values: print a table, write a csv and a picture."""
    from neuralode_exp.work_precision import table, work_precision, write

    commands.require_writable(args.out or args.runs[0])
    rows = work_precision(args.runs, args.changes, args.weights)
    files = write(rows, args.out or args.runs[0])
    print(json.dumps([dataclasses.asdict(row) for row in rows], indent=2) if args.json else table(rows))
    print(*files, file=sys.stderr)
    return 0


def _evaluate(args: argparse.Namespace) -> int:
    """Measure one run with the changes: print its stored metrics and the new ones."""
    from neuralode_exp.evaluate import evaluate

    if args.out is not None:
        rule = "is for the table of several runs or values"
        raise ConfigError([Mistake("--out", rule, f"{args.out} with one of each", "leave it out")])
    found = evaluate(args.runs[0], args.changes, args.weights)
    if args.json:
        shown = {"changes": args.changes, "weights": args.weights, "stored": found.stored, "now": found.now}
        print(json.dumps({"run": str(args.runs[0]), **shown}, indent=2))
        return 0
    width = max(map(len, found.now))
    print(f"{'':<{width}}  {'stored':>12}  {'now':>12}")
    for tag, value in found.now.items():
        before = f"{found.stored[tag]:.6g}" if tag in found.stored else "-"
        print(f"{tag:<{width}}  {before:>12}  {value:>12.6g}")
    return 0
