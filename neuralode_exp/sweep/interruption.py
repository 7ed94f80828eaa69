"""Ctrl-C for a grid whose jobs run in other processes."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
from hydra.plugins.launcher import Launcher

from neuralode_exp.interruption import StopAtOnce
from neuralode_exp.sweep.processes import HAS_GROUPS, has_own_processes
from neuralode_exp.tracking.summary import DamagedSummary, Summary, read_summary


class PassedOn(StopAtOnce):
    """In this context Ctrl-C and SIGTERM are passed on to the running jobs, and the launch ends after them.

    Each job stops at its next step with a checkpoint. A second signal ends the launch at once. No signal is passed on
    if the launcher runs its jobs in this process, or if it is Slurm's, which signals its jobs itself.

    Args:
        launcher: Hydra's launcher.
        folders: folders of the jobs.
    """

    def __init__(self, launcher: Launcher, folders: Sequence[Path]) -> None:
        super().__init__()
        self._folders = folders if has_own_processes(launcher) else ()
        self._elsewhere = type(launcher).__name__ == "RayLauncher"  # its processes need not be children of this one

    def receive(self, number: signal.Signals) -> None:
        self.__exit__()  # a second signal is not passed on
        told: set[int] = set()
        while running := self._running():
            for process in running - told if HAS_GROUPS else ():
                os.kill(process, signal.SIGINT)
            told |= running
            time.sleep(0.05)
        super().receive(number)

    def _running(self) -> set[int]:
        """Return the process numbers of the running jobs on this machine, without jobs of another launcher."""
        summaries = [summary for folder in self._folders if (summary := _read(folder))]
        running = {
            summary["process"]["pid"]
            for summary in summaries
            if summary["status"] == "running" and summary["process"]["host"] == socket.gethostname()
        }
        if self._elsewhere or not running:
            return running
        return running & {process.pid for process in psutil.Process().children(recursive=True)}


def _read(folder: Path) -> Summary | None:
    try:
        return read_summary(folder)
    except DamagedSummary:
        return None  # no job runs in this folder, because a job refuses such a file
