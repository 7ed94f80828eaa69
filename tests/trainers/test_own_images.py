"""Own images from a file to a trained network: scikit-learn's digits, 8 x 8, or a made set without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from neuralode_exp.config import Config, ConfigError
from neuralode_exp.config.preflight import preflight
from neuralode_exp.load import load_run
from neuralode_exp.run import run
from neuralode_exp.tracking.summary import read_summary
from tests.runs import train_in

GOAL = 3.0  # %, of 100 test images; measured: 0.6 to 1.9 % of 160 over two seeds


def digits() -> tuple[np.ndarray, np.ndarray]:
    """1,797 handwritten digits, or as many noisy crosses in ten places."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        rng, y = np.random.default_rng(0), np.arange(1797) % 10
        images = rng.normal(0, 30, (1797, 8, 8))
        for image, k in zip(images, y, strict=True):
            row, column = divmod(k, 4)
            image[2 * row + 1, :] += 120
            image[:, 2 * column] += 120
        return images.clip(0, 255).astype(np.uint8), y
    found = load_digits()
    return (found.images * 15).astype(np.uint8), found.target


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x, y = digits()
    order, path = np.random.default_rng(0).permutation(len(x)), tmp_path_factory.mktemp("images") / "digits.npz"
    a, b = order[:1437], order[1437:1537]
    np.savez_compressed(path, x_train=x[a], y_train=y[a], x_test=x[b], y_test=y[b])
    return path


@pytest.mark.parametrize(
    "words", [("model=resnet", "model.blocks=2"), ("model=odenet", "model.gradient=checkpoint", "solver=rk4")]
)
def test_digits_are_learned(tmp_path: Path, path: Path, compose: Callable[..., Config], words: tuple[str, ...]) -> None:
    few = (
        "trainer.epochs=3",
        "trainer.batch_size=32",
        "model.channels=32",
        "solver.step_size=1",
        "device=cpu",
        "threads=1",
        "figures=false",
    )
    config = compose("dataset=images", f"dataset.path={path}", *few, *words)
    run(config, tmp_path, config.model_dump(mode="json"), bar=False)
    summary = read_summary(tmp_path)
    assert summary is not None
    assert summary["metrics"]["error/test"] <= GOAL


def test_the_folder_alone_gives_the_model_back(tmp_path: Path, compose: Callable[..., Config]) -> None:
    rng, file = np.random.default_rng(0), tmp_path / "oblong.npz"
    x, y = rng.normal(size=(40, 12, 9, 2)), np.arange(40) % 4
    np.savez(file, x_train=x, y_train=y, x_test=x[:7], y_test=y[:7])
    few = ("dataset.shift=1", "dataset.rotate=10", "trainer.batch_size=8", "model.channels=8", "trainer.max_steps=2")
    config = compose("dataset=images", f"dataset.path={file}", "model=odenet", *few, "device=cpu")
    train_in(tmp_path / "run", config)
    file.unlink()
    model, _ = load_run(tmp_path / "run")
    assert model(torch.randn(3, 2, 12, 9)).shape == (3, 4)


def test_a_wrong_file_ends_before_anything_is_written(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused("dataset=images", f"dataset.path={path}", "trainer.batch_size=2000", "dataset.shift=9") == [
        "trainer.batch_size must be at most the 1293 training images, got 2000; 1437 are in the file, "
        "dataset.validation=0.1 holds some of them out",
        "dataset.shift must be below the 8 pixels of an image, got 9; 0 is off",
    ]
    np.savez(tmp_path / "two.npz", x_train=np.zeros((3, 8, 8), np.int64), y_train=1, x_test=1.0, y_test=1.0)
    assert [line.partition(", got")[0] for line in refused("dataset=images", "dataset.path=two.npz")] == [
        "dataset.path=two.npz: x_train must be uint8 or floats",
        "dataset.path=two.npz: x_test must have the shape (n, h, w) or (n, h, w, c)",
        "dataset.path=two.npz: y_train must have one label for each of the 3 images of x_train, shape (3,)",
        "dataset.path=two.npz: y_test must be whole numbers",
    ]
    assert not (tmp_path / "outputs").exists()


def refused(*words: str) -> list[str]:
    """What is wrong with a request, line by line."""
    with pytest.raises(ConfigError) as caught:
        preflight(words)
    return str(caught.value).splitlines()
