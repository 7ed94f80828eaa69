"""Check that a run can write to the folders that a request names."""

from __future__ import annotations

import tempfile
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from neuralode_exp.config.errors import Mistake


def wrong_output(key: str, hydra: DictConfig) -> Mistake | None:
    """Return what is wrong with a folder of Hydra's settings, `hydra.run.dir` or `hydra.sweep.dir`."""
    try:
        folder = str(OmegaConf.select(hydra, key.removeprefix("hydra.")))
    except OmegaConfBaseException as error:
        return Mistake(key, "cannot be resolved", str(error).split("\n")[0], "name a key that exists")
    return wrong_folder(key, folder)


def wrong_folder(key: str, folder: str) -> Mistake | None:
    """Return why a run cannot write to a folder, or None if it can. A trial folder is removed again."""
    if not folder:
        return Mistake(key, "must name a folder", "''", "leave it out for a new one in outputs/")
    path = Path(folder).absolute()
    try:
        there = next(parent for parent in (path, *path.parents) if parent.exists())
        if not there.is_dir():
            return Mistake(key, "must name a folder", f"{folder}, where {there} is a file", "choose another one")
        # Permissions are not enough: to the superuser, /proc and read-only disks look writable.
        with tempfile.TemporaryDirectory(prefix=".neuralode-", dir=there):
            return None
    except OSError as error:
        got = f"{folder} ({(error.strerror or str(error)).lower()})"
        return Mistake(key, "must be a folder that can be written", got, "choose another one")
