"""Keep finished experiments in git, and make RESULTS.md and the table of README's results from them.

    python scripts/results.py add SWEEP ... --as hidden-dynamics   # results/hidden-dynamics/*.json, one a finished run
    python scripts/results.py add SWEEP ... --as NAME --replace    # the same, and delete what else was kept before
    python scripts/results.py render                               # both pages from all of results/
    python scripts/results.py stale                                # results that today's code no longer reproduces
    python scripts/results.py stale energy chaos                   # the same, of these experiments

A result keeps the losses of its first 20 steps and an evaluation after them. `stale` trains these steps again, which
takes minutes, and lists results that differ by more than 1e-3 and by more than rounding explains, results without
such a record, and tables with missing rows.

Exit status: 0 done, 1 something is stale, 2 the request is wrong.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmark import TABLES
from claims.experiments import CLAIMS, FURTHER_COLUMNS, LEFT_OUT
from claims.headlines import with_headlines
from claims.kept import as_run
from opening import opening
from staleness import stale

from neuralode_exp.config import stored_config
from neuralode_exp.report import tables
from neuralode_exp.report.columns import chosen_columns, default_columns
from neuralode_exp.report.grouping import default_keys, group_runs
from neuralode_exp.report.runs import Run, find_runs
from neuralode_exp.tags import Tag
from neuralode_exp.tracking.metrics import read_metrics
from neuralode_exp.tracking.summary import read_summary

ROOT = Path(__file__).parents[1]
RESULTS, PAGE, README = ROOT / "results", ROOT / "RESULTS.md", ROOT / "README.md"
CURVES = ("error/test", "nfe/forward", "nfe/backward")
# What a table of an experiment shows beside the usual columns.
FURTHER = ("density/mass", "solver/consistency", "least_squares/eigenvalue_error", "solver/failures")


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("add", help="copy the results of finished runs to results/")
    add.add_argument("sweeps", type=Path, nargs="+", metavar="SWEEP", help="folders of runs")
    add.add_argument("--as", dest="name", required=True, help="name of the experiment")
    add.add_argument("--replace", action="store_true", help="then delete what else is kept of this experiment")
    commands.add_parser("render", help="write RESULTS.md and README's table of results")
    check = commands.add_parser("stale", help="list results that today's code no longer reproduces")
    check.add_argument("names", nargs="*", metavar="NAME", help="experiments to check (default: all)")
    args = parser.parse_args(argv)
    if args.command == "render":
        PAGE.write_text(render())
        README.write_text(with_headlines(README.read_text(), RESULTS))
        print(PAGE, README, sep="\n")
        return 0
    if args.command == "stale":
        known = [folder.name for folder in kept_folders()]
        if unknown := ", ".join(name for name in args.names if name not in known):
            print(f"NAME must have results, got {unknown}; known: {', '.join(known)}", file=sys.stderr)
            return 2
        lines = 0
        for line in stale([RESULTS / name for name in args.names or known]):
            print(line, flush=True)
            lines += 1
        return int(lines > 0)
    runs = [run for run in find_runs(args.sweeps) if run.completed]
    if not runs:
        folders = ", ".join(map(str, args.sweeps))
        print(f"SWEEP must hold completed runs, got {folders} without any", file=sys.stderr)
        return 2
    kept = set()
    for run in runs:
        path = keep(run, args.name)
        kept.add(path)
        print(path, flush=True)
    if args.replace:
        for path in set((RESULTS / args.name).glob("*.json")) - kept:
            path.unlink()
    return 0


def kept_folders() -> list[Path]:
    """Return the folder of each experiment with results, in the order of their names."""
    return sorted(path for path in RESULTS.iterdir() if path.is_dir())


def keep(run: Run, name: str) -> Path:
    """Write the results of a run to results/<name>/<identity>.json, unless that file is already of this very run."""
    summary = read_summary(run.folder)
    assert summary is not None
    path = RESULTS / name / f"{summary['identity']}.json"
    if path.is_file() and "opening" in (before := json.loads(path.read_text())) and before["metrics"] == run.metrics:
        return path
    config = stored_config(run.folder).model_dump(mode="json")
    content = {
        "settings": run.settings,
        "metrics": run.metrics,
        "objective": run.objective,
        "device": summary["device"],
        "versions": summary["versions"],
        "git_commit": summary["git_commit"],
        "config": config,
        "opening": opening(config),
        "date": datetime.fromtimestamp((run.folder / "summary.json").stat().st_mtime, UTC).date().isoformat(),
    }
    if kept := curves(run):
        content["curves"] = kept
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, default=str) + "\n")
    return path


def curves(run: Run) -> dict[str, tuple[list[int], list[float]]]:
    """Curves that the claims on MNIST draw, thinned to some 100 points; no other run keeps curves."""
    if run.settings["trainer"] != "classification":
        return {}
    kept = read_metrics(run.folder, CURVES)
    return {
        tag: (steps[:: 1 + len(steps) // 100], values[:: 1 + len(steps) // 100])
        for tag, (steps, values) in kept.items()
    }


def render() -> str:
    """Return RESULTS.md: the benchmarks against their goals, then a table for each experiment."""
    parts = [
        "# Results",
        "`python scripts/results.py render` makes this page from the files in `results/`. The commands above a table "
        "measured its numbers.",
        "A benchmark's goal was set before it was measured, and `reached` or `missed` says how the value compares.",
        "The tables of experiments show mean ± standard deviation over the seeds, from the last weights. `seed` seeds "
        "the weights and the batches and leaves the data and the test set as they are, so the spread is that of "
        "training alone. No table uses the weights of `best.pt`: they are chosen by the objective, which for a known "
        "system is the error against its noise-free truth. A dash stands for a key that a run does not read. `ms per "
        "step` is the median over a run's steps. Most runs shared the two cores with others, so compare times in the "
        "benchmarks, which measure by turns.",
    ]
    for path in sorted(RESULTS.glob("benchmark-*.json")):
        parts += benchmark(json.loads(path.read_text()))
    for folder in kept_folders():
        parts += experiment(folder)
    return "\n\n".join(parts) + "\n"


def benchmark(content: dict[str, Any]) -> Iterator[str]:
    machine = content["machine"]
    yield f"## Benchmark `{content['table']}`"
    yield f"    python scripts/benchmark.py {content['table']} --threads {machine['threads']}"
    yield f"{machine['cpu']}, torch {content['versions']['torch']}, {content['date'][:10]}"
    source = ROOT / "scripts" / Path(*TABLES[content["table"]].split(".")).with_suffix(".py")
    yield ast.get_docstring(ast.parse(source.read_text())) or ""
    if note := content.get("note"):
        yield note
    rows = ["| figure | value | quartiles | goal | |", "|---|---|---|---|---|"]
    for figure in content["figures"]:
        spread = "{:.2f} - {:.2f}".format(*figure["quartiles"]) if figure["quartiles"] else ""
        verdict = figure["verdict"] or ""
        rows.append(f"| {figure['name']} | {figure['value']:.2f} | {spread} | {figure['goal'] or ''} | {verdict} |")
    yield "\n".join(rows)


def experiment(folder: Path) -> Iterator[str]:
    contents = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    runs = sorted((as_run(folder, content) for content in contents), key=lambda run: run.settings["seed"])
    yield f"## Experiment `{folder.name}`"
    machines = ", ".join(sorted({content["device"] for content in contents}))
    dates = sorted({content["date"] for content in contents})
    yield commands(folder.name)
    yield f"{machines}, torch {contents[0]['versions']['torch']}, {' to '.join(dates)}"
    keys = [key for key in default_keys(runs) if key != "device"]
    groups = group_runs(runs, keys)
    present = {tag for run in runs for tag in run.metrics}
    further = [tag for tag in (*FURTHER_COLUMNS.get(folder.name, ()), *FURTHER) if tag in present]
    columns: list[Tag] = [*default_columns(runs), *chosen_columns(runs, further)]
    columns = [tag for tag in columns if tag.name not in LEFT_OUT.get(folder.name, ())]
    yield tables.markdown(tables.of_groups(groups, keys, columns))
    if folder.name in CLAIMS:
        yield from CLAIMS[folder.name](runs, folder)


def commands(name: str) -> str:
    """Return the commands in the head of the experiment's file, as a block of Markdown."""
    path = ROOT / "conf" / "experiment" / f"{name}.yaml"
    lines = path.read_text().splitlines() if path.exists() else []
    found = [line.removeprefix("# ").split("  (")[0] for line in lines if line.startswith("# python")]
    return "\n".join(f"    {line}" for line in found or [f"results/{name}"])


if __name__ == "__main__":
    sys.exit(main())
