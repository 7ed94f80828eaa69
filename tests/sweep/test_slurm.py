"""Grids on a node of Slurm that runs here for the test, without accounting: `make test-slurm`."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from neuralode_exp.sweep.slurm import JOBS
from tests.conftest import train
from tests.sweep.conftest import TINY, table

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(
        not all(map(shutil.which, ("munged", "slurmctld", "slurmd"))),
        reason="Slurm is not installed: apt-get install munge slurmctld slurmd",
    ),
]

CONF = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus}
PartitionName=all Nodes=ALL Default=YES
"""


@pytest.fixture(scope="module", autouse=True)
def node() -> Iterator[None]:
    """A whole Slurm on this machine, of processes that end with the tests."""
    with ExitStack() as stack:
        # A socket's path may have 107 characters.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="slurm", ignore_cleanup_errors=True)))
        for name in ("state", "spool"):
            (folder / name).mkdir()
        key = folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        of_node = {"host": socket.gethostname().split(".")[0], "user": subprocess.getoutput("id -un")}
        conf = CONF.format(folder=folder, ports=free_ports(), cpus=len(os.sched_getaffinity(0)), **of_node)
        (folder / "slurm.conf").write_text(conf)
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        munge = [f"--{option}={folder}/munge.{end}" for option, end in files.items()]
        for command in (["munged", "--force", "--foreground", *munge], ["slurmctld", "-D"], ["slurmd", "-D"]):
            stack.enter_context(running(command, folder / f"{command[0]}.said"))
        until(lambda: slurm("sinfo", "--noheader", "--format=%T") == "idle")
        yield
        slurm("scancel", "--me", "--signal=KILL")
        until(lambda: not slurm("squeue", "--me", "--noheader"))


def free_ports() -> list[int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return [one.getsockname()[1], other.getsockname()[1]]


@contextmanager
def running(command: list[str], said: Path) -> Iterator[None]:
    with open(said, "w") as file, subprocess.Popen(command, stdout=file, stderr=file) as process:
        yield
        process.terminate()


def slurm(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def until(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


WORDS = (
    *TINY,
    "trainer.epochs=300",
    "trainer.evaluate_every=1000",
    "trainer.checkpoint_every=50",
    "log_every=5",
    "hydra/launcher=submitit_slurm",
    "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.timeout_min=10",
)


def grid(folder: Path, *words: str) -> tuple[int, list[str]]:
    """Exit status of a grid on Slurm, and how its cells stand."""
    ended = train("-m", *WORDS, f"hydra.sweep.dir={folder}", *words, cwd=folder.parent, timeout=250)
    assert "Traceback" not in ended.stderr
    return ended.returncode, [row["status"] for row in table(folder)]


def jobs(folder: Path) -> list[str]:
    """The last job of each cell."""
    last = {run: job for job, run in (line.split(",") for line in (folder / JOBS).read_text().splitlines())}
    return [last[row["run"]] for row in table(folder)]


def until_it_trains(folder: Path) -> None:
    rows = folder / "metrics.csv"
    until(lambda: rows.exists() and rows.read_text().count("loss/train") > 12)


def test_a_detached_grid_takes_in_what_ended_and_launches_what_was_lost(tmp_path: Path) -> None:
    folder = tmp_path / "grid"
    words = ("seed=range(4)", "hydra.sweeper.detach=true")
    assert grid(folder, *words) == (0, ["queued"] * 4)
    first = jobs(folder)
    until_it_trains(folder / table(folder)[0]["run"])
    slurm("scancel", "--signal=KILL", "--full", first[0])  # at once, as when its node is lost
    slurm("scancel", first[3])  # which waits
    until(lambda: first[0] not in slurm("squeue", "--me", "--array", "--noheader", "--format=%i").split())

    status, cells = grid(folder, *words)
    assert status == 0
    assert set(cells) <= {"queued", "running", "completed"}
    assert "completed" not in (cells[0], cells[3])
    second = jobs(folder)
    assert [a == b for a, b in zip(first, second, strict=True)] == [False, True, True, False]

    assert grid(folder, "seed=range(4)") == (0, ["completed"] * 4)
    assert jobs(folder) == second
    assert "resumed after step" in (folder / table(folder)[0]["run"] / "train.log").read_text()


def test_a_cancelled_job_does_not_keep_a_grid_waiting(tmp_path: Path) -> None:
    folder = tmp_path / "grid"

    def cancel_one() -> None:
        until(lambda: (folder / JOBS).exists() and bool((folder / JOBS).read_text()))
        job, run = (folder / JOBS).read_text().splitlines()[0].split(",")
        until_it_trains(folder / run)
        slurm("scancel", job)

    with ThreadPoolExecutor() as threads:
        cancelling = threads.submit(cancel_one)
        # The first would train for long after the signal that warns it.
        assert grid(folder, "trainer.epochs=1000000,1") == (1, ["killed", "completed"])
        cancelling.result()
    assert "left the queue" in table(folder)[0]["reason"]
