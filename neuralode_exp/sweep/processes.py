"""The processes of each launcher: where they run, how many run at a time, and how to wait until they have ended."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import psutil
from hydra.plugins.launcher import Launcher

# Launchers whose jobs are other processes on this machine. Basic has none; Slurm's run elsewhere and get Slurm's
# signals.
OWN_PROCESSES = ("JoblibLauncher", "LocalLauncher", "RayLauncher")
# A job that has left the terminal's process group must get Ctrl-C from the sweeper. Windows has no such groups: there
# Ctrl-C reaches every process, and os.kill would end it at once.
HAS_GROUPS = hasattr(os, "setpgrp")


def has_own_processes(launcher: Launcher) -> bool:
    return type(launcher).__name__ in OWN_PROCESSES


def cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of_a_job(launcher: Launcher) -> int | None:
    """Return the number of threads of each job; None if the launcher itself divides them."""
    if type(launcher).__name__ != "LocalLauncher":
        return None
    return launcher.params.get("cpus_per_task") or 1  # type: ignore[attr-defined]


def jobs_at_once(launcher: Launcher) -> int | None:
    """Return how many jobs the launcher may get at a time; None for any number.

    submitit's local launcher starts all jobs that it gets at once.
    """
    threads = threads_of_a_job(launcher)
    return None if threads is None else max(1, cores() // threads)


def at_a_time(launcher: Launcher) -> int:
    """Return how many jobs the launcher runs at a time."""
    name = type(launcher).__name__
    if name == "JoblibLauncher":
        n_jobs = launcher.joblib.get("n_jobs") or 1  # type: ignore[attr-defined]
        return n_jobs if n_jobs > 0 else max(1, cores() + 1 + n_jobs)
    if name == "SlurmLauncher":
        return launcher.params.get("array_parallelism") or 1  # type: ignore[attr-defined]
    return jobs_at_once(launcher) or (cores() if name == "RayLauncher" else 1)


def settle(launcher: Launcher, *, wait: bool) -> None:
    """Return when no job of a launcher that gave up is running any more: wait for them, or end them.

    Jobs in a Slurm queue are never ended here.
    """
    name = type(launcher).__name__
    if name == "LocalLauncher":
        processes = list(_of_submitit())
        for process in processes if not wait else []:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes)
    elif name == "RayLauncher":
        import ray

        ray.shutdown()


def _of_submitit() -> Iterator[psutil.Process]:
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if any("submitit" in word for word in process.cmdline()):
                yield process
