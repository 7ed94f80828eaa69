"""The first training losses of a run and one evaluation, which show whether code still gives the same numbers."""

from __future__ import annotations

import contextlib
import io
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
STEPS = 20  # at most
# Metrics that depend on the machine and not on the run.
OF_MACHINE = ("time/", "memory/", "final/")
# Number of held-out images or points: enough to see a difference. An accurate solve of images in float64 is slow.
FEW = {"images": 100, "labels": 500, "densities": 500}


def opening(values: Mapping[str, Any], steps: int = STEPS) -> dict[str, Any]:
    """Train a config for its first steps, on one thread of the CPU.

    The schedule of the learning rate ends after these steps, and flow matching ends half-way through them.

    Returns:
        `losses` of each step, and `evaluation` after the last one, by tag.
    """
    from neuralode_exp.config import validate  # imported here, so that --help need not wait for torch
    from neuralode_exp.run import run
    from neuralode_exp.tracking.metrics import read_metrics
    from neuralode_exp.tracking.summary import read_summary

    steps = min(steps, values["trainer"]["max_steps"] or steps)  # no more than the run itself had
    of_run = {"device": "cpu", "threads": 1, "log_every": 1, "figures": False, "check": False, "resume": None}
    of_trainer = {
        "epochs": None,
        "max_steps": steps,
        "evaluate_every": steps,
        "checkpoint_every": None,
        "patience": None,
    }
    dataset, trainer = dict(values["dataset"]), {**values["trainer"], **of_trainer}
    if few := FEW.get(dataset["kind"]):
        dataset |= {key: min(dataset[key], few) for key in ("validation", "test") if key in dataset}
    if "root" in dataset and not Path(dataset["root"]).is_dir():
        dataset["root"] = str(ROOT / "data")
    if trainer.get("loss") == "flow-matching+likelihood":
        trainer["matching_steps"] = steps // 2
    config = validate({**values, **of_run, "dataset": dataset, "trainer": trainer})
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        run(config, Path(folder), config.model_dump(mode="json"), bar=False)
        losses, summary = read_metrics(Path(folder))["loss/train"][1], read_summary(Path(folder))
    assert summary is not None
    evaluation = {tag: x for tag, x in summary["metrics"].items() if not tag.startswith(OF_MACHINE)}
    return {"losses": losses, "evaluation": evaluation}


def largest_difference(numbers: list[float], others: list[float]) -> float:
    """Return the largest |a - b| / max(|a|, |b|): 0 if all are equal bit for bit, infinity if their numbers differ.

    It is infinite too where only one of the two is NaN or infinite.
    """
    if len(numbers) != len(others):
        return math.inf
    return max(map(_difference, numbers, others), default=0.0)


def _difference(a: float, b: float) -> float:
    if a == b or (math.isnan(a) and math.isnan(b)):
        return 0.0
    return abs(a - b) / max(abs(a), abs(b)) if math.isfinite(a) and math.isfinite(b) else math.inf
