"""What is said of a density, against the closed forms of a flow that moves nothing: a standard normal."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from neuralode_exp.build import build_task
from neuralode_exp.config import Config
from neuralode_exp.trainers.density.task import DensityEstimation

Compose = Callable[..., Config]
SMALL = ("model=rknet", "solver=rk4", "model.width=4", "trainer.batch_size=16", "precision=float64", "figures=false")


def standing(config: Config) -> DensityEstimation:
    """The task with a field of zeros."""
    task = build_task(config, torch.device("cpu"))
    assert isinstance(task, DensityEstimation)
    with torch.no_grad():
        for parameter in task.module.parameters():
            parameter.zero_()
    task.module.eval()
    return task


def test_the_likelihood_of_points_is_in_their_units(tmp_path: Path, compose: Compose) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal([100.0, -3.0], [50.0, 0.2], (4000, 2))
    np.save(tmp_path / "points.npy", x)
    task = standing(compose("dataset=points", f"dataset.path={tmp_path}/points.npy", *SMALL))
    with torch.no_grad():
        values = task.evaluate()
        final = task.final()
    mean, std = task.target.offset.numpy(), task.target.unit.numpy()
    assert std == pytest.approx([50.0, 0.2], rel=0.05)
    for held_out, nll in ((task.validation, values["density/validation_nll"]), (task.test, final["density/nll"])):
        z = held_out.numpy()  # in the flow's units: mean 0, deviation 1
        given = mean + std * z
        log_p = (-0.5 * ((given - mean) / std) ** 2 - np.log(std) - 0.5 * math.log(2 * math.pi)).sum(1)
        assert nll == pytest.approx(-log_p.mean())
    standardised = (0.5 * task.validation.numpy() ** 2 + 0.5 * math.log(2 * math.pi)).sum(1).mean()
    assert values["loss/validation"] == pytest.approx(standardised)
    assert "density/kl" not in final


def test_kl_is_a_mean_with_its_standard_error(compose: Compose) -> None:
    words = ("dataset=gaussian", "dataset.dim=3", "dataset.test=400", "dataset.validation=300")
    task = standing(compose(*words, *SMALL))
    with torch.no_grad():
        values, final = task.evaluate(), task.final()
    for x, kl, error in (
        (task.validation, values["density/validation_kl"], values["density/validation_kl_standard_error"]),
        (task.test, final["density/kl"], final["density/kl_standard_error"]),
    ):
        log_true = task.target.log_prob(x).numpy()
        log_model = (-0.5 * x.numpy() ** 2 - 0.5 * math.log(2 * math.pi)).sum(1)
        assert kl == pytest.approx((log_true - log_model).mean())
        assert error == pytest.approx((log_true - log_model).std(ddof=1) / math.sqrt(len(x)))
    assert "density/kl" not in values
