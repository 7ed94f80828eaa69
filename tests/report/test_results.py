"""What `scripts/results.py` keeps of a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import staleness
from opening import opening

import results
from neuralode_exp.config import Config
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


def test_a_result_is_stale_when_its_first_steps_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compose: Callable[..., Config]
) -> None:
    config = compose("model.width=4", "dataset.trajectories=4", "dataset.validation=2").model_dump(mode="json")
    record = opening(config)
    assert len(record["losses"]) == 20
    assert record["evaluation"]["dynamics/field_error"] > 0
    monkeypatch.setattr(staleness, "identities", lambda name: {"kept", "missing", "refused"})
    (tmp_path / "some").mkdir()
    for name, change in (("kept", 1.0), ("other", 1.01)):
        losses = [*record["losses"][:-1], change * record["losses"][-1]]
        content = {"config": config, "opening": {**record, "losses": losses}}
        (tmp_path / "some" / f"{name}.json").write_text(json.dumps(content))
    gone = {**record, "evaluation": {**record["evaluation"], "dynamics/old": 1.0}}
    (tmp_path / "some" / "gone.json").write_text(json.dumps({"config": config, "opening": gone}))
    (tmp_path / "some" / "older.json").write_text(json.dumps({"config": config}))
    refused = {"config": {**config, "seed": -1}, "opening": record}
    (tmp_path / "some" / "refused.json").write_text(json.dumps(refused))
    assert list(staleness.stale([tmp_path / "some"])) == [
        "some/gone.json: dynamics/old differ by inf",
        "some/older.json: has no record of its first steps",
        "some/other.json: losses differ by 0.0099",
        "some/refused.json: could not be run: seed must be at least 0, got -1",
        "some: 1 of its cells have no result",
    ]


def test_a_difference_that_rounding_explains_is_no_change_of_the_code(tmp_path: Path) -> None:
    config = {"trainer": {"lr": 0.1}}
    kept = {"config": config, "opening": {"losses": [1.0, 2.0], "evaluation": {"error/test": 50.0}}}
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "a.json").write_text(json.dumps(kept))

    def lines(loss: float, by_a_nudge: float) -> list[str]:
        def reopen(config: Mapping[str, Any]) -> dict[str, Any]:
            nudged = config["trainer"]["lr"] != 0.1
            return {"losses": [1.0, loss + nudged * by_a_nudge], "evaluation": {"error/test": 50.0}}

        return list(staleness.stale([tmp_path / "some"], reopen))

    assert lines(2.001, by_a_nudge=0.0) == []
    assert lines(2.01, by_a_nudge=0.0) == ["some/a.json: losses differ by 0.005"]
    assert lines(2.01, by_a_nudge=0.0005) == ["some/a.json: losses differ by 0.005"]
    assert lines(2.01, by_a_nudge=0.002) == []


def test_an_experiment_without_results_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert results.main(["stale", "energy", "enrgy"]) == 2
    assert "got enrgy; known: augment, " in capsys.readouterr().err


def test_the_cells_of_an_experiment_are_those_of_its_grid() -> None:
    assert len(staleness.identities("densities")) == 7
    assert staleness.identities("no-such-experiment") == set()
