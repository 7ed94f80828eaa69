"""Launch cells so that none is lost when a launcher gives up.

A job that fails does no harm to others, but a process that dies can. joblib then ends all its other processes and drops
the queue. submitit and Ray raise at once and leave the other jobs running. So the folders of the cells decide: a cell
that was not started is launched again. When several cells die together, one of them caused it. They are rerun one at a
time; the one that dies again is the cause.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from neuralode_exp.interruption import stop_if_heard
from neuralode_exp.outcome import RunFailed
from neuralode_exp.sweep.cells import Cell, Outcome, outcome
from neuralode_exp.sweep.interruption import PassedOn
from neuralode_exp.sweep.processes import HAS_GROUPS, OWN_PROCESSES, at_a_time, settle, threads_of_a_job
from neuralode_exp.sweep.slurm import JobLost, SlurmLauncher
from neuralode_exp.tracking.lock import Held, held_by

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0  # between two checks of cells that other processes hold
QUEUE_SECONDS = 5.0  # the same if a check asks for Slurm's queue


class Job:
    """The task function that a launcher gets.

    If a launcher runs it in another process of this machine, that process leaves the terminal's process group. Ctrl-C
    then reaches the sweeper alone, which passes it on once, and only to jobs that run. A cell that has failed in
    another launcher since this one began is not tried again.
    """

    def __init__(self, task: Callable[[DictConfig], Any], launcher: str) -> None:
        self.task = task
        self.sweeper = os.getpid() if launcher.rpartition(".")[2] in OWN_PROCESSES else None
        self.began = time.time()

    def __call__(self, config: DictConfig) -> Any:
        if HAS_GROUPS and self.sweeper is not None and os.getpid() != self.sweeper:
            os.setpgrp()
        stop_if_heard()
        summary = Path(HydraConfig.get().runtime.output_dir) / "summary.json"
        if summary.exists() and summary.stat().st_mtime > self.began:
            content = json.loads(summary.read_text())
            if content["status"] == "failed":
                raise RunFailed(f"{content['error']['type']}: {content['error']['message']}")
        return self.task(config)


class Jobs:
    """Runs cells with a launcher.

    Args:
        launcher: Hydra's launcher.
        at_once: number of cells that the launcher gets at a time; None for all.
        stop_after: number of failures after which no further cell is launched; None for no limit.
    """

    def __init__(self, launcher: Launcher, at_once: int | None = None, stop_after: int | None = None) -> None:
        self.launcher = launcher
        self.at_once = at_once
        self.stop_after = stop_after
        self.said: dict[Path, Outcome] = {}  # outcomes by folder, as the launcher reports them
        self._queue: dict[str, str] = {}  # Slurm's job by the name of the run's folder, if it waits or runs
        self._launched = self._failures = 0
        self._look()
        if stop_after is not None:
            self.at_once = min(at_once or at_a_time(launcher), at_a_time(launcher))

    @property
    def stopped(self) -> bool:
        """Whether so many cells have failed that no further cell is launched."""
        return self.stop_after is not None and self._failures >= self.stop_after

    def outcome(self, cell: Cell) -> Outcome:
        """Return how a cell stands, by its folder, the launcher's report and Slurm's queue."""
        said = self.said.get(cell.folder)
        end = outcome(cell, said)
        job = self._queue.get(cell.folder.name)
        if job is not None and end.status in ("failed", "interrupted", "killed", "not started", "queued"):
            return Outcome("queued", reason=f"Slurm job {job}")
        lost = said is not None and said.status == "killed" and end.status in ("running", "killed")
        return said if said and lost else end  # the lock of a job on another machine lasts minutes longer than the job

    def outcomes(self, cells: Sequence[Cell]) -> list[Outcome]:
        return [self.outcome(cell) for cell in cells]

    def is_busy(self, cell: Cell) -> bool:
        """Whether a process runs the cell, or Slurm will start one for it."""
        return self.outcome(cell).status in ("running", "queued") or held_by(cell.folder) is not None

    def run_all(self, cells: Sequence[Cell]) -> None:
        """Run the cells. Those that other processes hold run later, if they are free then and not completed."""
        left = list(cells)
        while left and not self.stopped:
            free = [cell for cell in left if not self.is_busy(cell)]
            if free:
                self.run(free)
            else:
                time.sleep(QUEUE_SECONDS if self._queue else POLL_SECONDS)
                self._look()
            tried = {cell.folder for cell in free if self._was_ours(cell)}
            before, left = left, [c for c in left if c.folder not in tried and outcome(c).status != "completed"]
            if free and left and not self.stopped:
                log.info("%d of %d cells are held by other processes; waiting for them", len(left), len(before))

    def run(self, cells: Sequence[Cell]) -> None:
        """Run the cells. Each is started unless the launcher cannot start any or too many have failed.

        Raises:
            KeyboardInterrupt: on Ctrl-C, once the jobs that ran have written their checkpoints.
        """
        waiting, suspects = list(cells), list[Cell]()
        while (waiting or suspects) and not self.stopped:
            source = waiting or suspects
            size = (self.at_once or len(source)) if waiting else 1
            batch = source[:size]
            del source[:size]
            died, not_started = self._launch(batch)
            if len(not_started) < len(batch):
                waiting[:0] = not_started
            suspects += died if len(died) > 1 else []
            bad = [cell for cell in batch if self.outcome(cell).status in ("failed", "killed")]
            self._failures += len(bad) - (len(died) if len(died) > 1 else 0)

    def _was_ours(self, cell: Cell) -> bool:
        said = self.said.get(cell.folder)
        if said is not None and said.status == "killed":
            return True  # although its lock may last some minutes longer
        return not self.is_busy(cell) and (said is None or said.status != "running")

    def _look(self) -> None:
        if isinstance(self.launcher, SlurmLauncher):
            self._queue = self.launcher.queue()

    def _launch(self, batch: Sequence[Cell]) -> tuple[list[Cell], list[Cell]]:
        """Return the cells whose process died and those that were not started; both are empty if the launcher did not
        give up."""
        before = {cell.number: _stamp(cell) for cell in batch}
        threads = threads_of_a_job(self.launcher)
        words = [
            [*cell.arguments, *([f"threads={threads}"] if threads and cell.config.threads is None else [])]
            for cell in batch
        ]
        try:
            if isinstance(self.launcher, SlurmLauncher):
                self.launcher.runs = [cell.folder.name for cell in batch]
            with PassedOn(self.launcher, [cell.folder for cell in batch]):
                returns = self.launcher.launch(words, initial_job_idx=self._launched)
        except KeyboardInterrupt:
            settle(self.launcher, wait=False)
            raise
        except Exception as error:
            # Whatever a launcher raises, the cells that it dropped must still run.
            settle(self.launcher, wait=True)
            lines = str(error).strip().splitlines() or [""]
            log.warning("the launcher gave up: %s: %s", type(error).__name__, lines[0])
            not_started = [cell for cell in batch if _stamp(cell) == before[cell.number]]
            why = Outcome("not started", reason=f"{type(error).__name__}: {lines[0]}")
            self.said |= {cell.folder: why for cell in not_started}
            started = [cell for cell in batch if cell not in not_started]
            return [cell for cell in started if outcome(cell).status == "killed"], not_started
        finally:
            self._launched += len(batch)
            self._look()
        self.said |= {cell.folder: _said(end) for cell, end in zip(batch, returns, strict=True)}
        return [], []


def _stamp(cell: Cell) -> int | None:
    """Return when the cell's summary was last written; a job writes it when it starts."""
    try:
        return (cell.folder / "summary.json").stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _said(end: JobReturn) -> Outcome:
    if end.status == JobStatus.UNKNOWN:
        return Outcome("queued")
    if end.status == JobStatus.COMPLETED:
        return Outcome("completed", float(end.return_value))
    error = end._return_value  # the property would print and raise it
    if isinstance(error, Held | JobLost):
        return Outcome("running" if isinstance(error, Held) else "killed", reason=str(error))
    return Outcome("failed", reason=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
