"""What `scripts/results.py` keeps of a run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import results
from neuralode_exp.report.runs import find_runs


@pytest.mark.parametrize(
    ("words", "ms"),
    # Of 10, 12 and 90 ms the median on images, the last one elsewhere.
    [(("dataset=mnist", "model=mlp"), 12.0), ((), 90.0)],
)
def test_the_time_of_a_step(
    tmp_path: Path,
    make_run: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    ms: float,
) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path / "kept")
    curves = {"time/step_ms": (10.0, 12.0, 90.0), "error/test": (3.0, 2.0)}
    make_run(tmp_path / "run", *words, metrics={"time/step_ms": 90.0, "error/test": 2.0}, curves=curves)
    (run,) = find_runs([tmp_path / "run"])
    content = json.loads(results.keep(run, "some").read_text())
    assert content["metrics"]["time/step_ms"] == ms
    assert content["metrics"]["error/test"] == 2.0
    assert ("curves" in content) == bool(words)
