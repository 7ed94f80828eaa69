"""Trained runs taken up by what their folder holds, with the data gone."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from neuralode_exp import load_run
from tests.conftest import ROOT, SAMPLE
from tests.runs import Compose, train_in


def write_trajectories(path: Path) -> Path:
    rows = [f"{k},{0.1 * i},{math.exp(-0.1 * i) * (k + 1)},{math.exp(-0.2 * i)}" for k in range(5) for i in range(8)]
    path.write_text("\n".join(["trajectory,t,z1,z2", *rows]))
    return path


def write_points(path: Path) -> Path:
    np.save(path, np.random.default_rng(0).normal(size=(40, 3)))
    return path


# A task and model of each kind: words, what it is asked for, shapes that come in and out, and of a wrong one.
KINDS = {
    "table": (("dataset=csv", "model=odenet"), "forward", (5, 2), (3, 5, 2)),
    "system": (("dataset=circle", "model=resnet"), "forward", (5, 2), (3, 5, 2)),
    "replicas": (("dataset=circle", "model=rknet", "trainer.replicas=2"), "forward", (2, 5, 2), (3, 2, 5, 2)),
    "density": (("dataset=two-moons", "model=odenet"), "log_prob", (5, 2), (5,)),
    "points": (("dataset=points", "model=rknet"), "log_prob", (5, 3), (5,)),
    "images": (("dataset=mnist", "model=rknet", "model.channels=4"), "forward", (5, 1, 28, 28), (5, 10)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_loads_with_its_data_gone(
    kind: str, tmp_path: Path, compose: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, method, shape, expected = KINDS[kind]
    few = (
        "trainer.epochs=null",
        "trainer.max_steps=1",
        "trainer.batch_size=8",
        "solver=rk4",
        "figures=false",
        "threads=1",
    )
    data = tmp_path / "data"
    data.mkdir()
    if kind == "table":
        words += (f"dataset.path={write_trajectories(data / 'measured.csv')}",)
    elif kind == "points":
        words += (f"dataset.path={write_points(data / 'points.npy')}",)
    elif kind == "images":
        shutil.copytree(SAMPLE, data, dirs_exist_ok=True)
        words += (f"dataset.root={data}", "dataset.validation=64", "dataset.test=8")
    config = compose(*few, *words)
    train_in(tmp_path / "run", config)
    shutil.rmtree(data)
    monkeypatch.setattr("neuralode_exp.load.build_task", None)

    model, _ = load_run(tmp_path / "run")
    call = getattr(model, method)
    further = (torch.arange(3) * getattr(model, "dt", 0.5),) if config.dataset.kind == "dynamics" else ()
    assert call(torch.rand(shape), *further).shape == expected
    with pytest.raises(ValueError, match=re.escape(str((*shape[:-1], shape[-1] + 1)))) as refused:
        call(torch.rand(*shape[:-1], shape[-1] + 1), *further)
    assert re.search(rf"shape \(\w+, .*{shape[-1]}\)", str(refused.value))


def test_replicas_say_how_many_they_are() -> None:
    model, _ = load_run(ROOT / "tests" / "old_runs" / "replicas" / "finished")
    with pytest.raises(ValueError, match=r"must have the shape \(3, batch, d\), got \(5, 2\)"):
        model(torch.ones(5, 2), torch.tensor([0.0, 1.0]))
