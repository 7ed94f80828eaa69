"""What `scripts/results.py` keeps of a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import results
from neuralode_exp.report.runs import find_runs


@pytest.mark.parametrize("words", [("dataset=mnist", "model=mlp"), ()])
def test_metrics_are_kept_and_curves_of_images(
    tmp_path: Path, make_run: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "kept")
    metrics, curves = {"time/step_ms": 12.0, "error/test": 2.0}, {"error/test": (3.0, 2.0)}
    make_run(tmp_path / "run", *words, metrics=metrics, curves=curves)
    (run,) = find_runs([tmp_path / "run"])
    content = json.loads(results.keep(run, "some").read_text())
    assert metrics.items() <= content["metrics"].items()
    assert ("curves" in content) == bool(words)
