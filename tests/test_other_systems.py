"""The program where Python lacks what POSIX has, as on Windows: it is hidden from the package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from neuralode_exp.sweep.table import read_csv
from neuralode_exp.tracking import whole_files
from neuralode_exp.tracking.metrics import read_metrics
from tests.conftest import ROOT

# Every Python that finds this beside its modules runs it at its start, the processes of a launcher too. Only for the
# package itself something is missing: other packages know their system.
HIDES = """
import builtins, os, signal, types

MODULES = {"fcntl", "grp", "posix", "pwd", "pty", "resource", "spwd", "syslog", "termios", "tty"}
NAMES = {
    "os": {
        "WNOHANG", "chown", "fchmod", "fork", "forkpty", "getegid", "geteuid", "getgid", "getloadavg", "getpgid",
        "getpgrp", "getpriority", "getsid", "getuid", "killpg", "mkfifo", "nice", "sched_getaffinity",
        "sched_setaffinity", "setpgid", "setpgrp", "setsid", "setuid", "sync", "sysconf", "uname", "wait",
    },
    "signal": {
        "SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGSTOP", "SIGUSR1", "SIGUSR2", "alarm",
        "pause", "pthread_kill", "pthread_sigmask", "setitimer", "sigwait",
    },
}


def without(module, names):
    poor = types.ModuleType(module.__name__)
    poor.__dict__.update({name: value for name, value in vars(module).items() if name not in names})
    return poor


POOR = {"os": without(os, NAMES["os"]), "signal": without(signal, NAMES["signal"])}
REAL = builtins.__import__


def poor_import(name, globals=None, locals=None, fromlist=(), level=0):
    importer = (globals or {}).get("__name__") or ""
    if importer.partition(".")[0] == "neuralode_exp" and level == 0:
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        if name in POOR:
            return POOR[name]
    return REAL(name, globals, locals, fromlist, level)


builtins.__import__ = poor_import
"""
SHORT = ("dataset=circle", "trainer.max_steps=4", "log_every=1", "trainer.evaluate_every=2", "figures=false")


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """The environment of a process from whose `neuralode_exp` everything of POSIX alone is hidden."""
    hides = tmp_path / "hides"
    hides.mkdir()
    (hides / "sitecustomize.py").write_text(HIDES)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(hides), str(ROOT)]), "OMP_NUM_THREADS": "1"}


def run(elsewhere: dict[str, str], folder: Path, *words: str) -> str:
    command = [sys.executable, *words]
    ended = subprocess.run(command, cwd=folder, env=elsewhere, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_what_is_hidden_is_hidden(elsewhere: dict[str, str], tmp_path: Path) -> None:
    program = """
import os, neuralode_exp.sweep.processes as processes, neuralode_exp.interruption as interruption
assert hasattr(os, "setpgrp") and not hasattr(processes.os, "setpgrp") and not processes.HAS_GROUPS
assert not hasattr(interruption.signal, "SIGKILL")
try:
    exec("import resource", {"__name__": "neuralode_exp.anything"})
except ModuleNotFoundError:
    print("hidden")
"""
    assert run(elsewhere, tmp_path, "-c", program) == "hidden\n"


def test_every_module_is_imported(elsewhere: dict[str, str], tmp_path: Path) -> None:
    program = """
import importlib, pkgutil, neuralode_exp
names = [module.name for module in pkgutil.walk_packages(neuralode_exp.__path__, "neuralode_exp.")]
for name in names:
    if not name.endswith(("sweep.search", "sweep.space", "sweep.study")):  # these want Optuna
        importlib.import_module(name)
print(len(names))
"""
    assert int(run(elsewhere, tmp_path, "-c", program)) > 80


def test_a_run_trains_and_measures_its_memory(elsewhere: dict[str, str], tmp_path: Path) -> None:
    run(elsewhere, tmp_path, str(ROOT / "train.py"), *SHORT, "hydra.run.dir=one")
    steps, peaks = read_metrics(tmp_path / "one")["memory/peak_rss_mib"]
    assert steps
    assert 100 < max(peaks) < 10_000  # MiB: torch alone is above 100


@pytest.mark.parametrize("launcher", ["basic", "joblib"])
def test_a_grid_runs(launcher: str, elsewhere: dict[str, str], tmp_path: Path) -> None:
    words = ("seed=0,1", f"hydra/launcher={launcher}", "hydra.sweep.dir=grid")
    run(elsewhere, tmp_path, str(ROOT / "train.py"), "-m", *SHORT, *words)
    assert [row["status"] for row in read_csv(tmp_path / "grid" / "sweep.csv")] == ["completed"] * 2


def test_a_file_that_somebody_reads_is_replaced_a_moment_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusals, replace = [0, 1, 2], os.replace

    def refuse(source: Path, target: Path) -> None:
        if refusals:
            refusals.pop()
            raise PermissionError(13, "it is in use")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    whole_files.write_whole(tmp_path / "summary.json", b"new")
    assert (tmp_path / "summary.json").read_bytes() == b"new"

    refusals[:] = range(1000)
    monkeypatch.setattr(whole_files, "READERS_TAKE", 0.05)
    with pytest.raises(PermissionError):
        whole_files.write_whole(tmp_path / "summary.json", b"newer")
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
    assert (tmp_path / "summary.json").read_bytes() == b"new"
