"""An interrupt stops a grid wherever it falls, and the same command completes it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from neuralode_exp import run as running
from neuralode_exp.sweep import table as tables
from neuralode_exp.tracking.metrics import read_metrics
from neuralode_exp.tracking.recorder import Recorder
from neuralode_exp.tracking.summary import read_summary
from neuralode_exp.trainers.classification.task import Classification
from tests.conftest import ROOT
from tests.sweep.conftest import TINY, Grid, statuses, table

HALF = ["completed", "interrupted", "not started"]
WHERE = {
    "setting up": (running, "build_task", 2, HALF),
    "evaluating": (Classification, "evaluate", 3, HALF),  # twice a run
    "measuring at the end": (Classification, "final", 2, HALF),
    "drawing": (Classification, "draw", 6, HALF),  # at evaluations and at the end
    "recording the end": (Recorder, "hparams_end", 2, ["completed", "completed", "not started"]),
    "writing the table": (tables, "write_csv", 1, ["completed"] * 3),
}


def at_call(number: int, function: Callable[..., Any], then: Callable[[], object]) -> Callable[..., Any]:
    calls = 0

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            then()
        return function(*arguments, **options)

    return counted


def final_values(folder: Path) -> dict[str, list[float]]:
    """What each cell says of itself at its end, without clocks."""
    found: dict[str, list[float]] = {}
    for row in table(folder):
        metrics = read_metrics(folder / row["run"])
        found[row["run"]] = [v for tag, (_, v) in metrics.items() if tag in ("loss/train", "final/error/test")]
    return found


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_the_grid_there(
    grid: Grid, monkeypatch: pytest.MonkeyPatch, where: str, number: signal.Signals, status: int
) -> None:
    owner, name, call, left = WHERE[where]
    words = ("seed=0,1,2", "trainer.epochs=2", f"figures={str(where == 'drawing').lower()}")
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, at_call(call, getattr(owner, name), lambda: os.kill(os.getpid(), number)))
        assert grid(*words) == status
    assert statuses() == left
    if where not in ("setting up", "writing the table"):
        last = torch.load(Path("grid") / table()[1]["run"] / "checkpoints" / "last.pt", weights_only=True)
        assert last["step"] == (10 if where == "evaluating" else 20)
    assert grid(*words) == 0
    assert statuses() == ["completed"] * 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_python_drops_stops_the_grid_before_the_next_cell(
    grid: Grid, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Finalised:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Classification, "final", at_call(2, Classification.final, lambda: Finalised() and None))
    assert grid("seed=0,1,2") == 130
    assert statuses() == ["completed", "completed", "not started"]


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "train.py"), "-m", *TINY, "trainer.epochs=8", "figures=true", "seed=0,1,2"]
    return subprocess.Popen(
        [*command, f"hydra.sweep.dir={folder}", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.interrupts
@pytest.mark.timeout(2400)
def test_twenty_random_moments(tmp_path: Path) -> None:
    began = time.monotonic()
    whole = start(tmp_path / "whole")
    assert (whole.communicate()[0], whole.returncode)[1] == 0
    seconds = time.monotonic() - began
    wanted = final_values(tmp_path / "whole")
    generator = random.Random(0)
    interrupted = trial = 0
    while interrupted < 20:
        trial += 1
        number = (signal.SIGINT, signal.SIGTERM)[trial % 2]
        folder = tmp_path / str(trial)
        grid = start(folder)
        time.sleep(generator.uniform(0.3, seconds))
        if grid.poll() is not None:  # it was faster this time
            grid.communicate()
            continue
        interrupted += 1
        grid.send_signal(number)
        _, said = grid.communicate(timeout=60)
        # Before the first line of ours runs, and after the last, Python ends as the signal has it.
        assert grid.returncode in (128 + number, -number), said
        runs = [read_summary(path.parent) for path in folder.glob("*/summary.json")]
        assert all(run is not None and run["status"] in ("completed", "interrupted") for run in runs), said
        again = start(folder)
        assert (again.communicate()[1], again.returncode)[1] == 0
        assert final_values(folder) == wanted
