"""Whole runs on a CUDA device, a few steps of each kind of data."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from neuralode_exp.config import Config
from neuralode_exp.load import load_run
from neuralode_exp.run import run
from neuralode_exp.tracking.summary import read_summary
from tests.conftest import TINY_IMAGES

pytestmark = pytest.mark.cuda
DEVICE = "cuda"
SHORT = ("trainer.max_steps=4", "trainer.evaluate_every=2", f"device={DEVICE}", "figures=false")
IMAGES = (*TINY_IMAGES, "dataset.test=64", "model.channels=8", "solver=rk4")
DYNAMICS = ("dataset.trajectories=10", "dataset.points=20")
DENSITY = ("dataset=eight-gaussians", "trainer.batch_size=64", "dataset.validation=64", "dataset.test=64")
RUNS = {
    "mlp": (*IMAGES, "model=mlp"),
    "resnet": (*IMAGES, "model=resnet", "precision=bf16"),
    "odenet": (*IMAGES, "model=odenet", "model.gradient=checkpoint"),
    "augmented": (*IMAGES, "model=stem", "dataset.shift=3", "dataset.rotate=10", "dataset.stretch=0.1"),
    "dynamics": DYNAMICS,
    "residual map": (*DYNAMICS, "model=resnet"),
    "replicas": (*DYNAMICS, "trainer.replicas=8"),
    "reversible": (*DYNAMICS, "model.gradient=reversible"),
    "torchdiffeq": (*DYNAMICS, "solver.engine=torchdiffeq"),
    "flow": (*DENSITY, "model=rknet"),
    "hutchinson": (*DENSITY, "model.trace=hutchinson"),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_ends_with_finite_metrics(name: str, tmp_path: Path, compose: Callable[..., Config]) -> None:
    config = compose(*RUNS[name], *SHORT)
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "config.yaml").write_text(config.model_dump_json())
    run(config, tmp_path, config.model_dump(mode="json"), bar=False)
    summary = read_summary(tmp_path)
    assert summary is not None
    assert summary["status"] == "completed"
    metrics = summary["metrics"]
    assert all(math.isfinite(value) for value in metrics.values()), metrics
    assert metrics["memory/peak_device_mib"] > 0
    assert metrics["memory/peak_mib"] > 0
    model, _ = load_run(tmp_path)
    assert next(model.parameters()).device == torch.device("cpu")
