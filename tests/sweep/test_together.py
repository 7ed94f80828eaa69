"""Several launchers that work off one grid together, each its own process as on machines that share a folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neuralode_exp.config import folder_name
from neuralode_exp.tracking.lock import held_by, lock
from neuralode_exp.tracking.summary import read_summary
from tests.conftest import ROOT, train_here
from tests.runs import Compose
from tests.sweep.conftest import TINY, Grid, statuses, table


def launcher(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), "-m", *TINY, f"hydra.sweep.dir={folder}", *words],
        cwd=folder.parent,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def starts(cell: Path) -> int:
    """How often the cell was started: each start of training has an event file of its own."""
    return len([path for path in cell.glob("events.out.tfevents.*") if path.suffix != ".end"])


def require_once(folder: Path, n: int, killed: list[Path]) -> None:
    """All cells are complete, and only those that were killed were started twice; no line was written twice."""
    assert [row["status"] for row in table(folder)] == ["completed"] * n
    cells = [path.parent for path in folder.glob("*/summary.json")]
    assert len(cells) == n
    for cell in cells:
        assert starts(cell) == 1 or (cell in killed and starts(cell) == 2)
        rows = (cell / "metrics.csv").read_text().splitlines()
        assert len({row.rpartition(",")[0] for row in rows}) == len(rows)
        assert held_by(cell) is None


@pytest.mark.parametrize("n", [6, pytest.param(64, marks=[pytest.mark.interrupts, pytest.mark.timeout(1200)])])
def test_three_launchers_run_every_cell_once_though_one_is_killed(tmp_path: Path, n: int) -> None:
    folder = tmp_path / "grid"
    words = (f"seed=range({n})", "trainer.epochs=30", "trainer.checkpoint_every=10")
    launchers = [launcher(folder, *words) for _ in range(3)]
    end = time.monotonic() + 120
    victim = f"process {launchers[0].pid} on "
    killed: list[Path] = []
    while not killed or len(list(folder.glob("*/summary.json"))) < n // 3:
        killed = [path.parent for path in folder.glob("*/.lock") if victim in str(held_by(path.parent))]
        assert time.monotonic() < end
        time.sleep(0.01)
    launchers[0].kill()
    outputs = [process.communicate(timeout=1000)[0] for process in launchers]
    assert [process.returncode for process in launchers] == [-signal.SIGKILL, 0, 0], outputs

    require_once(folder, n, killed)
    cells = [path.parent for path in folder.glob("*/summary.json")]
    assert len({read_summary(cell)["process"]["pid"] for cell in cells}) >= 2  # the survivors shared the work


@pytest.mark.interrupts
def test_what_joblibs_workers_do_after_their_parent_is_killed_is_not_done_twice(tmp_path: Path) -> None:
    folder = tmp_path / "grid"
    words = ("seed=range(6)", "trainer.epochs=60", "trainer.checkpoint_every=10")
    first = launcher(folder, *words, "hydra/launcher=joblib")
    end = time.monotonic() + 120
    while len(held := [path.parent for path in folder.glob("*/.lock") if held_by(path.parent)]) < 2:
        assert time.monotonic() < end
        time.sleep(0.01)
    first.kill()
    again = launcher(folder, *words)
    said = again.communicate(timeout=250)[0]
    assert again.returncode == 0, said
    require_once(folder, 6, held)


def test_a_grid_waits_for_a_held_cell_and_then_runs_it(grid: Grid, compose: Compose, tmp_path: Path) -> None:
    held = tmp_path / "grid" / folder_name(compose(*TINY, "seed=0"))
    with lock(held):
        process = launcher(tmp_path / "grid", "seed=0,1")
        other = tmp_path / "grid" / folder_name(compose(*TINY, "seed=1"))
        end = time.monotonic() + 120
        while (summary := read_summary(other)) is None or summary["status"] != "completed":
            assert time.monotonic() < end
            time.sleep(0.05)
        assert not (held / "summary.json").exists()
    assert "1 of 2 cells are held" in process.communicate(timeout=120)[0]
    assert statuses() == ["completed", "completed"]


def test_what_failed_in_another_launcher_is_not_tried_again(
    grid: Grid, compose: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("trainer.schedule=constant", "trainer.max_failures=2", "trainer.lr=1e30")
    assert grid(*words) == 1
    (row,) = table()
    log = tmp_path / "grid" / row["run"] / "train.log"
    before = starts(log.parent)
    ahead = time.time() + 3600  # it fails elsewhere while this launcher is at other cells
    os.utime(log.with_name("summary.json"), (ahead, ahead))
    assert grid(*words) == 1
    assert starts(log.parent) == before
    assert "NonFiniteGradient" in table()[0]["reason"]


def test_a_single_run_and_resume_are_refused_a_held_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = (*TINY, "trainer.max_steps=1", f"hydra.run.dir={tmp_path}/run")
    assert train_here(monkeypatch, *words) == 0
    capsys.readouterr()
    with lock(tmp_path / "run"):
        for asked in (words, (f"resume={tmp_path}/run",)):
            assert train_here(monkeypatch, *asked) == 2
            [line] = capsys.readouterr().err.splitlines()
            assert f"process {os.getpid()} on " in line
