"""A run from config to summary: its files, its repeatability, its ends."""

from __future__ import annotations

import json
import math
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from neuralode_exp.outcome import Interrupted, RunFailed
from neuralode_exp.tracking.metrics import read_metrics
from neuralode_exp.tracking.summary import read_summary
from neuralode_exp.trainers.loop import Loop
from tests.conftest import ROOT, TINY_IMAGES, train_here
from tests.runs import Compose, assert_same_weights, curves, run_in, weights, whole_and_cut


def test_a_run_leaves_what_the_readme_says(tmp_path: Path, compose: Compose) -> None:
    objective = run_in(tmp_path, compose(*TINY_IMAGES, "model=odenet", "solver=rk4", "solver.step_size=1"))
    summary = read_summary(tmp_path)
    assert summary is not None
    assert summary["status"] == "completed"
    assert summary["objective"] == objective == summary["metrics"]["error/validation"]
    assert summary["parameters"] == 208_266
    assert summary["steps"] == 20
    assert (tmp_path / "checkpoints" / "best.pt").exists()

    in_csv = read_metrics(tmp_path)
    for tag in (
        "loss/train",
        "loss/validation",
        "error/validation",
        "error/test",
        "nfe/forward",
        "nfe/backward",
        "solver/accepted",
        "solver/rejected",
        "solver/failures",
        "memory/peak_mib",
        "memory/saved_mib",
        "memory/autograd_peak_mib",
        "final/time/step_ms",
        "time/elapsed_s",
        "solver/consistency",
    ):
        assert tag in in_csv, tag
        assert in_csv[tag][1][-1] == summary["metrics"][tag], tag
    assert set(in_csv["nfe/forward"][1]) == set(in_csv["nfe/backward"][1]) == {4.0}  # one rk4 step

    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    events.Reload()
    assert set(events.Tags()["scalars"]) == {*in_csv, "final/completed"}  # the mark of success, for its HParams tab
    for tag, (steps, values) in in_csv.items():
        assert [event.step for event in events.Scalars(tag)] == steps
        # TensorBoard keeps float32
        assert [event.value for event in events.Scalars(tag)] == pytest.approx(values, rel=1e-6)


@pytest.mark.parametrize(
    ("model", "forward", "backward"), [("mlp", 0, 0), ("stem", 0, 0), ("resnet", 6, 6), ("rknet", 4, 0)]
)
def test_nfe_of_every_image_model(tmp_path: Path, compose: Compose, model: str, forward: int, backward: int) -> None:
    words = (f"model={model}", "solver=rk4", "solver.step_size=1", "trainer.epochs=null", "trainer.max_steps=1")
    run_in(tmp_path, compose(*TINY_IMAGES, *words))
    metrics = read_metrics(tmp_path)
    assert (metrics["nfe/forward"][1], metrics["nfe/backward"][1]) == ([forward], [backward])


def test_same_seed_same_weights_to_the_bit(tmp_path: Path, compose: Compose) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run_in(tmp_path / name, compose(*TINY_IMAGES, "model=mlp", f"seed={seed}"))
    assert_same_weights(tmp_path / "a", tmp_path / "b")
    assert curves(tmp_path / "a") == curves(tmp_path / "b")
    a, c = weights(tmp_path / "a"), weights(tmp_path / "c")
    assert not torch.equal(a["layers.0.weight"], c["layers.0.weight"])


def test_pictures_do_not_change_what_is_trained(tmp_path: Path, compose: Compose) -> None:
    rows = [f"{0.1 * i},{math.cos(0.3 * i)},{math.sin(0.3 * i)}" for i in range(40)]
    (tmp_path / "table.csv").write_text("\n".join(["t,x,y", *rows]))
    words = ("dataset=csv", f"dataset.path={tmp_path}/table.csv", "trainer.max_steps=8", "trainer.evaluate_every=3")
    for drawn in ("true", "false"):
        config = compose(*words, "threads=1", "model.width=8", f"figures={drawn}")
        assert config.solver.first_step == "previous"  # a solve in training mode leaves its first step to the next
        run_in(tmp_path / drawn, config)
    assert_same_weights(tmp_path / "true", tmp_path / "false")


def test_an_objective_that_the_run_does_not_record_needs_no_lower_lr(tmp_path: Path, compose: Compose) -> None:
    config = compose(*TINY_IMAGES, "model=mlp", "objective=solver/stored_states")
    line = "objective solver/stored_states is nan; this run does not record it, so choose another"
    with pytest.raises(RunFailed, match=line):
        run_in(tmp_path, config)


@pytest.mark.parametrize("killed_at", [1, 7, 10, 13, 20])
def test_a_killed_run_goes_on_to_the_same_weights_and_curves(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    config = compose(*TINY_IMAGES, "model=mlp", "trainer.average=0.9", "log_every=5", "trainer.checkpoint_every=4")
    whole, cut = whole_and_cut(tmp_path, config, monkeypatch, killed_at)
    assert_same_weights(whole, cut)
    assert curves(whole) == curves(cut)


def test_kill_9_and_resume_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*TINY_IMAGES, "model=stem", "trainer.checkpoint_every=1"]
    assert train_here(monkeypatch, *words, f"hydra.run.dir={tmp_path / 'whole'}") == 0
    cut = tmp_path / "cut"
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *words, f"hydra.run.dir={cut}"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _wait_for(cut / "checkpoints" / "last.pt", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    summary = read_summary(cut)
    assert summary is not None
    assert summary["status"] == "killed"
    assert train_here(monkeypatch, f"resume={cut}") == 0
    assert_same_weights(tmp_path / "whole", cut)
    assert curves(tmp_path / "whole") == curves(cut)


def test_the_command_that_goes_on_is_quoted(tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Loop, *, measure_memory: bool) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "_train_step", interrupted)
    with pytest.raises(Interrupted) as caught:
        run_in(tmp_path / "sp ace", compose(*TINY_IMAGES, "model=mlp"))
    words = shlex.split(str(caught.value).partition("go on with: ")[2])
    assert words[2:] == [f"resume='{tmp_path}/sp ace'"]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_after_a_checkpoint(tmp_path: Path, number: signal.Signals, status: int) -> None:
    process = subprocess.Popen(
        [
            *(sys.executable, str(ROOT / "train.py"), *TINY_IMAGES, "model=stem", "trainer.epochs=500"),
            *("log_every=1", "trainer.checkpoint_every=1000", f"hydra.run.dir={tmp_path / 'run'}"),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    _wait_for(tmp_path / "run" / "metrics.csv", process, size=100)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == status
    assert f"python train.py resume={tmp_path / 'run'}" in stderr
    assert "Traceback" not in stderr
    summary = read_summary(tmp_path / "run")
    assert summary is not None
    assert summary["status"] == "interrupted"
    saved = torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)
    assert saved["step"] == summary["steps"] > 0


def _wait_for(path: Path, process: subprocess.Popen, size: int = 1) -> None:  # type: ignore[type-arg]
    deadline = time.monotonic() + 90
    while not (path.exists() and path.stat().st_size >= size):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_completed_run_is_not_repeated(tmp_path: Path, compose: Compose) -> None:
    config = compose(*TINY_IMAGES, "model=mlp")
    objective = run_in(tmp_path, config)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert run_in(tmp_path, config) == objective
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}


def test_the_folder_of_another_run_is_refused(tmp_path: Path, compose: Compose) -> None:
    run_in(tmp_path, compose(*TINY_IMAGES, "model=mlp"))
    with pytest.raises(RunFailed, match=r"holds another run .* choose another folder"):
        run_in(tmp_path, compose(*TINY_IMAGES, "model=mlp", "seed=5"))


def test_a_failure_has_one_line_and_a_record(tmp_path: Path, compose: Compose) -> None:
    config = compose(*TINY_IMAGES, "model=odenet", "solver=dopri5", "solver.max_steps=1", "trainer.max_failures=3")
    with pytest.raises(RunFailed, match="MaxStepsExceeded: max_steps was reached"):
        run_in(tmp_path, config)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert summary["error"]["type"] == "MaxStepsExceeded"
    assert summary["steps"] == 3
    assert summary["seconds"] > 0


def test_a_diverging_run_fails_and_says_so(tmp_path: Path, compose: Compose) -> None:
    config = compose(*TINY_IMAGES, "model=mlp", "trainer.lr=1e30", "trainer.schedule=constant")
    with pytest.raises(RunFailed, match="NonFiniteGradient"):
        run_in(tmp_path, config)


def test_a_cell_without_meaning_is_skipped(tmp_path: Path, compose: Compose) -> None:
    config = compose("model=mlp")
    assert run_in(tmp_path, config) == float("inf")
    summary = read_summary(tmp_path)
    assert summary is not None
    assert summary["status"] == "skipped"
    assert summary["error"] is not None
    assert "model=mlp is for images" in summary["error"]["message"]
