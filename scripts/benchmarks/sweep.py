"""Grids: the gain of a launcher with processes, the cost of a job beyond its training, and of accidents and resume.

All jobs learn `dataset=circle`. The cost of a job is the further time of a grid of many jobs over a grid of one,
divided by the number of further jobs, without the seconds of training in the summaries. Of the 64 jobs with accidents
(`accidents.py`) 8 raise, 2 end in NaN and 1 kills itself whenever it is started. Their launcher is joblib's.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.table import Figure
from neuralode_exp.sweep.table import FILE_NAME, read_csv

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
TINY = ("-m", "dataset=circle", "figures=false", "trainer.max_steps=10", "trainer.max_failures=2")
JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")


def measure(quick: bool) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        grid = Path(folder)
        finished = grid / "accidents"
        return [
            _speed_up(grid, n_jobs=4 if quick else 16, steps=50 if quick else 700),
            _cost_of_a_job(grid, n_jobs=4 if quick else 16),
            *_accidents(finished, n_jobs=16 if quick else 64),
            _resume(finished, n_jobs=16 if quick else 64),
            _report(grid, finished, copies=2 if quick else 8),
        ]


def _speed_up(grid: Path, n_jobs: int, steps: int) -> Figure:
    words = ("-m", "dataset=circle", "figures=false", f"trainer.max_steps={steps}", f"seed=range({n_jobs})")
    one_after_another = _seconds(*words, "threads=2", sweep=grid / "basic")
    with_joblib = _seconds(*words, "threads=1", *JOBLIB, sweep=grid / "joblib")
    details = {
        "one_after_another_s": one_after_another,
        "joblib_s": with_joblib,
        "job_s": statistics.mean(_of_rows(grid / "basic", "seconds")),
    }
    name = f"{n_jobs} jobs, joblib with 2 workers of 1 thread: times faster than one after another with 2"
    return Figure(name, one_after_another / with_joblib, at_least=1.8, details=details)


def _cost_of_a_job(grid: Path, n_jobs: int) -> Figure:
    one = _seconds(*TINY, "threads=1", "seed=0", sweep=grid / "one")
    many = _seconds(*TINY, "threads=1", f"seed=range({n_jobs})", sweep=grid / "many")
    training = statistics.mean(_of_rows(grid / "many", "seconds"))
    cost = (many - one) / (n_jobs - 1) - training
    details = {"one_job_s": one, f"{n_jobs}_jobs_s": many, "training_s": training}
    return Figure("cost of a job beyond its training, basic launcher: s", cost, at_most=0.5, details=details)


def _accidents(sweep: Path, n_jobs: int) -> list[Figure]:
    words = (*TINY, "threads=1", f"seed=range({n_jobs})", *JOBLIB)
    seconds = _seconds(*words, sweep=sweep, script=HERE / "accidents.py", status=1)
    rows = read_csv(sweep / FILE_NAME)
    kept = sum(row["status"] == "completed" for row in rows)
    named = sum(row["status"] in ("failed", "killed") and row["reason"] != "" for row in rows)
    before = _stamps(sweep)
    again = _seconds(*words, sweep=sweep)
    ran = len(
        {path.parent for path, at in _stamps(sweep).items() if path.name == "summary.json" and at != before[path]}
    )
    return [
        Figure(f"{n_jobs} jobs, 11 accidents: results kept", kept, at_least=n_jobs - 11, details={"seconds": seconds}),
        Figure("accidents named with their reason", named, at_least=11, at_most=11),
        Figure("jobs that the second call runs", ran, at_least=11, at_most=11, details={"seconds": again}),
    ]


def _resume(sweep: Path, n_jobs: int) -> Figure:
    before = _stamps(sweep)
    seconds = _seconds(*TINY, "threads=1", f"seed=range({n_jobs})", *JOBLIB, sweep=sweep)
    after = _stamps(sweep)
    changed = [path.name for path in after if before.get(path) != after[path]]
    details = {"files": len(before), "rewritten": changed}
    return Figure(f"the same command on a finished grid of {n_jobs}: s", seconds, at_most=10.0, details=details)


def _report(grid: Path, finished: Path, copies: int) -> Figure:
    sweeps = [grid / f"copy-{i}" for i in range(copies)]
    for sweep in sweeps:
        shutil.copytree(finished, sweep)
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, ROOT / "scripts" / "report.py", *sweeps, "--out", grid], check=True, stdout=subprocess.DEVNULL
    )
    seconds = time.perf_counter() - began
    n_runs = copies * len(read_csv(finished / FILE_NAME))
    return Figure(f"report over {n_runs} runs: s", seconds, at_most=10.0)


def _seconds(*words: str, sweep: Path, script: Path = ROOT / "train.py", status: int = 0) -> float:
    """Return the seconds of one command, which must end with `status`."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    began = time.perf_counter()
    ended = subprocess.run(
        [sys.executable, script, *words, f"hydra.sweep.dir={sweep}"],
        env={**os.environ, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ended.returncode != status:
        raise RuntimeError(f"{script.name} ended with {ended.returncode}, not {status}:\n{ended.stdout[-4000:]}")
    return time.perf_counter() - began


def _of_rows(sweep: Path, column: str) -> list[float]:
    return [float(row[column]) for row in read_csv(sweep / FILE_NAME)]


def _stamps(sweep: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sweep.rglob("*") if path.is_file()}
