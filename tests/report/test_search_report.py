"""What a report shows of a search whose trials were told by hand."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
import torch

from neuralode_exp.report.report import html, make_report, markdown
from neuralode_exp.report.search import find_searches
from neuralode_exp.tracking.summary import new_summary, write_summary

optuna = pytest.importorskip("optuna")
pytestmark = pytest.mark.extras


@pytest.fixture
def search(tmp_path: Path) -> Path:
    """Twelve trials whose objective is the learning rate, then a pruned and a failed one."""
    from neuralode_exp.sweep.study import open_study

    study = open_study(tmp_path)
    draw = random.Random(0)
    for number in range(14):
        study.enqueue_trial({"trainer.lr": draw.random(), "model.width": draw.random()})
        trial = study.ask()
        lr = trial.suggest_float("trainer.lr", 0, 1)
        trial.suggest_float("model.width", 0, 1)
        if number < 12:
            study.tell(trial, lr)
        elif number == 12:
            trial.report(7.5, 1)
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        else:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
    run = tmp_path / "a-run"
    run.mkdir()
    write_summary(run, {**new_summary("0" * 12, torch.device("cpu")), "status": "completed"})
    return tmp_path


def test_importances_and_the_table_of_trials(search: Path) -> None:
    (found,) = find_searches([search])
    assert [key for key, _ in found.importances.rows] == ["trainer.lr", "model.width"]
    assert sum(value for _, value in found.importances.numbers) == pytest.approx(1)
    assert found.trials.heads == ("trial", "state", "objective", "seconds", "trainer.lr", "model.width")
    assert [row[1] for row in found.trials.rows] == ["complete"] * 12 + ["pruned", "fail"]
    assert found.trials.rows[12][2] == "7.5"


def test_the_history_has_a_dot_for_each_value_and_the_best_until_then(search: Path) -> None:
    (found,) = find_searches([search])
    assert found.history.count("<circle") == 13
    assert "trial 12, pruned: 7.5" in found.history
    line = re.search(r"the best until then</title><path d=\"M([^\"]+)\"", found.history)
    assert line is not None
    heights = [float(place.split()[1]) for place in line[1].split("L")]
    assert len(heights) == 12
    assert heights == sorted(heights)  # SVG counts downwards


def test_page_and_markdown_show_the_search(search: Path) -> None:
    report = make_report([search])
    assert f"Search in {search.name}" in html(report)
    assert "All 14 trials" in html(report)
    assert "| parameter | importance |" in markdown(report)
