"""Launch cells so that none is lost, whatever happens to the launcher.

Hydra's launchers differ in what a process that dies takes along. joblib ends all its other processes and drops the
queue, submitit and Ray raise at once and leave the other jobs running, a failing job harms nobody. What counts here is
what the jobs have left in their folders: cells that were not started are launched again. Of several cells whose process
died together one was the cause, so they go on one at a time, and the one that dies alone is it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from neuralode_exp.interruption import stop_if_heard
from neuralode_exp.sweep.cells import Cell, Outcome, outcome
from neuralode_exp.sweep.interruption import PassedOn
from neuralode_exp.sweep.processes import HAS_GROUPS, OWN_PROCESSES, settle, threads_of_a_job

log = logging.getLogger(__name__)


class Job:
    """The task function as a launcher gets it.

    In a process of a launcher on this machine it leaves the terminal's process group: Ctrl-C reaches the sweeper alone,
    which passes it on once, and to no idle process.
    """

    def __init__(self, task: Callable[[DictConfig], Any], launcher: str) -> None:
        self.task = task
        self.sweeper = os.getpid() if launcher.rpartition(".")[2] in OWN_PROCESSES else None

    def __call__(self, config: DictConfig) -> Any:
        if HAS_GROUPS and self.sweeper is not None and os.getpid() != self.sweeper:
            os.setpgrp()
        stop_if_heard()
        return self.task(config)


class Jobs:
    """Runs cells with a launcher.

    Args:
        launcher: Hydra's.
        at_once: number of cells that it gets at a time; None for all.
    """

    def __init__(self, launcher: Launcher, at_once: int | None = None) -> None:
        self.launcher = launcher
        self.at_once = at_once
        self.said: dict[Path, Outcome] = {}  # what the launcher says of the job in a folder
        self._launched = 0

    def run(self, cells: Sequence[Cell]) -> None:
        """Run the cells; each is started unless the launcher cannot start any.

        Raises:
            KeyboardInterrupt: on Ctrl-C, once the jobs that ran have written their checkpoints.
        """
        waiting, suspects = list(cells), list[Cell]()
        while waiting or suspects:
            source = waiting or suspects
            size = (self.at_once or len(source)) if waiting else 1
            batch = source[:size]
            del source[:size]
            died, not_started = self._launch(batch)
            if len(not_started) < len(batch):
                waiting[:0] = not_started
            suspects += died if len(died) > 1 else []

    def _launch(self, batch: Sequence[Cell]) -> tuple[list[Cell], list[Cell]]:
        """Return the cells whose process died and those that were not started; both empty if the launcher lived."""
        before = {cell.number: _stamp(cell) for cell in batch}
        threads = threads_of_a_job(self.launcher)
        words = [
            [*cell.arguments, *([f"threads={threads}"] if threads and cell.config.threads is None else [])]
            for cell in batch
        ]
        try:
            with PassedOn(self.launcher, [cell.folder for cell in batch]):
                returns = self.launcher.launch(words, initial_job_idx=self._launched)
        except KeyboardInterrupt:
            settle(self.launcher, wait=False)
            raise
        except Exception as error:
            # Whatever a launcher raises, the cells that it dropped are still to be run.
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
        self.said |= {cell.folder: _said(end) for cell, end in zip(batch, returns, strict=True)}
        return [], []


def _stamp(cell: Cell) -> int | None:
    """When the cell's summary was written last: a job writes it when it starts."""
    try:
        return (cell.folder / "summary.json").stat().st_mtime_ns
    except FileNotFoundError:
        return None


def _said(end: JobReturn) -> Outcome:
    if end.status == JobStatus.COMPLETED:
        return Outcome("completed", float(end.return_value))
    error = end._return_value  # the property would print and raise it
    return Outcome("failed", reason=f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
