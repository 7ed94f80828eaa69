"""Load a trained run: its config, and its model with the weights by which the run was judged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from neuralode_exp.build import build_model, build_task
from neuralode_exp.config import Config, ConfigError, stored_config
from neuralode_exp.config.own import again, resuming
from neuralode_exp.models.in_user_units import InUserUnits
from neuralode_exp.models.shape import Shape
from neuralode_exp.outcome import command
from neuralode_exp.tracking import checkpoints
from neuralode_exp.tracking.summary import DamagedSummary, Summary, read_summary
from neuralode_exp.trainers import earlier

Weights = Literal["last", "best"]


class NotLoadable(ValueError):
    """The folder has no trained run that this version of the program can load."""


def load_run(
    folder: Path | str, weights: Weights = "last", *, extensions: Sequence[str | Path] = ()
) -> tuple[nn.Module, Config]:
    """Return a completed run's model on the CPU, in evaluation mode, and its config.

    The weights are those by which the run was judged: averaged ones if the run averages. The folder is enough; the data
    need not be there. What the model is called with depends on the kind of data:

    - dynamics: `model(z0, t)` takes initial states (batch, d) and times (T,) and returns states (T, batch, d); with R
      replicas it takes (R, batch, d) and returns (T, R, batch, d). For a table all are in the units of the table.
    - densities: `model.log_prob(x)` takes points (n, d) and returns (n,), in nats; `model.sample(n, generator)` returns
      points (n, d).
    - images: `model(x)` takes normalised images (batch, c, h, w) and returns logits (batch, classes).
    - labels: `model(x)` takes points (batch, d) and returns logits (batch, classes).

    Args:
        folder: the folder of the run.
        weights: `last`, those at the end of training, or `best`, those of the best evaluation on held-out data.
        extensions: the user's own files with which the run was made; no code is imported on the word of a folder.

    Raises:
        NotLoadable: there is no run, or it is unfinished, damaged or of another version, or an extension is missing or
            has changed.

    Example:
        >>> model, config = load_run("outputs/2026-01-31/12-00-00.000000")
        >>> logits = model(images)
    """
    config, _ = completed_run(folder, [str(file) for file in extensions])
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn before they are replaced
        # A run of an earlier version did not store the shape of its data; then the data are needed.
        shape = stored_shape(folder, weights) or build_task(config, torch.device("cpu")).shape
        model = build_model(config, shape)
    restore_weights(model, folder, weights)
    return (InUserUnits(model, shape.scale) if shape.scale else model).eval(), config


def stored_shape(folder: Path | str, weights: Weights = "last") -> Shape | None:
    """Return the shape of the data on which a run was trained; None for a run of an earlier version."""
    state = _read(folder, weights)
    return Shape.of(state["shape"]) if "shape" in state else None


def completed_run(folder: Path | str, extensions: Sequence[str] = ()) -> tuple[Config, Summary]:
    """Return the config and the summary of a completed run, after importing the user's own files.

    Raises:
        NotLoadable: the folder has no completed run.
    """
    folder = Path(folder)
    try:
        summary = read_summary(folder)
        config = stored_config(folder)
    except ConfigError as error:
        reason = str(error).splitlines()[0]
        raise NotLoadable(f"{folder} is damaged or was written by another version: {reason}") from error
    except FileNotFoundError:
        summary = None
    except DamagedSummary as error:
        raise NotLoadable(str(error)) from error
    if summary is None:
        what = "no run in it" if folder.is_dir() else "no such folder"
        raise NotLoadable(f"RUN must be the folder of a run, got {folder} ({what})")
    if summary["status"] != "completed":
        fixes = {"interrupted": "go on with", "killed": "go on with", "failed": "try again with"}
        fix = fixes.get(summary["status"])
        how = f"; {fix}: {command()} {resuming(folder, config.extensions)}" if fix else ""
        raise NotLoadable(f"RUN must be completed, got {folder}, which is {summary['status']}{how}")
    try:
        how = f"give extensions={list(config.extensions)}"
        return again(folder, config, extensions, how, further=True), summary
    except ConfigError as error:
        raise NotLoadable(str(error)) from error


def restore_weights(model: nn.Module, folder: Path | str, weights: Weights = "last") -> None:
    """Set a model to the weights by which a run was judged.

    Raises:
        NotLoadable: the checkpoint is missing or damaged, or does not fit the model.
    """
    state = _read(folder, weights)
    # The trained module is the model, or holds it as `flow` beside parameters that belong to the training data.
    prefix = "flow." if any(name.startswith("flow.") for name in state["module"]) else ""
    module = nn.ModuleDict({"flow": model}) if prefix else model
    named = earlier.weights(state["module"], module)
    if state.get("average") is not None:
        names = (name for name, _ in module.named_parameters())
        named |= dict(zip(names, earlier.averages(state["average"], module), strict=False))
    try:
        model.load_state_dict({key.removeprefix(prefix): x for key, x in named.items() if key.startswith(prefix)})
    except RuntimeError as error:
        raise NotLoadable(
            f"{folder}/checkpoints/{weights}.pt must fit the model, got weights of other names or shapes; the model's"
            " and the data's dimensions must be those of training"
        ) from error


def _read(folder: Path | str, weights: Weights) -> dict[str, Any]:
    try:
        return checkpoints.load(Path(folder) / "checkpoints" / f"{weights}.pt")
    except checkpoints.CheckpointError as error:
        raise NotLoadable(str(error)) from error
