"""What `results/` keeps, and how README and RESULTS.md write its numbers."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from neuralode_exp.report.runs import Run


class Results:
    """What `results/` keeps: runs by experiment, and figures by benchmark."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def runs(self, experiment: str, **settings: Any) -> list[Run]:
        """Return the runs of an experiment whose settings are those given; `model_width` stands for model.width.

        Raises:
            LookupError: none is kept.
        """
        wanted = {key.replace("_", ".", 1): value for key, value in settings.items()}
        folder = self.folder / experiment
        kept = [as_run(folder, json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]
        found = [run for run in kept if all(run.settings.get(key) == value for key, value in wanted.items())]
        if not found:
            raise LookupError(f"results/{experiment} must have a run with {wanted}, got none; run the experiment")
        return sorted(found, key=lambda run: run.settings["seed"])

    def figure(self, table: str, name: str) -> dict[str, Any]:
        """Return a figure of a benchmark: its value and quartiles."""
        figures = json.loads((self.folder / f"benchmark-{table}.json").read_text())["figures"]
        return next(figure for figure in figures if figure["name"] == name)

    def value(self, table: str, name: str) -> float:
        return float(self.figure(table, name)["value"])

    def quartiles(self, table: str, name: str, digits: int) -> str:
        figure = self.figure(table, name)
        low, high = figure["quartiles"]
        return f"{figure['value']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def as_run(folder: Path, content: Mapping[str, Any]) -> Run:
    """Return a kept result of a folder as the run that it was."""
    return Run(
        folder,
        "completed",
        settings=content["settings"],
        metrics=content["metrics"],
        objective=content["objective"],
        curves=content.get("curves", {}),
    )


def spread(runs: Iterable[Run], tag: str, digits: int, factor: float = 1.0) -> str:
    """Return mean ± standard deviation of a metric, or the one value there is."""
    values = [factor * run.metrics[tag] for run in runs]
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"


def seeds(runs: list[Run]) -> str:
    return "one seed" if len(runs) == 1 else f"{len(runs)} seeds"


def errors(runs: list[Run]) -> str:
    """Return a test error in percent, and each seed's if there are several."""
    each = ", ".join(f"{run.metrics['error/test']:.2f}" for run in runs)
    return f"{error_of(runs)} % ({each if len(runs) > 1 else 'one seed'})"


def error_of(runs: list[Run]) -> str:
    """Return a test error in percent, which has two digits, and a third one as a mean."""
    return spread(runs, "error/test", 3 if len(runs) > 1 else 2)


def range_of(values: Iterable[float], digits: int) -> str:
    ordered = sorted(values)
    return f"{ordered[0]:.{digits}f} to {ordered[-1]:.{digits}f}"
