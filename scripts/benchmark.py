"""Measure a table of figures against its goals.

    python scripts/benchmark.py core            # a few minutes on two quiet CPU cores
    python scripts/benchmark.py core --quick    # seconds: does it run, not what it costs

Prints the table and writes it to results/benchmark-TABLE.json (with --quick only where --json says).
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import torch
from benchmarks.table import print_table, write_json

# A table is a module with `measure(quick) -> list[Figure]`; its docstring says what it measures.
TABLES = {
    "core": "benchmarks.core",
    "density": "benchmarks.density",
    "dynamics": "benchmarks.dynamics",
    "sweep": "benchmarks.sweep",
    "train": "benchmarks.training",
}
RESULTS = Path(__file__).parents[1] / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES, help="what to measure")
    parser.add_argument("--quick", action="store_true", help="few repetitions and small sizes, to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch (default: %(default)s)")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    module = importlib.import_module(TABLES[arguments.table])
    figures = module.measure(arguments.quick)
    print_table(figures, module.__doc__)
    path = arguments.json or (None if arguments.quick else RESULTS / f"benchmark-{arguments.table}.json")
    if path is not None:
        write_json(path, arguments.table, figures, quick=arguments.quick)
        print(f"\nwritten to {path}")


if __name__ == "__main__":
    main()
