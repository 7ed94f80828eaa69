"""Every number that is recomputed agrees, on a tiny run of each task."""

from __future__ import annotations

from pathlib import Path

import pytest
import recompute

from neuralode_exp.config import Config
from tests.conftest import SAMPLE

TINY = {
    "dynamics": (),
    "density": ("model.width=8",),
    "images": (f"dataset.root={SAMPLE}", "dataset.validation=64"),
}


@pytest.mark.parametrize("task", TINY)
def test_every_tag_agrees(tmp_path: Path, compose, task: str) -> None:
    words = (*recompute.RUNS[task], *recompute.COMMON, *TINY[task])
    config: Config = compose(*words)
    checks = recompute.check(config, tmp_path / "run")
    assert len(checks) >= 10
    assert not [check for check in checks if not check.agrees]


def test_a_wrong_number_does_not_agree() -> None:
    assert not recompute.Check("density/kl", 1.01, 1.0, 1e-3).agrees
    assert recompute.Check("density/kl", 1.0005, 1.0, 1e-3).agrees
