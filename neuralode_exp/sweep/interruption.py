"""Ctrl-C of a grid whose jobs run in other processes."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.plugins.launcher import Launcher

from neuralode_exp.outcome import Interrupted
from neuralode_exp.sweep.processes import has_own_processes
from neuralode_exp.tracking.summary import read_summary


class PassedOn:
    """While it is entered, Ctrl-C and SIGTERM are passed on to the jobs that run, and end the launch after them.

    Each job stops at its next step with a checkpoint. A second signal ends the launch at once. With a launcher that
    runs jobs in this process signals are left to the job, with Slurm's to Slurm.

    Args:
        launcher: Hydra's.
        folders: those of the jobs.
    """

    def __init__(self, launcher: Launcher, folders: Sequence[Path]) -> None:
        self._active = has_own_processes(launcher) and threading.current_thread() is threading.main_thread()
        self._folders = folders
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> PassedOn:
        if self._active:
            self._before = {n: signal.signal(n, self._receive) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        self._restore()

    def _receive(self, number: int, _frame: FrameType | None) -> None:
        self._restore()
        told: set[int] = set()
        while running := _running(self._folders):
            for process in running - told:
                os.kill(process, signal.SIGINT)
            told |= running
            time.sleep(0.05)
        raise Interrupted("interrupted", number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def _running(folders: Sequence[Path]) -> set[int]:
    """Process numbers of the jobs that run on this machine."""
    summaries = [summary for folder in folders if (summary := read_summary(folder))]
    return {
        summary["process"]["pid"]
        for summary in summaries
        if summary["status"] == "running" and summary["process"]["host"] == socket.gethostname()
    }
