"""Check that a run with `weights=FOLDER` has the model of the run from whose weights it starts."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from neuralode_exp.config.errors import ConfigError, Mistake, spell
from neuralode_exp.config.identity import WEIGHTS, read_keys
from neuralode_exp.config.schema import Config
from neuralode_exp.config.validation import stored_config

OF_WEIGHTS = {"dataset.kind", "model.name", "model.field", "model.order", "model.augment", "model.features"}
OF_WEIGHTS |= {"model.channels", "model.blocks", "model.hidden", "model.width", "model.depth", "model.layers"}


def wrong_weights(config: Config) -> list[Mistake]:
    """Return what is wrong with the folder in `weights`."""
    if config.weights is None:
        return []
    path = Path(config.weights) / WEIGHTS
    if not path.is_file():
        fix = f"it must hold {WEIGHTS}; a relative path starts at {Path.cwd()}"
        return [Mistake("weights", "must be the folder of a run with weights", config.weights, fix)]
    theirs, ours = _structure_at(Path(config.weights).absolute(), path.stat().st_mtime_ns), _structure(config)
    differ = [key for key in theirs if key in ours and theirs[key] != ours[key]]
    fix = "the model must be the same, and all else may differ"
    got = ", ".join(f"{key}={spell(theirs[key])}, not {spell(ours[key])}" for key in differ)
    rule = "must be of a run with the same model"
    return [Mistake("weights", rule, f"{config.weights} with {got}", fix)] if differ else []


@cache  # all cells of a grid start from the same weights
def _structure_at(folder: Path, _changed: int) -> dict[str, Any]:
    """Return `_structure` of a run; nothing for weights without their config, or of another version, which may fit."""
    try:
        return _structure(stored_config(folder))
    except (FileNotFoundError, ConfigError):
        return {}


def _structure(config: Config) -> dict[str, Any]:
    """Return the keys that shape a model's weights, without those that are null and that the field fills in."""
    values = {key: value for key, value in read_keys(config).items() if key in OF_WEIGHTS and value is not None}
    return values | ({"model.name": "rknet"} if config.model.name == "odenet" else {})  # the same network
