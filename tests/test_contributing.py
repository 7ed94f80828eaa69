"""What CONTRIBUTING.md says of a new system is all that it takes: a function, a row, a file."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import train
from neuralode_exp import registry
from neuralode_exp.data.numbers import Positive
from neuralode_exp.extend import system
from neuralode_exp.load import load_run
from neuralode_exp.report.report import make_report, text
from neuralode_exp.tracking.progress import Lines
from neuralode_exp.tracking.summary import read_summary
from tests.conftest import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text()


@system("swing", dim=2, low=-1.0, high=1.0, t_max=5.0)
def swing(t: torch.Tensor, z: torch.Tensor, *, length: Positive = 1.0) -> torch.Tensor:
    """theta'' = -sin(theta) / length."""
    return torch.stack([z[..., 1], -torch.sin(z[..., 0]) / length], -1)


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """start("dataset=circle", ...) -> exit status of train.py; with `stop_at` Ctrl-C comes after that step."""

    def start(*words: str, stop_at: int | None = None) -> int:
        def update(self: Lines, step: int, values: object = None) -> None:
            if step == stop_at:
                os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(Lines, "update", update)
        monkeypatch.setattr(sys, "argv", ["train.py", *words])
        return int(train.command_line())

    return start


@pytest.mark.parametrize("replicas", [1, 3])
def test_a_new_system_is_trained_resumed_loaded_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[..., int], replicas: int
) -> None:
    monkeypatch.setattr(registry, "PACKAGE", ROOT)  # as if its function stood in the package
    file = tmp_path / "conf" / "dataset" / "swing.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(
        "defaults: [/trainer@_global_.trainer: dynamics, kind/dynamics@_here_, _self_]\nname: swing\nlength: 1.0\n"
    )
    few = ("dataset.trajectories=8", "dataset.points=20", "trainer.max_steps=4", "model.width=8", "figures=false")
    words = (
        "--config-dir",
        str(tmp_path / "conf"),
        "dataset=swing",
        "dataset.length=2",
        *few,
        f"trainer.replicas={replicas}",
    )
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert start(*words, f"hydra.run.dir={whole}") == 0
    assert start(*words, f"hydra.run.dir={cut}", stop_at=2) == 130
    assert start(f"resume={cut}") == 0
    errors = [
        summary["metrics"]["dynamics/field_error"] for folder in (whole, cut) if (summary := read_summary(folder))
    ]
    assert errors[0] == errors[1] > 0
    _, config = load_run(whole)
    assert config.dataset.model_dump()["length"] == 2.0
    assert "trajectory error" in text(make_report([whole]))


def test_the_files_that_the_page_names_are_there() -> None:
    named = re.findall(r"`((?:conf|config|data|models|ode|tests|trainers|scripts)/[\w./]*|tags\.py)", PAGE)
    assert len(named) > 15
    for path in named:
        assert any((base / path.partition("NAME")[0]).exists() for base in (ROOT, ROOT / "neuralode_exp")), path
