import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from neuralode_exp.tracking import provenance
from neuralode_exp.tracking.lock import FILE_NAME, LOST_SECONDS
from neuralode_exp.tracking.summary import DamagedSummary, Summary, new_summary, read_summary, write_summary

RUN = (
    "import sys, time, torch\n"
    "from neuralode_exp.tracking.summary import new_summary, write_summary\n"
    "write_summary(sys.argv[1], new_summary('abc', torch.device('cpu')))\n"
    "print('written', flush=True)\n"
    "time.sleep(600)\n"
)


@pytest.fixture
def summary() -> Summary:
    return new_summary("abc", torch.device("cpu"), parameters=12)


def test_start_and_end(tmp_path: Path, summary: Summary) -> None:
    assert read_summary(tmp_path) is None
    write_summary(tmp_path, summary)
    assert read_summary(tmp_path) == summary
    assert summary["status"] == "running"
    assert summary["identity"] == "abc"
    assert summary["parameters"] == 12

    summary["status"] = "failed"
    summary["error"] = {"type": "NonFiniteState", "message": "at t = 1"}
    summary["metrics"] = {"final/error": 1 / 3}
    summary["objective"] = 1e-300
    write_summary(tmp_path, summary)
    assert read_summary(tmp_path) == summary
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b'{"status": "completed"}', b'{"metrics": 1}'])
def test_a_damaged_file_is_named_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "summary.json").write_bytes(content)
    with pytest.raises(DamagedSummary, match=re.escape(str(tmp_path / "summary.json")) + " is damaged .*; delete it"):
        read_summary(tmp_path)


def test_nonfinite_metrics_are_valid_json_and_come_back(tmp_path: Path, summary: Summary) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    summary["metrics"] = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 2.0}
    summary["objective"] = math.inf
    write_summary(tmp_path, summary)
    raw = json.loads((tmp_path / "summary.json").read_text(), parse_constant=refuse)
    assert raw["metrics"] == {"a": "NaN", "b": "Infinity", "c": "-Infinity", "d": 2.0}
    read = read_summary(tmp_path)
    assert read is not None
    assert math.isnan(read["metrics"].pop("a"))
    assert read["metrics"] == {"b": math.inf, "c": -math.inf, "d": 2.0}
    assert read["objective"] == math.inf


def test_running_becomes_killed_with_its_process(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", RUN, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    assert read_summary(tmp_path)["status"] == "running"
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE  # dead, its parent does not know yet
    assert read_summary(tmp_path)["status"] == "killed"
    process.wait()
    assert not psutil.pid_exists(process.pid)
    assert read_summary(tmp_path)["status"] == "killed"
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "running"  # read, not rewritten


def test_reused_process_number_is_not_the_run(tmp_path: Path, summary: Summary) -> None:
    summary["process"]["started"] -= 60
    write_summary(tmp_path, summary)
    assert read_summary(tmp_path)["status"] == "killed"


def test_run_on_another_host_is_running_while_its_lock_is_held(tmp_path: Path, summary: Summary) -> None:
    summary["process"]["host"] = socket.gethostname() + "-other"
    summary["process"]["pid"] = 2**22 + 1  # above the largest of Linux
    write_summary(tmp_path, summary)
    lock = tmp_path / FILE_NAME
    lock.write_text(json.dumps(summary["process"]))
    assert read_summary(tmp_path)["status"] == "running"
    os.utime(lock, (time.time() - 2 * LOST_SECONDS,) * 2)
    assert read_summary(tmp_path)["status"] == "killed"


@pytest.mark.parametrize("status", ["completed", "failed", "interrupted", "skipped"])
def test_ended_run_needs_no_process(tmp_path: Path, summary: Summary, status: str) -> None:
    summary["status"] = status
    summary["process"]["started"] -= 60
    write_summary(tmp_path, summary)
    assert read_summary(tmp_path)["status"] == status


def test_write_that_fails_keeps_the_old_summary(
    tmp_path: Path, summary: Summary, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_summary(tmp_path, summary)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_summary(tmp_path, {**summary, "status": "completed"})
    assert read_summary(tmp_path) == summary
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_versions_and_device() -> None:
    versions = provenance.versions()
    assert versions["torch"] == torch.__version__
    assert versions["torchdiffeq"] == "0.2.5"
    assert set(versions) == {"python", "torch", "torchdiffeq", "hydra", "neuralode-exp"}
    threads = torch.get_num_threads()
    assert provenance.device_name(torch.device("cpu")).endswith(f", {threads} thread{'s' * (threads > 1)}")


@pytest.mark.cuda
def test_gpu_is_named() -> None:
    device = torch.device("cuda")
    assert provenance.device_name(device) == torch.cuda.get_device_name(device)


def test_git_commit_is_the_checkout_s_own(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=A", "-c", "user.email=a@b"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    commit_of = provenance.git_commit.__wrapped__  # past its cache
    assert commit_of(tmp_path) is None
    git("init")
    assert commit_of(tmp_path) is None  # no commit yet
    (tmp_path / "code.py").write_text("a = 1\n")
    git("add", "code.py")
    git("commit", "-m", "One")
    commit = git("rev-parse", "HEAD")
    assert len(commit) == 40
    assert commit_of(tmp_path) == commit
    (tmp_path / "code.py").write_text("a = 2\n")
    assert commit_of(tmp_path) == commit + "-dirty"
    git("commit", "-a", "-m", "Two")
    git("tag", "v1")
    assert commit_of(tmp_path) == git("rev-parse", "HEAD")
    inside = tmp_path / "venv" / "site-packages"
    inside.mkdir(parents=True)
    assert commit_of(inside) is None  # a package installed in somebody else's checkout
