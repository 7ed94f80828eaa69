"""Evaluate a trained run again, under another solver or on other data.

    python scripts/evaluate.py outputs/2026-01-31/12-00-00.000000 solver=dopri5 solver.rtol=1e-6
    python scripts/evaluate.py RUN dataset.noise=0 device=cpu --json

Prints the test metrics beside those that the run has stored. The weights are the last ones (averaged, where the
run averages), by which runs are judged. Exit status: 0 done, 1 the evaluation failed, 2 the request is wrong.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from neuralode_exp.config import ConfigError


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    description, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a completed run")
    parser.add_argument(
        "changes", nargs="*", metavar="KEY=VALUE", help="of solver, dataset, device, threads, precision"
    )
    parser.add_argument("--weights", choices=("last", "best"), default="last", help="default: last")
    parser.add_argument("--json", action="store_true", help="print JSON: stored, now, and what was changed")
    args = parser.parse_intermixed_args(argv)
    from neuralode_exp.evaluate import evaluate  # after the parser: --help need not wait for torch
    from neuralode_exp.load import NotLoadable
    from neuralode_exp.ode import SolverError

    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        found = evaluate(args.run, args.changes, args.weights)
    except (ConfigError, NotLoadable) as error:
        print(error, file=sys.stderr)
        return 2
    except (SolverError, ValueError, OSError, MemoryError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    if args.json:
        shown = {"changes": args.changes, "weights": args.weights, "stored": found.stored, "now": found.now}
        print(json.dumps({"run": str(args.run), **shown}, indent=2))
        return 0
    width = max(map(len, found.now))
    print(f"{'':<{width}}  {'stored':>12}  {'now':>12}")
    for tag, value in found.now.items():
        before = f"{found.stored[tag]:.6g}" if tag in found.stored else "-"
        print(f"{tag:<{width}}  {before:>12}  {value:>12.6g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
