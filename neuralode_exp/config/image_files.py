"""Check a file of the user's own images, and the keys that depend on it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from neuralode_exp.config.errors import Mistake, spell
from neuralode_exp.config.schema import TRAINING_IMAGES, Config, ImagesKeys, OwnImagesKeys, Trainer
from neuralode_exp.data.npz_images import Fault, WrongFile, n_held_out, read_npz_images


def steps_per_epoch(config: Config) -> int:
    """Return the training steps in one pass over the training images. An incomplete batch is left out."""
    dataset = config.dataset
    if isinstance(dataset, OwnImagesKeys):
        n = _read(Path(dataset.path))[1]
        n_train = n - n_held_out(dataset.validation, n)
    else:
        assert isinstance(dataset, ImagesKeys)
        n_train = TRAINING_IMAGES - dataset.validation
    return min(n_train, dataset.train or n_train) // config.trainer.batch_size


def of_own_images(dataset: OwnImagesKeys, trainer: Trainer) -> list[Mistake]:
    """Return all mistakes that would end the run before its first step."""
    faults, n, _, shape = _read(Path(dataset.path))
    side = min(shape[:2])
    if faults:
        of_file = f"dataset.path={dataset.path}: "
        return [Mistake(of_file + fault.what if fault.what else "dataset.path", *fault[1:]) for fault in faults]
    mistakes = []
    n_train = n - n_held_out(dataset.validation, n)
    if dataset.train is not None and dataset.train > n_train:
        rule = f"must be at most the {n_train} images that are not held out"
        mistakes.append(Mistake("dataset.train", rule, spell(dataset.train), "null takes all"))
    n_train = min(n_train, dataset.train or n_train)
    if trainer.batch_size > n_train:
        rule = f"must be at most the {n_train} training images"
        fix = f"{n} are in the file, dataset.validation={spell(dataset.validation)} holds some of them out"
        mistakes.append(Mistake("trainer.batch_size", rule, spell(trainer.batch_size), fix))
    if dataset.shift >= side:
        rule = f"must be below the {side} pixels of an image"
        mistakes.append(Mistake("dataset.shift", rule, spell(dataset.shift), "0 is off"))
    return mistakes


def sizes(path: str) -> tuple[int, tuple[int, int, int]]:
    """Return the bytes of all images of a file, and (height, width, channels) of one; all 0 if the file is wrong."""
    _, _, n_bytes, shape = _read(Path(path))
    return n_bytes, shape


def _read(path: Path) -> tuple[tuple[Fault, ...], int, int, tuple[int, int, int]]:
    """Return the faults of a file, its number of training images, the bytes of all, and one image's shape."""
    return _look(path, path.stat().st_mtime_ns if path.is_file() else 0)


@lru_cache
def _look(path: Path, changed: int) -> tuple[tuple[Fault, ...], int, int, tuple[int, int, int]]:
    """As `_read`; `changed` is the time of the last change, so that the cache notices a new file."""
    try:
        x_train, _, x_test, _ = read_npz_images(path)
    except WrongFile as error:
        return tuple(error.faults), 0, 0, (0, 0, 0)
    height, width, channels = x_train.shape[1:]
    return (), len(x_train), x_train.nbytes + x_test.nbytes, (height, width, channels)
