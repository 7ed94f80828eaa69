"""Read the user's own images from an npz file with the arrays x_train, y_train, x_test and y_test, without torch."""

import math
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

NAMES = ("x_train", "y_train", "x_test", "y_test")
SMALLEST = 5  # pixels a side; the convolutions of the stem leave one pixel of them


class Fault(NamedTuple):
    """A fault of a file: the part of the file, the rule, what was got, and the fix."""

    what: str
    rule: str
    got: str
    fix: str


class WrongFile(ValueError):
    """A file does not hold images and labels. `faults` lists all that is wrong."""

    def __init__(self, path: Path, faults: list[Fault]) -> None:
        self.faults = faults
        super().__init__(f"{path}: " + "; ".join(f"{what} {rule}, got {got}" for what, rule, got, _ in faults))


class Arrays(NamedTuple):
    """Images, shape (n, h, w, c), uint8 or float32, and their labels, shape (n,), int64, from 0 to k - 1."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def read_npz_images(path: str | Path) -> Arrays:
    """Read images and labels.

    Args:
        path: an npz file. x_train and x_test are uint8 or floats, shape (n, h, w) or (n, h, w, c); y_train and y_test
            are whole numbers from 0 up, shape (n,) or (n, 1).

    Raises:
        WrongFile: the file is wrong. It lists all faults.
    """
    path = Path(path)
    arrays = _read(path)
    faults = [*_of_images(arrays), *_of_labels(arrays)]
    if faults:
        raise WrongFile(path, faults)
    x_train, x_test = (_with_channels(arrays[name]) for name in ("x_train", "x_test"))
    y_train, y_test = (arrays[name].reshape(-1).astype(np.int64) for name in ("y_train", "y_test"))
    return Arrays(x_train, y_train, x_test, y_test)


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise WrongFile(path, [Fault("", "must name a file", str(path), f"relative paths start in {Path.cwd()}")])
    fix = "write it by np.savez_compressed(FILE, x_train=..., y_train=..., x_test=..., y_test=...)"
    try:
        loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise WrongFile(path, [Fault("", "must be an npz file", f"one array in {path}", fix)])
        with loaded as file:
            missing = [name for name in NAMES if name not in file.files]
            if missing:
                got = f"{path} with {', '.join(file.files) or 'nothing'}"
                raise WrongFile(path, [Fault("", f"must hold {', '.join(missing)}", got, fix)])
            return {name: file[name] for name in NAMES}
    except WrongFile:
        raise
    # An array of Python objects, which could run code, raises a ValueError too.
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise WrongFile(path, [Fault("", "must be an npz file of plain numbers", f"{path} ({reason})", fix)]) from error


def _of_images(arrays: dict[str, np.ndarray]) -> list[Fault]:
    faults = []
    for name in ("x_train", "x_test"):
        x = arrays[name]
        if x.dtype != np.uint8 and x.dtype.kind != "f":
            faults.append(Fault(name, "must be uint8 or floats", str(x.dtype), f"store {name}.astype('uint8')"))
        elif x.ndim not in (3, 4) or 0 in x.shape:
            faults.append(Fault(name, "must have the shape (n, h, w) or (n, h, w, c)", str(x.shape), "reshape it"))
        elif min(x.shape[1:3]) < SMALLEST:
            rule = f"must have {SMALLEST} pixels a side at least"
            faults.append(Fault(name, rule, f"{x.shape[1]} x {x.shape[2]}", "enlarge the images"))
        elif x.dtype.kind == "f" and not np.isfinite(x).all():
            got = f"{np.count_nonzero(~np.isfinite(x))} pixels that are not"
            faults.append(Fault(name, "must be finite", got, "leave those images out"))
    if faults:
        return faults
    train, test = (_with_channels(arrays[name]) for name in ("x_train", "x_test"))
    if train.shape[1:] != test.shape[1:]:
        got = f"{_size(test)} in x_test and {_size(train)} in x_train"
        faults.append(Fault("x_test", "must have images of the size of x_train's", got, "crop or scale them"))
    constant = [str(i + 1) for i in range(train.shape[3]) if train[..., i].min() == train[..., i].max()]
    if constant:
        got = f"one value in channel {', '.join(constant)}"
        faults.append(Fault("x_train", "must vary in each channel", got, "leave the channel out"))
    return faults


def _of_labels(arrays: dict[str, np.ndarray]) -> list[Fault]:
    faults = []
    for name, images in (("y_train", "x_train"), ("y_test", "x_test")):
        y, n = arrays[name], len(arrays[images]) if arrays[images].ndim else 0
        if y.dtype.kind not in "iu":
            faults.append(Fault(name, "must be whole numbers", str(y.dtype), f"store {name}.astype('int64')"))
        elif y.shape not in ((n,), (n, 1)):
            rule = f"must have one label for each of the {n} images of {images}, shape ({n},)"
            faults.append(Fault(name, rule, str(y.shape), "store the number of the class of each"))
    if faults:
        return faults
    seen, fix = np.unique(arrays["y_train"]), "number the classes from 0 up without a gap"
    if len(seen) < 2 or seen[0] != 0 or seen[-1] != len(seen) - 1:
        got = f"{', '.join(map(str, seen[:8]))}{', ...' if len(seen) > 8 else ''}"
        return [Fault("y_train", "must hold the classes 0, 1, ..., k - 1, two or more", got, fix)]
    unknown = np.setdiff1d(arrays["y_test"], seen)
    if len(unknown):
        got = ", ".join(map(str, unknown[:8]))
        return [Fault("y_test", f"must hold classes of y_train, 0 to {len(seen) - 1}", got, fix)]
    return []


def _with_channels(x: np.ndarray) -> np.ndarray:
    x = x[..., None] if x.ndim == 3 else x
    return x if x.dtype == np.uint8 else x.astype(np.float32)


def _size(x: np.ndarray) -> str:
    return " x ".join(map(str, x.shape[1:]))


def n_held_out(fraction: float, n: int) -> int:
    """Return how many of n training images are held out by a fraction, rounded up."""
    return math.ceil(fraction * n)
