"""Grids of jobs of a few milliseconds each, in this process unless a launcher has its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from neuralode_exp.sweep.table import read_csv
from tests.conftest import TINY_IMAGES, train_here

TINY = (*TINY_IMAGES, "trainer.epochs=1", "model=mlp", "model.hidden=4", "figures=false")
Grid = Callable[..., int]


@pytest.fixture
def grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Grid:
    """grid("seed=0,1") -> exit status of `python train.py -m` with it, in the sweep folder `tmp_path/grid`."""
    monkeypatch.chdir(tmp_path)

    def grid(*words: str) -> int:
        # Absolute: joblib keeps its processes, in the folder of the test that started them.
        return train_here(monkeypatch, "-m", *TINY, f"hydra.sweep.dir={tmp_path}/grid", *words)

    return grid


def table(folder: Path = Path("grid")) -> list[dict[str, str]]:
    """The rows of sweep.csv."""
    return read_csv(folder / "sweep.csv")


def statuses() -> list[str]:
    return [row["status"] for row in table()]


def stamps(folder: Path = Path("grid")) -> dict[Path, int]:
    """When each file below the sweep folder was written."""
    return {path: os.stat(path).st_mtime_ns for path in folder.rglob("*") if path.is_file()}
