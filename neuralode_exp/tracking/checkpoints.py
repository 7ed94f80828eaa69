"""Checkpoints of tensors and plain values. A checkpoint is complete or absent, never partial."""

import io
import pickle
import random
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from neuralode_exp.tracking.whole_files import write_whole

# Types must match exactly: a numpy.float64 is a float for isinstance, but torch refuses to load it.
LEAVES = (torch.Tensor, torch.nn.Parameter, type(None), bool, int, float, str, bytes)


class CheckpointError(RuntimeError):
    """A checkpoint is missing, damaged or not from this program."""


def save(path: Path | str, state: dict[str, Any]) -> None:
    """Write `state` to `path`. The old file stays until the new one is complete on the disk.

    Args:
        path: the file, in a folder that exists.
        state: tensors, numbers, strings, None, and dicts, lists and tuples of them.

    Raises:
        TypeError: the state has a value of another type, which torch would refuse to load.
        OSError: the disk is full or not writable.
    """
    _check_plain(state, "state")
    # Written as bytes, because torch.save reports a failed write as a RuntimeError, but a file as an OSError.
    archive = io.BytesIO()
    torch.save(state, archive)
    path = Path(path)
    try:
        write_whole(path, archive.getbuffer(), sync=True)
    except OSError as error:
        kept = "the previous one is kept" if path.exists() else "there is none"
        reason = f"{error.strerror}: the checkpoint was not written, {kept}; make room or choose another folder"
        raise OSError(error.errno, reason, str(path)) from error


def load(path: Path | str, map_location: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint, and put its tensors on the device `map_location`.

    Raises:
        CheckpointError: the file is missing or damaged, or holds more than tensors and plain values.
    """
    try:
        # torch does not verify the archive's check sums.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise zipfile.BadZipFile(f"{damaged} has a wrong check sum")
        state: dict[str, Any] = torch.load(path, map_location=map_location, weights_only=True)
    except (OSError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        if isinstance(error, OSError):
            reason = error.strerror
        elif isinstance(error, pickle.UnpicklingError):
            reason = "it holds more than tensors and plain values"
        else:
            reason = "it is damaged"
        fix = "resume from another checkpoint or start the run again"
        raise CheckpointError(f"Checkpoint {path} cannot be read: {reason}; {fix}.") from error
    return state


def rng_state() -> dict[str, Any]:
    """Return the states of the random generators of torch, NumPy, Python and, if they are in use, the GPUs."""
    legacy = np.random.get_state(legacy=False)  # noqa: NPY002 - what scipy and others draw from
    assert isinstance(legacy, dict)
    version, words, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": {
            "key": torch.from_numpy(legacy["state"]["key"].astype(np.int64)),
            "position": int(legacy["state"]["pos"]),
            "has_gauss": int(legacy["has_gauss"]),
            "gauss": float(legacy["gauss"]),
        },
        "python": {"version": version, "words": torch.tensor(words), "gauss": gauss},
    }


def restore_rng_state(state: dict[str, Any]) -> None:
    """Restore the states that `rng_state` returned, those of GPUs as far as this machine has them."""
    # Generators need their state on the CPU, but the checkpoint may be on another device.
    torch.set_rng_state(state["torch"].cpu())
    for index, words in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(words.cpu(), index)
    legacy = state["numpy"]
    key = legacy["key"].cpu().numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, legacy["position"], legacy["has_gauss"], legacy["gauss"]))  # noqa: NPY002
    python = state["python"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))


def _check_plain(value: Any, place: str) -> None:
    if type(value) in (dict, OrderedDict):
        for key, entry in value.items():
            _check_plain(key, f"{place} key {key!r}")
            _check_plain(entry, f"{place}[{key!r}]")
    elif type(value) in (list, tuple):
        for index, entry in enumerate(value):
            _check_plain(entry, f"{place}[{index}]")
    elif type(value) not in LEAVES:
        raise TypeError(
            "A checkpoint holds tensors and plain values, "
            f"got {type(value).__module__}.{type(value).__qualname__} at {place}; convert it."
        )
