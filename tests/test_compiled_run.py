"""A run with `solver.compile=true`: to the bit the same after a break, and with its notes in the log."""

from __future__ import annotations

from pathlib import Path

import pytest

from neuralode_exp.config import machine
from tests.runs import Compose, assert_same_weights, whole_and_cut

CELL = ("dataset=circle", "dataset.trajectories=8", "dataset.points=20", "model.width=8", "trainer.max_steps=12")


@pytest.mark.compiled
@pytest.mark.parametrize("model", ["rknet", "odenet"])
def test_a_killed_run_goes_on_to_the_same_weights(
    model: str, tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = compose(*CELL, f"model={model}", "solver.compile=true", "trainer.checkpoint_every=5")
    assert_same_weights(*whole_and_cut(tmp_path, config, monkeypatch, killed_at=8))


def test_without_a_compiler_it_is_refused(compose: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    found = [str(mistake) for mistake in machine.of_machine(compose(*CELL, "solver.compile=true"))]
    assert len(found) == 1
    assert found[0].startswith("solver.compile must be false without a C++ compiler (no-such-compiler), got true; inst")
    assert not [*machine.of_machine(compose(*CELL, "model=resnet", "solver.compile=true"))]
