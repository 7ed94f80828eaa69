import logging
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from neuralode_exp.tracking import progress as display
from neuralode_exp.tracking.progress import Bar, Lines, final_table, progress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(display, "time", clock)
    return clock


def test_lines_come_at_most_once_per_interval_and_at_the_end(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), progress(100, terminal=False) as lines:
        assert isinstance(lines, Lines)
        for step in range(1, 101):
            clock.now += 0.125
            lines.update(step, {"loss": 1 / step, "nfe": 20.0} if step % 10 == 0 else None)
    assert caplog.messages == [
        "step 40/100  loss 0.025  nfe 20  0:08 left",  # 5.0 s for 40 steps, 60 to go: 7.5 s
        "step 80/100  loss 0.0125  nfe 20  0:02 left",
        "step 100/100  loss 0.01  nfe 20",
    ]


def test_lines_without_a_total_tell_no_time_left(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), progress(None, terminal=False) as lines:
        clock.now += 6
        lines.update(5, {"loss": float("nan")})
        clock.now += 1
    assert caplog.messages == ["step 5  loss nan"]


def test_time_left_of_a_resumed_run_is_of_its_own_steps(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), progress(7300, start=100, terminal=False) as lines:
        clock.now += 10
        lines.update(110)
        assert caplog.messages == ["step 110/7300  1:59:50 left"]


def test_a_grid_lasts_as_long_as_its_steps_at_this_pace(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), progress(100, terminal=False, steps_after=900) as lines:
        for step in (50, 100):
            clock.now += 10
            lines.update(step)
    assert caplog.messages == ["step 50/100  0:10 left  grid 3:10 left", "step 100/100  grid 3:00 left"]


def test_nothing_is_shown_where_nothing_was_done(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), progress(10, start=10, terminal=False):
        pass
    assert caplog.messages == []


PROGRAM = (
    "import sys, logging\n"
    "logging.basicConfig(level=logging.INFO, format='%(message)s')\n"
    "from neuralode_exp.tracking.progress import progress\n"
    "total = None if sys.argv[1] == 'None' else int(sys.argv[1])\n"
    "with progress(total) as shown:\n"
    "    for step in range(1, 4): shown.update(step, {'loss': 0.5 / step, 'error': 2.5, 'nfe': 26.0})\n"
    "print('rich' in sys.modules)\n"
)


def run_on_terminal(total: str) -> tuple[str, str]:
    """Run PROGRAM with a terminal as stderr; return what it printed and what the terminal showed."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    command = [sys.executable, "-c", PROGRAM, total]
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=slave, env=environment, text=True)
    os.close(slave)
    shown = b""
    try:
        while chunk := os.read(master, 4096):
            shown += chunk
    except OSError:  # a terminal whose other end is closed
        pass
    os.close(master)
    assert process.returncode == 0, shown.decode()
    return process.stdout, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())


@pytest.mark.parametrize(("total", "count"), [("3", "3/3"), ("None", "3/?")])
def test_terminal_gets_a_bar(total: str, count: str) -> None:
    printed, shown = run_on_terminal(total)
    assert printed == "True\n"
    last = [line for line in shown.replace("\r", "\n").split("\n") if line.strip()][-1]
    assert f"{count} loss 0.1667  error 2.5  nfe 26" in last


def test_pipe_gets_lines_and_no_rich() -> None:
    process = subprocess.run([sys.executable, "-c", PROGRAM, "3"], capture_output=True, text=True, check=True)
    assert process.stdout == "False\n"
    assert process.stderr == "step 3/3  loss 0.1667  error 2.5  nfe 26\n"


def test_bar_is_drawn_by_update_without_a_thread(capsys: pytest.CaptureFixture[str]) -> None:
    import threading

    before = threading.active_count()
    with progress(10, terminal=True) as bar:
        assert isinstance(bar, Bar)
        bar.update(10)
        assert threading.active_count() == before
    assert "10/10" in capsys.readouterr().err


def test_final_table_aligns_and_names_folder_and_command() -> None:
    rows = {
        "error/test": 1.23456,
        "parameters": 208266,
        "time/elapsed_s": 12345.67,
        "loss": 1e-7,
        "status": "done",
        "nan": float("nan"),
    }
    assert final_table(rows, Path("outputs/my run")).splitlines() == [
        "  error/test      1.235",
        "  parameters      208266",
        "  time/elapsed_s  12346",
        "  loss            1e-07",
        "  status          done",
        "  nan             nan",
        "run folder: outputs/my run",
        "tensorboard --logdir 'outputs/my run'",
    ]
