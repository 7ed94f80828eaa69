"""What comes with the extras: Ray as a launcher, Optuna as a sweeper. `make test-extras` installs them."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuralode_exp.config.preflight import preflight
from neuralode_exp.trainers.loop import Loop
from tests.conftest import train
from tests.sweep.conftest import TINY, Grid, stamps, statuses, table

pytestmark = pytest.mark.extras

SEARCH = (
    "hydra/sweeper=optuna",
    "trainer.lr=tag(log,interval(0.001,0.1))",
    "model.hidden=choice(4,8)",
)


def test_four_jobs_on_a_local_ray(tmp_path: Path) -> None:
    # As a user starts it: Ray's processes look for modules beside the script.
    words = ("-m", *TINY, "seed=0,1,2,3", "hydra/launcher=ray", f"hydra.sweep.dir={tmp_path}/grid")
    ended = train(*words, cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert [row["status"] for row in table(tmp_path / "grid")] == ["completed"] * 4


def test_the_ready_made_search_validates() -> None:
    answer = preflight(["-m", "experiment=search-dynamics", "hydra/sweeper=optuna", "check=true"]).answer
    assert str(answer).startswith("ok: ")


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
