"""Processes that learn the same field, each timed from its start until its field error is small enough.

Each writes metrics.csv in its own folder, as a run of `train.py` does, and all are read in the same way.
"""

from __future__ import annotations

import math
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from neuralode_exp.tracking.metrics import read_metrics

TAG = "dynamics/field_error"
POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Contestant:
    """A process that is timed.

    Args:
        command: command line; "{folder}" in it stands for the folder where it must write metrics.csv, "{round}" for
            the number of the round, which serves as a seed.
        limit: seconds after which it is stopped without reaching the target; None: it goes on to its end.
    """

    command: Sequence[str]
    limit: float | None = None


@dataclass(frozen=True)
class Finish:
    """The time and error at which a process was stopped.

    Args:
        seconds: seconds since its start.
        step, error: those of the evaluation that reached the target, else those of the last evaluation.
        reached: whether the error reached the target; if not, the seconds are a lower bound.
    """

    seconds: float
    step: int
    error: float
    reached: bool


def run_until(contestant: Contestant, folder: Path, target: float, number: int = 0) -> Finish:
    """Start a contestant and stop it at its first evaluation with a field error of at most `target`.

    The folder is made if it is missing. The output of the process is kept there.

    Raises:
        RuntimeError: the process failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    printed = folder / "printed.txt"
    command = [word.replace("{folder}", str(folder)).replace("{round}", str(number)) for word in contestant.command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with open(printed, "w") as output:
        began = time.perf_counter()
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
    try:
        while True:
            ended = process.poll() is not None  # checked before the errors are read, so that no error is missed
            seconds = time.perf_counter() - began
            finish = _finish(folder, target, seconds)
            if finish.reached or ended or seconds > (contestant.limit or math.inf):
                break
            time.sleep(POLL_SECONDS)
    finally:
        process.kill()
        process.wait()
    if ended and process.returncode != 0:
        raise RuntimeError(f"{command} ended with {process.returncode}:\n{printed.read_text()[-4000:]}")
    return finish


def _finish(folder: Path, target: float, seconds: float) -> Finish:
    steps, errors = read_metrics(folder, [TAG]).get(TAG, ([], []))
    for step, error in zip(steps, errors, strict=True):
        if error <= target:
            return Finish(seconds, step, error, reached=True)
    return Finish(seconds, steps[-1] if steps else 0, errors[-1] if errors else math.inf, reached=False)


def race(contestants: Mapping[str, Contestant], folder: Path, target: float, rounds: int) -> dict[str, list[Finish]]:
    """Run all contestants by turns, in both orders alternately, each time in a new folder."""
    finishes: dict[str, list[Finish]] = {name: [] for name in contestants}
    for i in range(rounds):
        for name in reversed(list(contestants)) if i % 2 else list(contestants):
            own = folder / f"{list(contestants).index(name)}-{i}"
            finishes[name].append(run_until(contestants[name], own, target, i))
    return finishes
