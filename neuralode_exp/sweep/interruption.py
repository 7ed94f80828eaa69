"""Ctrl-C of a grid whose jobs run in other processes."""

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
from neuralode_exp.tracking.summary import read_summary


class PassedOn(StopAtOnce):
    """While it is entered, Ctrl-C and SIGTERM are passed on to the jobs that run, and end the launch after them.

    Each job stops at its next step with a checkpoint. A second signal ends the launch at once. With a launcher that
    runs jobs in this process there are none to pass it on to, and Slurm gives signals to its own.

    Args:
        launcher: Hydra's.
        folders: those of the jobs.
    """

    def __init__(self, launcher: Launcher, folders: Sequence[Path]) -> None:
        super().__init__()
        self._folders = folders if has_own_processes(launcher) else ()
        self._elsewhere = type(launcher).__name__ == "RayLauncher"  # its processes need not be ours

    def receive(self, number: signal.Signals) -> None:
        self.__exit__()  # a second one is not passed on
        told: set[int] = set()
        while running := self._running():
            for process in running - told if HAS_GROUPS else ():
                os.kill(process, signal.SIGINT)
            told |= running
            time.sleep(0.05)
        super().receive(number)

    def _running(self) -> set[int]:
        """Process numbers of the jobs that run on this machine, without those of another launcher on the same grid."""
        summaries = [summary for folder in self._folders if (summary := read_summary(folder))]
        running = {
            summary["process"]["pid"]
            for summary in summaries
            if summary["status"] == "running" and summary["process"]["host"] == socket.gethostname()
        }
        if self._elsewhere or not running:
            return running
        return running & {process.pid for process in psutil.Process().children(recursive=True)}
