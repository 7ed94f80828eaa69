"""The benchmark's table `dynamics`: a race stops where it should, a peer learns, a missing one is named."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import core, dynamics, peer_ode_demo, race

from neuralode_exp.config import Config

SMALL = ("dataset.trajectories=8", "trainer.max_steps=40", "trainer.evaluate_every=10")
WRITER = """
import sys, time
with open(sys.argv[1], "w", buffering=1) as file:
    file.write("step,tag,value\\n")
    for step, error in enumerate(map(float, sys.argv[2:]), 1):
        file.write(f"{step},dynamics/field_error,{error}\\n")
"""


def writer(*errors: float, then: str = "", limit: float | None = None) -> race.Contestant:
    return race.Contestant([sys.executable, "-c", WRITER + then, "{folder}/metrics.csv", *map(str, errors)], limit)


def test_a_race_stops_at_the_first_small_enough_error(tmp_path: Path) -> None:
    finish = race.run_until(writer(0.5, 0.01, 0.02, then="time.sleep(60)"), tmp_path, 0.01)
    assert (finish.step, finish.error, finish.reached) == (2, 0.01, True)
    assert finish.seconds < 30


def test_a_race_that_is_not_won_in_time_says_so(tmp_path: Path) -> None:
    finish = race.run_until(writer(0.5, then="time.sleep(60)", limit=0.5), tmp_path, 0.01)
    assert 0.5 <= finish.seconds < 10
    assert not finish.reached


def test_a_race_that_fails_shows_what_was_printed(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no such thing"):
        race.run_until(race.Contestant([sys.executable, "-c", "exit('no such thing')"]), tmp_path, 0.01)


def test_a_bound_is_called_one() -> None:
    ours, theirs = race.Finish(2.0, 100, 0.01, reached=True), race.Finish(10.0, 4000, 0.2, reached=False)
    _, figure = dynamics.to_target({dynamics.OURS: [ours], "torchdiffeq's demo": [theirs]}, 0.01)
    assert figure.value == 0.2
    assert "at most (stopped after 10 s at 20 %)" in figure.name


def test_the_demo_learns(tmp_path: Path, compose: Callable[..., Config]) -> None:
    problem = tmp_path / "problem.npz"
    dynamics.write_problem(problem, compose(*SMALL))
    with np.load(problem) as arrays:
        t, observed = (torch.from_numpy(arrays[name]) for name in ("t", "observed"))
    torch.manual_seed(0)
    demo = peer_ode_demo.Demo(t, observed)
    losses = [demo.step() for _ in range(60)]
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])


def test_a_missing_library_costs_one_line_and_no_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(dynamics, "JAX_LIBRARIES", ("json", "no_such_library"))
    entered = dynamics.contestants(tmp_path / "problem.npz", (), 1.0, sys.executable)
    assert set(entered) == {dynamics.OURS, "torchdiffeq's demo"}
    assert capsys.readouterr().out.splitlines() == [
        f'diffrax: not measured, {sys.executable} lacks no_such_library; pip install -e ".[bench]"'
    ]


def test_the_figures_of_memory_reach_their_goals() -> None:
    figures = {figure.name.rpartition(": ")[2]: figure.value for figure in core.memory(torch.randn(2, 64, 6, 6))}
    assert figures["adjoint"] == 1.0
    # The peak is the states of the steps and the stages of one, which do not grow with the number of steps.
    assert figures["checkpoint"] == pytest.approx(1.0)
