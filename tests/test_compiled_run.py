"""A run with `solver.compile=true`: to the bit the same after a break, and with its notes in the log."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuralode_exp.config import machine
from neuralode_exp.trainers import loop as loop_module
from tests.test_run import Compose, Killed, assert_same_weights, run_in

CELL = ("dataset=circle", "dataset.trajectories=8", "dataset.points=20", "model.width=8", "trainer.max_steps=12")


@pytest.mark.compiled
@pytest.mark.parametrize("model", ["rknet", "odenet"])
def test_a_killed_run_goes_on_to_the_same_weights(
    model: str, tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose(*CELL, f"model={model}", "solver.compile=true", "trainer.checkpoint_every=5")
    run_in(tmp_path / "whole", config)
    original = loop_module.Loop._train_step

    def killing(self: loop_module.Loop, *, measure_memory: bool) -> None:
        if self.step == 8:
            raise Killed
        original(self, measure_memory=measure_memory)

    monkeypatch.setattr(loop_module.Loop, "_train_step", killing)
    with pytest.raises(Killed):
        run_in(tmp_path / "cut", config)
    monkeypatch.undo()
    run_in(tmp_path / "cut", config)
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")


def test_without_a_compiler_it_is_refused(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    found = [str(mistake) for mistake in machine.of_machine(compose(*CELL, "solver.compile=true"))]
    assert len(found) == 1
    assert found[0].startswith("solver.compile must be false without a C++ compiler (no-such-compiler), got true; inst")
    assert not [*machine.of_machine(compose(*CELL, "model=resnet", "solver.compile=true"))]
