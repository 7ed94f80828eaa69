"""Costs of a run: which steps are timed, which evaluations count, what the summary makes of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from neuralode_exp.config import Config
from neuralode_exp.models.fields.mlp import MLPField
from neuralode_exp.ode import Stats, make_method, solve
from neuralode_exp.ode.walk import Walk
from neuralode_exp.run import run
from neuralode_exp.tracking.metrics import read_metrics
from neuralode_exp.tracking.summary import read_summary
from neuralode_exp.trainers.loop import Loop
from neuralode_exp.trainers.meter import Meter

Compose = Callable[..., Config]
TINY = ("dataset.trajectories=10", "dataset.points=20", "threads=1", "figures=false", "model.width=8")


def test_a_run_has_the_median_time_and_costs_of_its_last_tenth() -> None:
    meter = Meter()
    for step in range(40):
        meter.add("time/step_ms", 1000.0 if step < 15 else 10.0)
        meter.add_solves([Stats(nfe_forward=step, accepted=1)])
    assert meter.means_and_reset()["nfe/forward"] == 19.5
    again = Meter()
    again.restore(meter.state())
    for one in (meter, again):
        found = one.of_run()
        assert found["time/step_ms"] == 10.0
        assert found["nfe/forward"] == 37.5  # of 36, 37, 38, 39
    assert again.means_and_reset() == {}


def test_checkpoints_of_before_hold_sums_alone() -> None:
    meter = Meter()
    meter.restore({"loss/train": [6.0, 2.0]})
    assert meter.means_and_reset() == {"loss/train": 3.0}
    assert meter.of_run() == {}


def test_a_step_costs_all_its_solves_and_tells_only_the_steps_that_are_known() -> None:
    meter = Meter()
    meter.add_solves([Stats(nfe_forward=7), Stats(nfe_forward=5, nfe_backward=3)])  # SciPy tells no steps
    assert meter.means_and_reset() == {"nfe/forward": 12.0, "nfe/backward": 3.0}


def test_a_failed_solve_tells_its_cost() -> None:
    calls = []

    def f(t: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        calls.append(float(t))
        return -100 * z

    method = make_method("dopri5", rtol=1e-8, atol=1e-8, max_steps=5)
    with pytest.raises(RuntimeError) as caught:
        solve(f, torch.ones(1), [0.0, 1.0], method)
    assert caught.value.stats.nfe_forward == len(calls) > 5  # type: ignore[attr-defined]


def train(folder: Path, config: Config, monkeypatch: pytest.MonkeyPatch, before_step: Any) -> Loop:
    """Run it, with something done before each step; the loop as it ended."""
    loops: list[Loop] = []
    original = Loop._train_step

    def watched(self: Loop, *, measure_memory: bool) -> None:
        loops.append(self)
        before_step(self, measure_memory)
        original(self, measure_memory=measure_memory)

    with monkeypatch.context() as patched:
        patched.setattr(Loop, "_train_step", watched)
        run(config, folder, config.model_dump(mode="json"))
    return loops[-1]


@pytest.mark.parametrize(
    ("every", "measured"),
    [(1, [2, 10, 20, 30]), (5, [2, 10, 20, 30]), (12, [2, 12, 24, 35]), (100, [2, 35])],
)
def test_the_first_step_and_those_with_hooks_are_not_timed(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch, every: int, measured: list[int]
) -> None:
    hooked: list[int] = []
    config = compose(*TINY, "solver=rk4", "trainer.max_steps=35", f"trainer.evaluate_every={every}")
    loop = train(tmp_path, config, monkeypatch, lambda loop, hooks: hooked.append(loop.step) if hooks else None)
    assert hooked == measured
    assert len(loop.meter.values["time/step_ms"]) == 35 - len(measured) - 1
    summary = read_summary(tmp_path)
    assert summary is not None
    assert summary["metrics"]["time/step_ms"] == summary["metrics"]["final/time/step_ms"]
    assert read_metrics(tmp_path)["final/time/step_ms"][1] == [summary["metrics"]["final/time/step_ms"]]


def test_solves_that_are_repeated_without_the_culprit_count(
    tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, in_training = 0, False
    forward, loss_and_backward, search = MLPField.forward, Loop._loss_and_backward, Walk._first_bad_step

    def counted(self: MLPField, t: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += in_training
        return forward(self, t, z)

    def watched(self: Loop, measure_memory: bool) -> Any:
        nonlocal in_training
        in_training = True
        found = loss_and_backward(self, measure_memory)
        in_training = False
        return found

    def searched(self: Walk) -> Any:
        nonlocal in_training
        in_training = False  # the search for the step that failed is no part of the solve
        found = search(self)
        in_training = True
        return found

    def spoil(loop: Loop, _: bool) -> None:
        if loop.step == 2:
            with torch.no_grad():
                field = loop.task.module["flow"].field.field.stacked  # type: ignore[index]
                field.biases[-1][1] = field.weights[-1][1] = 1e30

    monkeypatch.setattr(MLPField, "forward", counted)
    monkeypatch.setattr(Loop, "_loss_and_backward", watched)
    monkeypatch.setattr(Walk, "_first_bad_step", searched)
    words = ("model=rknet", "solver=rk4", "trainer.replicas=3", "trainer.max_failures=2", "objective=loss/train")
    config = compose(*TINY, *words, "trainer.max_steps=6")
    loop = train(tmp_path, config, monkeypatch, spoil)
    costs = loop.meter.values["nfe/forward"]
    assert len(costs) == 6
    assert costs[1] > costs[0]
    assert sum(costs) == calls
