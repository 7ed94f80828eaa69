"""A grid in one process: which cells run, how each end is shown, what the next call does."""

from __future__ import annotations

import os
import re
import shlex
import signal
from pathlib import Path

import pytest
import yaml

from neuralode_exp.build import device_of_job
from neuralode_exp.outcome import Interrupted
from neuralode_exp.sweep import STEPS_AFTER
from neuralode_exp.sweep.grid import stopping
from neuralode_exp.tracking.summary import read_summary
from neuralode_exp.trainers.loop import Loop
from tests.sweep.conftest import Grid, stamps, statuses, table


def test_all_cells_run_and_the_table_has_them(grid: Grid, capsys: pytest.CaptureFixture[str]) -> None:
    assert grid("seed=0,1", "trainer.lr=0.01,0.02") == 0
    rows = table()
    assert [row["status"] for row in rows] == ["completed"] * 4
    assert len({row["run"] for row in rows}) == 4
    for row in rows:
        summary = read_summary(Path("grid") / row["run"])
        assert summary is not None
        assert float(row["objective"]) == summary["objective"]
        assert float(row["seconds"]) == summary["seconds"] > 0
    assert rows[1]["overrides"].endswith("seed=0 trainer.lr=0.02")
    out = capsys.readouterr().out
    # what all cells share is not repeated
    assert f"   1  completed  {float(rows[1]['objective']):9.5g}" in out
    assert re.search(rf"  {re.escape(rows[1]['run'])} +seed=0 trainer.lr=0.02\n", out)
    for row in rows:
        assert f"+lr-{row['overrides'].rpartition('=')[2]}+" in row["label"]
        assert re.fullmatch(re.escape(row["label"]) + "-[0-9a-f]{8}", row["run"])
    assert f"4 completed; {Path.cwd()}/grid/sweep.csv" in out


def test_a_finished_grid_is_left_as_it_is(grid: Grid) -> None:
    assert grid("seed=0,1") == 0
    before = stamps()
    assert grid("seed=0,1") == 0
    assert stamps() == before


def test_a_damaged_summary_costs_only_its_run(grid: Grid) -> None:
    assert grid("seed=0,1") == 0
    damaged = Path("grid") / table()[1]["run"] / "summary.json"
    damaged.write_text('{"status": "completed"}')
    assert grid("seed=0,1,2") == 1
    assert statuses() == ["completed", "failed", "completed"]
    assert table()[1]["reason"].endswith(
        "summary.json is damaged (KeyError); delete it, and the run can go on from its checkpoint"
    )
    damaged.unlink()
    assert grid("seed=0,1,2") == 0
    assert statuses() == ["completed"] * 3


def test_a_longer_command_extends_the_grid(grid: Grid) -> None:
    assert grid("seed=1") == 0
    before = {path: stamp for path, stamp in stamps().items() if path.name not in ("sweep.csv", "multirun.yaml")}
    assert grid("seed=0,1,2") == 0
    assert statuses() == ["completed"] * 3
    assert before.items() <= stamps().items()


def test_what_fails_costs_only_itself(grid: Grid) -> None:
    words = ("trainer.schedule=constant", "trainer.max_failures=3")
    assert grid("trainer.lr=1e30,0.01", *words) == 1
    diverged, fine = table()
    assert (diverged["status"], fine["status"]) == ("failed", "completed")
    assert diverged["reason"].startswith("NonFiniteGradient: the loss or its gradient is NaN")
    assert "Traceback" in (Path("grid") / diverged["run"] / "train.log").read_text()

    before = {path: at for path, at in stamps().items() if path.parts[1] == fine["run"]}
    assert grid("trainer.lr=0.01", *words) == 0
    assert before.items() <= stamps().items()


def test_a_grid_ends_after_as_many_failures_as_it_may_have(grid: Grid) -> None:
    words = ("trainer.schedule=constant", "trainer.max_failures=2", "trainer.lr=1e30,0.01", "seed=0,1,2")
    assert grid(*words, "hydra.sweeper.stop_after=2") == 1
    assert statuses() == ["failed", "failed", *["not started"] * 4]
    assert grid(*words) == 1
    assert statuses() == ["failed"] * 3 + ["completed"] * 3


def test_a_nan_objective_is_a_failure(grid: Grid) -> None:
    # One step: the loss before it is finite, the loss of the weights after it is not.
    words = ("trainer.epochs=null", "trainer.max_steps=1", "trainer.optimizer=sgd", "trainer.lr=1e38")
    assert grid(*words, "trainer.schedule=constant", "objective=loss/validation", "seed=0,1") == 1
    assert statuses() == ["failed", "failed"]
    assert "the objective loss/validation is nan" in table()[0]["reason"]


def test_cells_without_meaning_are_skipped_with_the_reason(grid: Grid) -> None:
    words = ("model=odenet,mlp", "solver=euler", "solver.engine=native,torchdiffeq", "model.gradient=checkpoint")
    assert grid(*words, "model.channels=4", "trainer.epochs=null", "trainer.max_steps=1") == 0
    rows = table()
    assert [row["status"] for row in rows] == ["completed", "skipped", "completed", "completed"]
    assert "torchdiffeq differentiates by backprop and adjoint only" in rows[1]["reason"]
    assert rows[1]["run"] == ""
    assert [row["same_as"] for row in rows] == ["", "", "", "2"]


def test_cells_that_are_the_same_run_run_once(grid: Grid, capsys: pytest.CaptureFixture[str]) -> None:
    assert grid("solver=dopri5,rk4,euler", "seed=0,1") == 0
    rows = table()
    assert [row["same_as"] for row in rows] == ["", "", "0", "1", "0", "1"]
    assert rows[0]["run"] == rows[2]["run"] == rows[4]["run"]
    assert len([path for path in Path("grid").iterdir() if path.is_dir()]) == 2
    assert "2 completed, 4 same as another" in capsys.readouterr().out


def test_each_job_knows_the_steps_that_come_after_it(grid: Grid) -> None:
    assert grid("trainer.epochs=null", "trainer.max_steps=1,3,5", "trainer.evaluate_every=5") == 0
    files = [Path("grid") / row["run"] / ".hydra" / "hydra.yaml" for row in table()]
    of_jobs = [yaml.safe_load(file.read_text())["hydra"]["job"]["env_set"] for file in files]
    assert of_jobs == [{STEPS_AFTER: "8"}, {STEPS_AFTER: "5"}, {STEPS_AFTER: "0"}]


def test_the_end_names_the_best_run_and_an_axis_that_changed_nothing(
    grid: Grid, capsys: pytest.CaptureFixture[str]
) -> None:
    assert grid("trainer.patience=50,60", "seed=0,1") == 0
    rows = table()
    out = capsys.readouterr().out
    assert "trainer.patience changed nothing: runs that differ in it alone are equal in every metric\n" in out
    assert "seed changed nothing" not in out
    best = min(rows, key=lambda row: float(row["objective"]))
    said = f"validation error {float(best['objective']):.4g} %, cell {best['cell']}, {Path.cwd()}/grid/{best['run']}"
    assert f"best on mnist: {said}\n" in out


def test_a_grid_with_a_deletion_has_its_conclusions(grid: Grid, capsys: pytest.CaptureFixture[str]) -> None:
    assert grid("seed=0,1", "~solver.compile") == 0
    assert statuses() == ["completed"] * 2
    assert "best on mnist: " in capsys.readouterr().out


def test_without_held_out_images_the_best_run_is_that_of_the_training_loss(
    grid: Grid, capsys: pytest.CaptureFixture[str]
) -> None:
    assert grid("dataset.validation=0", "seed=0,1") == 0
    least = min(float(row["objective"]) for row in table())
    assert f"best on mnist: training loss {least:.4g}, cell" in capsys.readouterr().out


def test_ctrl_c_checkpoints_the_job_and_leaves_the_rest(
    grid: Grid, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = Loop._train_step
    steps = 0

    def interrupting(self: Loop, *, measure_memory: bool) -> None:
        nonlocal steps
        steps += 1
        original(self, measure_memory=measure_memory)
        if steps == 10 + 3:  # a job has 10 steps
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Loop, "_train_step", interrupting)
    assert grid("seed=0,1,2") == 130
    assert statuses() == ["completed", "interrupted", "not started"]
    command = capsys.readouterr().err.strip().splitlines()[-1]
    assert command.startswith("interrupted; go on with: python train.py --multirun dataset=mnist ")
    assert command.endswith(f"seed=0,1,2 hydra.sweep.dir={Path.cwd()}/grid")

    monkeypatch.setattr(Loop, "_train_step", original)
    before = {path: at for path, at in stamps().items() if path.parts[1] == table()[0]["run"]}
    assert grid("seed=0,1,2") == 0
    assert statuses() == ["completed"] * 3
    assert before.items() <= stamps().items()
    assert "resumed after step 3 of" in (Path("grid") / table()[1]["run"] / "train.log").read_text()


def test_the_command_that_goes_on_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["train.py", "-m", "seed=0,1", "hydra.sweep.dir='sp ace/it\\'s'"])
    with pytest.raises(Interrupted) as caught, stopping(Path("sp ace/it's"), lambda: None):
        raise KeyboardInterrupt
    command = "interrupted; go on with: python train.py "
    words = shlex.split(str(caught.value).removeprefix(command))
    assert words == ["-m", "seed=0,1", "hydra.sweep.dir='sp ace/it\\'s'"]


def test_devices_are_dealt_out_by_the_jobs_number() -> None:
    assert [device_of_job("auto", number, n_cuda=3) for number in range(4)] == ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]
    assert {device_of_job("auto", number, n_cuda=n) for number in range(3) for n in (0, 1)} == {"auto"}
    assert device_of_job("cpu", 1, n_cuda=3) == "cpu"
