"""The search with Optuna: what is drawn, pruned, told, gone on with and refused."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neuralode_exp.config.compose import Composer
from neuralode_exp.config.hydra_internals import make_loader
from neuralode_exp.config.preflight import preflight
from neuralode_exp.tracking.lock import lock
from neuralode_exp.tracking.summary import read_summary
from neuralode_exp.trainers.loop import Loop
from tests.conftest import ROOT, train
from tests.sweep.conftest import TINY, Grid, stamps, statuses, table

optuna = pytest.importorskip("optuna")
pytestmark = pytest.mark.extras

SEARCH = (
    "hydra/sweeper=optuna",
    "trainer.lr=tag(log,interval(0.001,0.1))",
    "model.hidden=choice(4,8)",
)


def test_the_ready_made_search_validates() -> None:
    answer = preflight(["-m", "experiment=search-dynamics", "hydra/sweeper=optuna", "check=true"]).answer
    assert str(answer).startswith("ok: ")


def test_a_check_of_a_search_tells_its_trials_and_not_the_cells_that_were_tried() -> None:
    words = ("hydra.sweeper.n_trials=7", "trainer.max_steps=50", "check=true")
    answer = preflight(["-m", "hydra/sweeper=optuna", "trainer.lr=interval(0.01,0.1)", "seed=3", *words]).answer
    assert answer == "ok: a search over trainer.lr with 7 trials of at most 50 steps"


@pytest.mark.parametrize(
    ("word", "line"),
    [
        (
            "trainer.weight_decay=tag(log,interval(0,0.1))",
            "trainer.weight_decay must be a range or a choice that Optuna",
        ),
        ("trainer.weight_decay=interval(0.1,0.001)", "trainer.weight_decay must be a range or a choice that Optuna"),
        ("seed=range(0,0)", "seed must have a value, got range(0,0); "),
        ("+hydra.sweeper.sampler.foo=1", "hydra.sweeper.sampler must have arguments that Optuna accepts, got {seed: "),
        ("hydra.sweeper.sampler.seed=abc", "hydra.sweeper.sampler must have arguments that Optuna accepts, got {seed:"),
    ],
)
def test_what_optuna_refuses_is_refused_before_a_folder_is_made(
    grid: Grid, capsys: pytest.CaptureFixture[str], word: str, line: str
) -> None:
    assert grid(*SEARCH, word) == 2
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith(line)
    assert not Path("grid").exists()


def test_a_search_names_the_best_trial_and_goes_on(grid: Grid, capsys: pytest.CaptureFixture[str]) -> None:
    assert grid(*SEARCH, "hydra.sweeper.n_trials=2") == 0
    assert statuses() == ["completed"] * 2
    first = table()
    assert grid(*SEARCH, "hydra.sweeper.n_trials=4") == 0
    assert statuses() == ["completed"] * 4
    assert [row["run"] for row in table()[:2]] == [row["run"] for row in first]
    best = min(table(), key=lambda row: float(row["objective"]))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("best: trial ")
    assert f"with {float(best['objective']):.5g}, " in last
    assert Path(last.rpartition(": ")[2]).is_dir()

    before = {path: at for path, at in stamps().items() if path.name == "summary.json"}
    assert grid(*SEARCH, "hydra.sweeper.n_trials=4") == 0
    assert before == {path: at for path, at in stamps().items() if path.name == "summary.json"}


def test_failed_trials_are_recorded_and_the_search_goes_on(grid: Grid) -> None:
    words = ("trainer.schedule=constant", "trainer.max_failures=2", "trainer.lr=choice(1e30,0.01)")
    random = ("hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=1", "hydra.sweeper.n_trials=6")
    assert grid("hydra/sweeper=optuna", *words, *random) == 0
    ends = {row["overrides"].split("trainer.lr=")[1].split()[0]: row for row in table()}
    assert len(table()) == 6
    assert ends["1e+30"]["status"] == "failed"
    assert "NonFiniteGradient" in ends["1e+30"]["reason"]
    assert ends["0.01"]["status"] == "completed"


def test_a_search_without_a_completed_trial_fails(grid: Grid) -> None:
    words = ("trainer.schedule=constant", "trainer.max_failures=2", "trainer.lr=interval(1e29,1e30)")
    assert grid("hydra/sweeper=optuna", *words, "hydra.sweeper.n_trials=2") == 1
    assert statuses() == ["failed", "failed"]


def trials(folder: Path = Path("grid")) -> list[optuna.trial.FrozenTrial]:
    from neuralode_exp.sweep.study import open_study

    return open_study(folder).trials


def parameters(n_trials: int, folder: Path = Path("grid")) -> list[dict[str, object]]:
    """What was drawn for each trial."""
    found = trials(folder)
    assert len(found) == n_trials
    return [trial.params for trial in found]


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsgaii", "cmaes"])
def test_a_seeded_search_that_goes_on_draws_what_one_without_a_break_does(grid: Grid, sampler: str) -> None:
    words = (*SEARCH[:2], "trainer.weight_decay=interval(0,0.1)", "trainer.epochs=null", "trainer.max_steps=1")
    seeded = (f"hydra/sweeper/sampler={sampler}", "hydra.sweeper.sampler.seed=3")
    assert grid(*words, *seeded, "hydra.sweeper.n_trials=2") == 0
    assert grid(*words, *seeded, "hydra.sweeper.n_trials=4") == 0
    with_break = parameters(4)
    assert len({str(drawn) for drawn in with_break}) == 4
    assert grid(*words, *seeded, "hydra.sweeper.n_trials=4", "hydra.sweep.dir=whole") == 0
    assert parameters(4, Path("whole")) == with_break


PRUNED = (
    "hydra/sweeper=optuna",
    "hydra/sweeper/sampler=random",
    "hydra.sweeper.sampler.seed=0",
    "hydra.sweeper.pruner=median",
    "trainer.lr=tag(log,interval(1e-6,0.1))",
    "trainer.evaluate_every=2",
    "objective=loss/validation",
)


def test_hopeless_trials_are_pruned_and_can_be_trained_to_their_end(
    grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert grid(*PRUNED, "hydra.sweeper.n_trials=9") == 0
    assert set(statuses()) == {"completed", "pruned"}
    assert statuses()[:5] == ["completed"] * 5  # those that the median needs
    states = {"completed": optuna.trial.TrialState.COMPLETE, "pruned": optuna.trial.TrialState.PRUNED}
    assert [trial.state for trial in trials()] == [states[one] for one in statuses()]
    pruned = Path("grid") / next(row["run"] for row in table() if row["status"] == "pruned")
    summary = read_summary(pruned)
    assert summary is not None
    assert summary["status"] == "pruned"
    assert 0 < summary["steps"] < 14

    before = stamps(pruned)
    assert grid(*PRUNED, "hydra.sweeper.n_trials=9") == 0
    assert stamps(pruned) == before
    assert train(f"resume={pruned.absolute()}").returncode == 0
    assert read_summary(pruned)["status"] == "completed"
    assert f"resumed after step {summary['steps']} of" in (pruned / "train.log").read_text()


def test_two_jobs_at_a_time_share_the_study(grid: Grid) -> None:
    words = ("hydra/launcher=joblib", "hydra.sweeper.n_jobs=2", "hydra.sweeper.n_trials=7")
    assert grid(*PRUNED, *words) == 0
    assert len(statuses()) == 7
    assert set(statuses()) <= {"completed", "pruned"}
    assert all(trial.intermediate_values for trial in trials())


def test_a_killed_search_goes_on_with_none_lost(grid: Grid, tmp_path: Path) -> None:
    words = (*SEARCH, "trainer.epochs=40", "hydra.sweeper.n_trials=3", f"hydra.sweep.dir={tmp_path}/grid")
    process = subprocess.Popen([sys.executable, str(ROOT / "train.py"), "-m", *TINY, *words], cwd=tmp_path)
    end = time.monotonic() + 120
    while len(list(tmp_path.glob("grid/*/checkpoints/last.pt"))) < 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.wait()
    drawn = parameters(2)
    assert grid(*words) == 0
    assert parameters(3)[:2] == drawn
    assert statuses() == ["completed"] * 3
    assert "resumed after step" in (Path("grid") / table()[1]["run"] / "train.log").read_text()


def test_a_search_that_another_process_runs_is_refused(grid: Grid, capsys: pytest.CaptureFixture[str]) -> None:
    with lock(Path("grid")):
        assert grid(*SEARCH) == 2
    assert f"is held by process {os.getpid()}" in capsys.readouterr().err


def test_wrong_searches_are_refused_with_one_line(grid: Grid, capsys: pytest.CaptureFixture[str]) -> None:
    assert grid(*SEARCH, "hydra.sweeper.n_trials=1") == 0
    capsys.readouterr()
    for words, line in (
        (("hydra.sweeper.pruner=medain",), "hydra.sweeper.pruner must be"),
        (("model.hidden=choice(4,16)",), "model.hidden must be searched as in the study's trials"),
    ):
        assert grid(*SEARCH, *words) == 2
        err = capsys.readouterr().err
        assert line in err
        assert len(err.splitlines()) == 1
    (Path("grid") / "study.db").touch()
    assert grid(*SEARCH) == 2
    assert "must not hold a search of an earlier version" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("word", "kind", "arguments"),
    [
        ("interval(0,1)", "FloatDistribution", {"low": 0, "high": 1}),
        ("tag(log,interval(0.001,0.1))", "FloatDistribution", {"low": 0.001, "high": 0.1, "log": True}),
        ("int(interval(1,9))", "IntDistribution", {"low": 1, "high": 9}),
        ("range(1,8,3)", "IntDistribution", {"low": 1, "high": 7, "step": 3}),
        ("tag(log,range(1,9))", "IntDistribution", {"low": 1, "high": 8, "log": True}),
        ("range(0,1,0.25)", "FloatDistribution", {"low": 0, "high": 0.75, "step": 0.25}),
        ("choice(4,8)", "CategoricalDistribution", {"choices": ("4", "8")}),
        ("tanh,softplus", "CategoricalDistribution", {"choices": ("tanh", "softplus")}),
    ],
)
def test_hydras_sweeps_are_distributions(word: str, kind: str, arguments: dict[str, object]) -> None:
    from neuralode_exp.sweep.space import split

    overrides = Composer(make_loader(ROOT / "conf")).parse([f"trainer.lr={word}", "seed=1"], [])
    assert split(overrides) == ({"trainer.lr": getattr(optuna.distributions, kind)(**arguments)}, ["seed=1"])


def test_an_interrupted_trial_goes_on(grid: Grid, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Loop._train_step

    def interrupting(self: Loop, *, measure_memory: bool) -> None:
        original(self, measure_memory=measure_memory)
        if self.step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "_train_step", interrupting)
    words = ("trainer.checkpoint_every=1", "hydra.sweeper.n_trials=1")
    assert grid(*SEARCH, *words) == 130
    assert statuses() == ["interrupted"]
    cut = table()[0]["run"]
    monkeypatch.setattr(Loop, "_train_step", original)
    assert grid(*SEARCH, *words) == 0
    assert [(row["run"], row["status"]) for row in table()] == [(cut, "completed")]
    assert "resumed after step 2" in (Path("grid") / cut / "train.log").read_text()
