"""Who holds a run's folder, when it is taken over, and that of several processes one gets it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from neuralode_exp.tracking import lock as lock_module
from neuralode_exp.tracking.lock import FILE_NAME, LOST_SECONDS, Held, held_by, lock, this_process

OTHER_HOST = {"pid": 7, "host": socket.gethostname() + "-other", "started": 0.0, "token": "a"}


def test_a_held_folder_is_refused_with_who_holds_it(tmp_path: Path) -> None:
    with lock(tmp_path / "run"):
        who = f"process {os.getpid()} on {socket.gethostname()}"
        assert held_by(tmp_path / "run") == who
        with pytest.raises(Held, match=f"is held by {who}; wait for it"), lock(tmp_path / "run"):
            pass
    assert held_by(tmp_path / "run") is None
    assert list((tmp_path / "run").iterdir()) == []


def test_the_lock_of_a_dead_process_is_taken_over(tmp_path: Path) -> None:
    dead = {**this_process(), "token": "a"}
    dead["started"] -= 60  # another process had this number
    (tmp_path / FILE_NAME).write_text(json.dumps(dead))
    assert held_by(tmp_path) is None
    with lock(tmp_path):
        assert held_by(tmp_path) is not None


def test_the_lock_of_another_host_is_taken_over_once_it_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    path.write_text(json.dumps(OTHER_HOST))
    with pytest.raises(Held, match="process 7 on"), lock(tmp_path):
        pass
    os.utime(path, (time.time() - LOST_SECONDS - 1,) * 2)
    with lock(tmp_path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_lock_without_content_is_held_by_a_process_that_starts(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).touch()
    assert held_by(tmp_path) == "a process that starts"


def test_the_holder_touches_its_lock_and_notices_that_it_was_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_module, "TOUCH_SECONDS", 0.01)
    path = tmp_path / FILE_NAME
    with lock(tmp_path) as held:
        os.utime(path, (0, 0))
        until(lambda: path.stat().st_mtime > 0)
        held.check()
        path.write_text(json.dumps(OTHER_HOST))
        until(lambda: held._lost)
        with pytest.raises(Held, match="was taken over"):
            held.check()
    assert json.loads(path.read_text()) == OTHER_HOST  # it is the other's to remove


def until(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


TAKE = """
import sys, time
from pathlib import Path
from neuralode_exp.tracking.lock import Held, lock
folder = Path(sys.argv[1])
sys.stdin.readline()
try:
    with lock(folder):
        print("taken", flush=True)
        sys.stdin.readline()
except Held:
    print("held", flush=True)
"""


def test_of_several_that_take_over_a_lost_lock_one_gets_it(tmp_path: Path) -> None:
    start = [sys.executable, "-c", TAKE, str(tmp_path)]
    takers = [subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    (tmp_path / FILE_NAME).write_text(json.dumps(OTHER_HOST))
    os.utime(tmp_path / FILE_NAME, (0, 0))
    for taker in takers:
        taker.stdin.write("go\n")
        taker.stdin.flush()
    assert sorted(taker.stdout.readline() for taker in takers) == ["held\n"] * 3 + ["taken\n"]
    for taker in takers:
        taker.communicate("end\n", timeout=30)
    assert list(tmp_path.iterdir()) == []
