"""Runs without training: the files that one leaves, with metrics that a test chooses."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
import yaml

from neuralode_exp.config import Config, identity
from neuralode_exp.tracking.summary import RunError, Status, new_summary, write_summary

MakeRun = Callable[..., Path]


@pytest.fixture(scope="session")
def make_run(compose: Callable[..., Config]) -> MakeRun:
    def make_run(
        folder: Path,
        *words: str,
        status: Status = "completed",
        metrics: Mapping[str, float] | None = None,
        curves: Mapping[str, Sequence[float]] | None = None,
        error: tuple[str, str] | None = None,
    ) -> Path:
        config = compose(*words)
        (folder / ".hydra").mkdir(parents=True)
        (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
        summary = new_summary(identity(config), torch.device("cpu"), parameters=100)
        summary |= {"status": status, "metrics": dict(metrics or {}), "seconds": 10.0, "steps": 7}
        if status == "completed":
            summary["objective"] = summary["metrics"].get("error/validation")
        if error:
            summary["error"] = RunError(type=error[0], message=error[1])
        if status == "killed":
            summary["status"] = "running"
            summary["process"]["pid"] = 2**22 + 1  # above the largest number of a process
        write_summary(folder, summary)
        rows = [
            f"{step},{tag},{value!r}" for tag, values in (curves or {}).items() for step, value in enumerate(values)
        ]
        (folder / "metrics.csv").write_text("\n".join(["step,tag,value", *rows, ""]))
        return folder

    return make_run


def write_damaged(folder: Path) -> Path:
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "config.yaml").write_text("seed: [")
    (folder / "summary.json").write_text(json.dumps({"status": "completed"})[:-3])
    return folder
