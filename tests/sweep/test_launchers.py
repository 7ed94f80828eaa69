"""Grids whose jobs run in processes of a launcher: each starts, none takes another along, Ctrl-C reaches all."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from neuralode_exp.config import folder_name
from neuralode_exp.sweep.cells import Cell, Outcome
from neuralode_exp.sweep.launching import Jobs
from neuralode_exp.tracking.summary import Summary, new_summary, read_summary, write_summary
from tests.runs import Compose
from tests.sweep.conftest import TINY, Grid, statuses, table

LAUNCHERS = ("joblib", "submitit_local")


@contextmanager
def in_background(work: Callable[[], None]) -> Iterator[threading.Event]:
    """Call `work` again and again, as somebody outside the grid, until the block ends."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(0.005):
            work()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield ended
    finally:
        ended.set()
        thread.join()


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_killed_job_costs_only_itself(grid: Grid, compose: Compose, launcher: str) -> None:
    victim = Path("grid") / folder_name(compose(*TINY, "seed=1"))
    killed = set()

    def kill() -> None:
        summary = read_summary(victim)
        if summary is not None and summary["status"] == "running":
            os.kill(summary["process"]["pid"], signal.SIGKILL)
            killed.add(summary["process"]["pid"])

    with in_background(kill):
        assert grid("seed=0,1,2,3", f"hydra/launcher={launcher}", "hydra.sweeper.max_batch_size=4") == 1
    assert killed
    assert statuses() == ["completed", "killed", "completed", "completed"]
    assert "SIGKILL" in table()[1]["reason"]

    kept = {row["run"]: read_summary(Path("grid") / row["run"]) for row in table() if row["status"] == "completed"}
    assert grid("seed=0,1,2,3") == 0
    assert statuses() == ["completed"] * 4
    assert kept == {run: read_summary(Path("grid") / run) for run in kept}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_ctrl_c_checkpoints_every_running_job(grid: Grid, capfd: pytest.CaptureFixture[str], launcher: str) -> None:
    def both_train() -> bool:
        return len([path for path in Path("grid").glob("*/metrics.csv") if path.stat().st_size > 200]) == 2

    def interrupt() -> None:
        if both_train() and not pressed:
            pressed.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)

    pressed: list[float] = []
    words = ("trainer.epochs=10000", "log_every=1", "trainer.evaluate_every=1000000")
    with in_background(interrupt):
        assert grid("seed=0,1,2", f"hydra/launcher={launcher}", *words) == 130
    assert statuses() == ["interrupted", "interrupted", "not started"]
    for row in table()[:2]:
        last = torch.load(Path("grid") / row["run"] / "checkpoints" / "last.pt", weights_only=True)
        summary = read_summary(Path("grid") / row["run"])
        assert summary is not None
        assert 0 < last["step"] == summary["steps"] < 100_000
    assert "go on with: python train.py --multirun" in capfd.readouterr().err


class Broken:
    """A launcher that takes two cells, starts the first and dies; `takes` records what it is given."""

    def __init__(self, start: Callable[[Path], None], folders: dict[str, Path]) -> None:
        self.start, self.folders = start, folders
        self.takes: list[list[str]] = []

    def launch(self, job_overrides: list[list[str]], initial_job_idx: int) -> list[None]:
        self.takes.append([words[0] for words in job_overrides])
        for words in job_overrides[:2]:
            self.start(self.folders[words[0]])
        raise RuntimeError("a worker was killed\nand a second line")


def cells_of(compose: Compose, folder: Path, n: int) -> list[Cell]:
    config = compose(*TINY)
    return [Cell(i, (f"seed={i}",), config, str(i), str(i), folder / str(i), None, None) for i in range(n)]


def dead_summary() -> Summary:
    summary = new_summary("0" * 12, torch.device("cpu"))
    summary["process"]["started"] -= 1000  # another process had this number
    return summary


def test_what_died_together_goes_on_alone(tmp_path: Path, compose: Compose) -> None:
    cells = cells_of(compose, tmp_path, 5)

    def die(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        write_summary(folder, dead_summary())

    broken = Broken(die, {f"seed={cell.number}": cell.folder for cell in cells})
    Jobs(broken).run(cells)  # type: ignore[arg-type]
    together = [["seed=0", "seed=1", "seed=2", "seed=3", "seed=4"], ["seed=2", "seed=3", "seed=4"], ["seed=4"]]
    alone = [["seed=0"], ["seed=1"], ["seed=2"], ["seed=3"]]
    assert broken.takes == together + alone


def test_a_launcher_that_starts_nothing_is_asked_once(tmp_path: Path, compose: Compose) -> None:
    cells = cells_of(compose, tmp_path, 3)
    broken = Broken(lambda _: None, {f"seed={cell.number}": cell.folder for cell in cells})
    jobs = Jobs(broken)  # type: ignore[arg-type]
    jobs.run(cells)
    assert len(broken.takes) == 1
    assert jobs.said[cells[2].folder] == Outcome("not started", reason="RuntimeError: a worker was killed")
