"""Labelled points: how they are drawn, and the networks that separate them; zeros beside a state."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from neuralode_exp.build import build_model
from neuralode_exp.config import Config, ConfigError
from neuralode_exp.config.preflight import preflight
from neuralode_exp.data.annuli import annuli
from neuralode_exp.load import restore_weights
from neuralode_exp.models.classifier import Blocks, ODEBlock
from neuralode_exp.models.fields.mlp import MLPField
from neuralode_exp.models.images import ConvNet, image_model
from neuralode_exp.models.shape import Shape
from neuralode_exp.models.vectors import EulerStep, VectorNet
from neuralode_exp.ode import make_method
from neuralode_exp.run import run
from neuralode_exp.tracking.figures.labels import seen_along
from neuralode_exp.tracking.summary import read_summary


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_annuli_are_uniform_between_their_radii(dim: int) -> None:
    data = annuli(dim=dim, r1=0.5, r2=1.0, r3=1.5, train=20_000, validation=10, test=10)
    x, labels = data.train
    size = x.norm(dim=1)
    inner, outer = size[labels == 0], size[labels == 1]
    assert inner.max() <= 0.5 + 1e-6
    assert outer.min() >= 1.0 - 1e-6
    assert outer.max() <= 1.5 + 1e-6
    assert labels.float().mean() == pytest.approx(0.5, abs=0.02)
    # Of uniform points the mean of |x|^d is the middle of its range.
    assert (outer**dim).mean() == pytest.approx((1.0 + 1.5**dim) / 2, rel=0.01)
    assert x.mean(0).abs().max() < 0.03
    again = annuli(dim=dim, train=20_000, validation=50, test=20).train
    assert torch.equal(again.images, x)
    assert torch.equal(annuli(dim=dim, train=5, validation=10).validation.images, data.validation.images)


def test_one_block_is_one_euler_step_of_the_ode() -> None:
    field, x = MLPField(3, width=8), torch.randn(7, 2)
    euler = VectorNet(2, 4, ODEBlock(field, make_method("euler", step_size=1.0), "backprop"), augment=1)
    blocks = VectorNet(2, 4, Blocks([EulerStep(field)]), augment=1)
    blocks.classifier.load_state_dict(euler.classifier.state_dict())
    torch.testing.assert_close(blocks(x), euler(x))
    assert torch.equal(euler.features(x), torch.cat((x, torch.zeros(7, 1)), 1))
    with pytest.raises(ValueError, match="points must be floats of shape"):
        euler(torch.randn(7, 3))


@pytest.mark.parametrize("name", ["odenet", "resnet"])
def test_images_get_channels_of_zeros(name: str) -> None:
    torch.manual_seed(0)
    model = image_model(name, method=make_method("rk4", step_size=1.0), channels=6, blocks=1, augment=2)
    assert isinstance(model, ConvNet)
    x = torch.randn(3, 1, 28, 28)
    features = model.features(x)
    assert features.shape == (3, 8, 6, 6)
    assert not features[:, 6:].any()
    assert torch.equal(features[:, :6], model.stem(x))
    assert model.body(features)[:, 6:].abs().max() > 0  # what was 0 takes part
    assert model(x).shape == (3, 10)


@pytest.mark.parametrize("model", ["odenet", "resnet"])
def test_one_more_dimension_separates_what_is_encircled(
    model: str, tmp_path: Path, compose: Callable[..., Config]
) -> None:
    augment = ("model.augment=1", "solver=rk4", "solver.step_size=0.5") if model == "odenet" else ("model.blocks=2",)
    config = compose("dataset=annuli", f"model={model}", *augment, "model.width=16", "trainer.epochs=10")
    (tmp_path / "run").mkdir()
    run(config, tmp_path / "run", config.model_dump(mode="json"))
    summary = read_summary(tmp_path / "run")
    assert summary is not None
    assert summary["metrics"]["error/test"] < 1.0
    assert list((tmp_path / "run").glob("figures/*states*"))
    network = build_model(config, Shape(2, classes=2))
    restore_weights(network, tmp_path / "run")
    test = annuli(test=1000).test
    assert 100 * (network(test.images).argmax(1) != test.labels).float().mean() < 2.0


def test_states_are_seen_along_the_direction_that_decides() -> None:
    z, direction = torch.randn(50, 2).numpy(), torch.tensor([3.0, 4.0]).numpy()
    seen = seen_along(z, direction)
    np.testing.assert_allclose(seen[:, 0], z @ direction / 5, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(seen, axis=1), np.linalg.norm(z, axis=1), rtol=1e-5)  # turned, no more


WRONG = {
    "dataset=circle model.augment=1": "model.augment adds dimensions without data",
    "dataset=torus model.augment=1": "model.augment has no density",
    "dataset=mnist model=stem model.channels=16 model.augment=1": "model.augment is for networks with blocks",
    "dataset=mnist model.augment=1": "model.augment and model.channels together must be at most 32",
    "dataset=annuli model.field=hamiltonian model.augment=1": "model.field=hamiltonian has as many momenta",
    "dataset=annuli model=stem": "model=stem is made of convolutions",
    "dataset=annuli dataset.r1=1": "dataset.r1 must be below dataset.r2",
    "dataset=annuli trainer.batch_size=4000": "trainer.batch_size must be at most the 3000 training points",
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_request_is_one_line(words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        preflight(words.split())
    assert str(caught.value).startswith(WRONG[words])
    assert "\n" not in str(caught.value)
