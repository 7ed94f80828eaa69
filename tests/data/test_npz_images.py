"""The user's own images: what a file may hold, and one line for each thing that is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neuralode_exp.data.images import load_images, random_warp
from neuralode_exp.data.npz_images import WrongFile, read_npz_images

RNG = np.random.default_rng(0)


def arrays(**others: Any) -> dict[str, np.ndarray]:
    """Ten and four colour images of 6 x 7 pixels in three classes."""
    x = RNG.integers(0, 256, (14, 6, 7, 3), dtype=np.uint8)
    y = np.arange(14) % 3
    return {"x_train": x[:10], "y_train": y[:10], "x_test": x[10:], "y_test": y[10:]} | others


def written(folder: Path, **others: Any) -> Path:
    np.savez_compressed(folder / "images.npz", **arrays(**others))
    return folder / "images.npz"


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float64])
def test_images_are_normalised_by_the_training_set_alone(tmp_path: Path, dtype: type) -> None:
    x = (RNG.normal(size=(2500, 6, 7, 2)) * [20, 3] + [100, 50]).clip(0, 255).astype(dtype)
    y = np.arange(2500) % 4
    path = written(tmp_path, x_train=x, y_train=y[:, None], x_test=x[:9] // 2, y_test=y[:9])
    data = load_images(path, validation=0.1)
    sizes = [(*split.images.shape, len(split.labels)) for split in (data.train, data.validation, data.test)]
    assert sizes == [(2250, 2, 6, 7, 2250), (250, 2, 6, 7, 250), (9, 2, 6, 7, 9)]
    assert data.classes == 4
    assert data.train.images.dtype == (torch.uint8 if dtype is np.uint8 else torch.float32)
    normalised = data.normalise(data.train.images).double()
    std, mean = torch.std_mean(normalised, (0, 2, 3), correction=0)
    assert torch.allclose(mean, torch.zeros(2, dtype=torch.float64), atol=1e-5)
    assert torch.allclose(std, torch.ones(2, dtype=torch.float64), atol=1e-5)
    assert torch.equal(data.test.images[:, 1], torch.from_numpy(x[:9] // 2)[..., 1].to(data.test.images.dtype))


def test_grey_images_need_no_axis_of_channels(tmp_path: Path) -> None:
    path = written(tmp_path, x_train=arrays()["x_train"][..., 0], x_test=arrays()["x_test"][..., 0])
    assert load_images(path, validation=0).train.images.shape == (10, 1, 6, 7)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"x_train": np.zeros((10, 6, 7, 3), np.int64)}, "x_train must be uint8 or floats, got int64"),
    ({"x_test": np.zeros((4, 6), np.uint8)}, r"x_test must have the shape \(n, h, w\) or \(n, h, w, c\), got \(4, 6\)"),
    ({"x_test": np.zeros((4, 4, 7, 3), np.uint8)}, "x_test must have 5 pixels a side at least, got 4 x 7"),
    ({"x_test": np.full((4, 6, 7, 3), np.nan)}, "x_test must be finite, got 504 pixels that are not"),
    ({"x_test": np.zeros((4, 8, 7, 3), np.uint8)}, "of the size of x_train's, got 8 x 7 x 3 in x_test and 6 x 7 x 3"),
    ({"x_train": np.ones((10, 6, 7, 3))}, "x_train must vary in each channel, got one value in channel 1, 2, 3"),
    ({"y_train": np.zeros(10)}, "y_train must be whole numbers, got float64"),
    ({"y_train": np.arange(9) % 3}, r"y_train must have one label for each of the 10 images .* got \(9,\)"),
    ({"y_train": np.arange(10) % 3 + 1}, r"y_train must hold the classes 0, 1, ..., k - 1, .* got 1, 2, 3"),
    ({"y_test": np.array([0, 1, 2, 3])}, "y_test must hold classes of y_train, 0 to 2, got 3"),
]


@pytest.mark.parametrize(("others", "line"), WRONG)
def test_a_wrong_array_is_one_line(tmp_path: Path, others: dict[str, Any], line: str) -> None:
    with pytest.raises(WrongFile, match=line) as raised:
        read_npz_images(written(tmp_path, **others))
    assert len(raised.value.faults) == 1


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    path = written(tmp_path, x_train=np.zeros((10, 6, 7, 3), np.int64), y_test=np.zeros(4))
    with pytest.raises(WrongFile) as raised:
        read_npz_images(path)
    assert [fault.what for fault in raised.value.faults] == ["x_train", "y_test"]


def test_what_is_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(WrongFile, match="must name a file, got"):
        read_npz_images(tmp_path / "none.npz")
    text, array, few = tmp_path / "text.npz", tmp_path / "array.npz", tmp_path / "few.npz"
    text.write_text("x_train")
    with array.open("wb") as file:
        np.save(file, np.zeros(3))
    np.savez(few, x_train=np.zeros(3))
    cut = tmp_path / "cut.npz"
    cut.write_bytes(written(tmp_path).read_bytes()[:-100])
    objects = written(tmp_path, y_test=np.array([{}], dtype=object))
    for path, line in [
        (text, "must be an npz file of plain numbers"),
        (cut, "must be an npz file of plain numbers"),
        (objects, "must be an npz file of plain numbers"),
        (array, "must be an npz file, got one array"),
        (few, "must hold y_train, x_test, y_test, got .* with x_train"),
    ]:
        with pytest.raises(WrongFile, match=line):
            read_npz_images(path)


def test_an_oblong_image_is_turned_and_not_sheared() -> None:
    """A blob keeps its distance from the centre, in pixels."""
    down, across = torch.arange(20.0) - 9.5, torch.arange(40.0) - 19.5
    blob = torch.exp(-((down[:, None] - 0.0) ** 2 + (across[None] - 6.0) ** 2) / 8)
    for image in random_warp(blob.expand(50, 1, -1, -1), 30.0, 0.0, torch.Generator().manual_seed(0))[:, 0]:
        y, x = (image.sum(1) * down).sum() / image.sum(), (image.sum(0) * across).sum() / image.sum()
        assert float(torch.hypot(y, x)) == pytest.approx(6.0, abs=0.05)
