"""The estimate of a run's memory: against what was measured, and which key it names."""

from __future__ import annotations

import shlex

import pytest
import torch

from neuralode_exp.build import build_task
from neuralode_exp.config import Config
from neuralode_exp.config.kinds import KINDS
from neuralode_exp.config.memory import SPARING, size, too_large
from neuralode_exp.tracking.memory import MIB, AllocatedBytes
from neuralode_exp.trainers.optimisation import make_optimizer
from tests.conftest import SAMPLE

MNIST = f"dataset=mnist dataset.root={SAMPLE} dataset.validation=64 dataset.test=64 model.channels=32 "
GAUSSIAN = "dataset=gaussian dataset.dim=16 dataset.validation=64 dataset.test=64 trainer.batch_size=128 solver=rk4 "
WINDOWS = "trainer.batch_size=2048 model.width=128 dataset.trajectories=8 solver=rk4 "
MEASURED = (
    "",
    "trainer.replicas=8",
    "model.width=1024 trainer.batch_size=32 dataset.trajectories=8",
    "dataset.points=1000 precision=float64",
    f"{WINDOWS} model=rknet",
    f"{WINDOWS} model=odenet",
    f"{WINDOWS} model=odenet model.gradient=checkpoint",
    f"{WINDOWS} model=resnet",
    "trainer.shooting=single model=rknet solver=rk4 dataset.trajectories=16",
    f"{GAUSSIAN} model=rknet",
    f"{GAUSSIAN} model=odenet",
    f"{GAUSSIAN} model=odenet model.gradient=checkpoint",
    "dataset=two-moons model=rknet dataset.validation=1000 dataset.test=1000",
    f"{MNIST} model=mlp model.hidden=10000",
    f"{MNIST} model=resnet",
    f"{MNIST} model=rknet solver=rk4",
    f"{MNIST} model=odenet solver=rk4",
    f"{MNIST} model=odenet solver=rk4 precision=bf16",
    f"{MNIST} model=resnet precision=bf16",
)


def measured(config: Config) -> float:
    """Most bytes of tensors while a task is made, takes a training step and is evaluated."""
    with AllocatedBytes() as allocated:
        task = build_task(config, torch.device("cpu"))
        optimizer = make_optimizer(task.module, config.trainer)
        for step in (1, 2):
            task.loss(step).sum().backward()
            optimizer.step()
            optimizer.zero_grad()
        task.module.eval()
        with torch.no_grad():
            task.evaluate()
    return allocated.peak_bytes


@pytest.mark.parametrize("words", MEASURED)
def test_the_estimate_is_within_a_factor_of_two(words: str, compose) -> None:
    config = compose(*shlex.split(words))
    estimated, peak = KINDS[config.dataset.kind].memory(config), measured(config)
    assert peak / 2 < estimated < 2 * peak, f"{estimated / MIB:.1f} MiB for {peak / MIB:.1f}"


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        ("", "trainer.replicas", 100_000),
        ("", "model.width", 1_000_000),
        ("", "dataset.points", 1_000_000_000),
        ("dataset=gaussian", "dataset.dim", 100_000),
        ("dataset=mnist model=resnet", "model.channels", 320_000),
        ("dataset=two-moons", "dataset.noise", 1e-9),
    ],
)
def test_what_it_says_fits_does_fit(words: str, key: str, value: float, compose) -> None:
    available = 16 * 1024 * MIB
    config = compose(*words.split(), f"{key}={value}")
    formula = KINDS[config.dataset.kind].memory
    mistake = too_large(config, formula, available)
    assert mistake is not None
    assert mistake.key == key
    fits = str(mistake.fix).removesuffix(" fits")
    assert too_large(compose(*words.split(), f"{key}={fits}"), formula, available) is None
    assert 0.9 * available < formula(compose(*words.split(), f"{key}={fits}")) < available


def test_of_two_keys_that_are_too_large_neither_helps_alone(compose) -> None:
    config = compose("trainer.replicas=1000000000", "model.width=1000000")
    mistake = too_large(config, KINDS["dynamics"].memory, 2**34)
    assert (mistake.key, mistake.fix) == ("trainer.replicas", "change it, and others too")


def test_every_key_of_the_table_is_one(compose) -> None:
    configs = [compose(f"dataset={name}") for name in ("mnist", "circle", "gaussian", "pinwheel")]
    for key in SPARING:
        section, name = key.split(".")
        assert any(hasattr(getattr(config, section), name) for config in configs)


@pytest.mark.parametrize(("n", "text"), [(0, "0 B"), (1023, "1023 B"), (2**20, "1 MiB"), (1.5 * 2**40, "1.5 TiB")])
def test_bytes_have_a_unit_that_suits_them(n: float, text: str) -> None:
    assert size(n) == text
