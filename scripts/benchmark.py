"""Measure a table of figures against its goals.

    python scripts/benchmark.py core            # a few minutes on two quiet CPU cores
    python scripts/benchmark.py core --quick    # seconds: to see that it runs, not to measure
    python scripts/benchmark.py gpu             # on a CUDA device; `make test-gpu` runs it too

Prints the table and writes it to results/benchmark-TABLE.json (with --quick only where --json says).
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path

import torch
from benchmarks.table import print_table, write_json

from neuralode_exp.build import pick_device

# A table is a module with `measure(quick) -> list[Figure]`. Its docstring says what it measures and is printed.
TABLES = {
    "compiled": "benchmarks.compiled",
    "core": "benchmarks.core",
    "cost": "benchmarks.cost",
    "density": "benchmarks.density",
    "dynamics": "benchmarks.dynamics",
    "gpu": "benchmarks.gpu",
    "sweep": "benchmarks.sweep",
    "train": "benchmarks.training",
}
OPTIONS = {"gpu": ("device", "data", "minutes"), "train": ("data",)}  # further arguments of the table's `measure`
ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES, help="what to measure")
    parser.add_argument("--quick", action="store_true", help="few repetitions and small sizes, to see that it runs")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file to write the figures to")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch (default: %(default)s)")
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="folder of MNIST, for train and gpu")
    parser.add_argument("--device", default="cuda", help="gpu: device to measure on (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=7.0, help="gpu: most minutes to take (default: %(default)s)")
    arguments = parser.parse_args()

    torch.set_num_threads(arguments.threads)
    module = importlib.import_module(TABLES[arguments.table])
    options = {name: getattr(arguments, name) for name in OPTIONS.get(arguments.table, ())}
    try:
        pick_device(options.get("device", "cpu"))
    except ValueError as error:
        parser.error(str(error))
    figures = module.measure(arguments.quick, **options)
    print_table(figures, module.__doc__)
    path = arguments.json or (None if arguments.quick else RESULTS / f"benchmark-{arguments.table}.json")
    if path is not None:
        device = arguments.device if "device" in options else "cpu"
        write_json(path, arguments.table, figures, device, quick=arguments.quick)
        print(f"\nwritten to {path}")


if __name__ == "__main__":
    main()
