"""Slurm as a launcher. Its queue says which jobs there are, so it needs no accounting and no process that waits."""

from __future__ import annotations

import csv
import logging
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext, TaskFunction
from hydra_plugins.hydra_submitit_launcher import submitit_launcher
from omegaconf import DictConfig

from neuralode_exp.config.launchers import Submitit

if TYPE_CHECKING:
    import submitit

log = logging.getLogger(__name__)

JOBS = "slurm.csv"  # in the sweep's folder: a row for each job that was ever submitted
LONGEST_PAUSE = 30.0  # seconds between two queries of the queue


class JobLost(RuntimeError):
    """A job has left the queue without a result."""


class SlurmLauncher(submitit_launcher.SlurmLauncher):
    """Hydra's Slurm launcher, but it waits until its jobs have left the queue, or with `detach` does not wait.

    Hydra's own launcher asks the accounting whether a job is alive. On a cluster without accounting it waits forever
    for a job that was cancelled.

    Attributes:
        runs: names of the folders of the jobs that are launched next; Hydra's interface cannot pass them.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        super().setup(hydra_context=hydra_context, task_function=task_function, config=config)
        self.runs: list[str] = []
        self._detach = bool(config.hydra.sweeper.get("detach"))
        self._jobs = Path(config.hydra.sweep.dir) / JOBS

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Submit an array of jobs and return how they ended; with `detach` that is unknown."""
        import submitit  # the import takes a tenth of a second

        executor = submitit.AutoExecutor(
            self.params["submitit_folder"], cluster="slurm", slurm_max_num_timeout=self.params["max_num_timeout"]
        )
        settings = {key: self.params[key] for key in self.params.keys() - {"submitit_folder", "max_num_timeout"}}
        general = Submitit.model_fields.keys()
        executor.update_parameters(**{key if key in general else f"slurm_{key}": settings[key] for key in settings})
        numbers = range(initial_job_idx, initial_job_idx + len(job_overrides))
        state = Singleton.get_state()
        with executor.batch():
            jobs = [
                executor.submit(self, list(words), "hydra.sweep.dir", number, str(number), state)
                for words, number in zip(job_overrides, numbers, strict=True)
            ]
        with open(self._jobs, "a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows(zip((j.job_id for j in jobs), self.runs, strict=True))
        if self._detach:
            return [JobReturn(status=JobStatus.UNKNOWN) for _ in jobs]
        pause = 1.0
        while _listed() & {job.job_id for job in jobs if not job.paths.result_pickle.exists()}:
            time.sleep(pause)
            pause = min(1.1 * pause, LONGEST_PAUSE)
        return [_ended(job) for job in jobs]

    def queue(self) -> dict[str, str]:
        """Return the job of each run of this sweep that waits or runs in the queue, by the name of the run's folder."""
        if not self._jobs.exists():
            return {}
        listed = _listed()
        with open(self._jobs, newline="", encoding="utf-8") as file:
            return {run: job for job, run in csv.reader(file) if job in listed}


def _listed() -> set[str]:
    """Return all of the user's jobs in the queue, those of an array as 12_0. Repeat the query until Slurm answers."""
    while True:
        command = ["squeue", "--me", "--array", "--noheader", "--format=%i"]
        answer = subprocess.run(command, capture_output=True, text=True)
        if answer.returncode == 0:
            return set(answer.stdout.split())
        log.warning("%s; asked again in %g s", answer.stderr.strip(), LONGEST_PAUSE)
        time.sleep(LONGEST_PAUSE)


def _ended(job: submitit.Job[JobReturn]) -> JobReturn:
    """Return the result of a job that has left the queue, or a failure if it has none."""
    try:
        if job.paths.result_pickle.exists():
            return job.results()[0]
        raise JobLost(
            f"its Slurm job {job.job_id} left the queue without a result: it was cancelled, or lost with its node"
        )
    except RuntimeError as error:  # ours, or submitit's for an error that Hydra has not caught
        return JobReturn(status=JobStatus.FAILED, _return_value=error)
