"""Take up a trained run: its config, its model with the weights that it was judged by."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import nn

from neuralode_exp.build import build_image_module, build_task
from neuralode_exp.config import Config, ConfigError, stored_config
from neuralode_exp.tracking import checkpoints
from neuralode_exp.tracking.summary import Summary, read_summary

Weights = Literal["last", "best"]


class NotLoadable(ValueError):
    """The folder has no trained run that this version of the program can take up."""


def load_run(folder: Path | str, weights: Weights = "last") -> tuple[nn.Module, Config]:
    """Return a completed run's model on the CPU, in evaluation mode, and its config.

    The weights are those that the run was judged by: averaged ones where it averages.

    Args:
        folder: the run's folder.
        weights: of the end of training, or `best`: of its best evaluation on held-out data.

    Raises:
        NotLoadable: no run, an unfinished one, a damaged one or one of another version.

    Example:
        >>> model, config = load_run("outputs/2026-01-31/12-00-00.000000")
        >>> logits = model(images)
    """
    config, _ = completed_run(folder)
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn, and then replaced
        if config.dataset.kind == "images":
            module = model = build_image_module(config)
        else:
            task = build_task(config, torch.device("cpu"))
            module, model = task.module, task.model
    restore_weights(model, module, folder, weights)
    return model.eval(), config


def completed_run(folder: Path | str) -> tuple[Config, Summary]:
    """Return the config and the summary of a completed run.

    Raises:
        NotLoadable: it is something else.
    """
    folder = Path(folder)
    try:
        summary = read_summary(folder)
        config = stored_config(folder)
    except ConfigError as error:
        reason = str(error).splitlines()[0]
        raise NotLoadable(f"{folder} was written by another version: {reason}") from error
    except FileNotFoundError:
        summary = None
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError, yaml.YAMLError) as error:
        raise NotLoadable(f"{folder} is damaged: its summary or config cannot be read; run it again") from error
    if summary is None:
        what = "no run in it" if folder.is_dir() else "no such folder"
        raise NotLoadable(f"RUN must be the folder of a run, got {folder} ({what})")
    if summary["status"] != "completed":
        fixes = {"interrupted": "go on with", "killed": "go on with", "failed": "try again with"}
        fix = fixes.get(summary["status"])
        how = f"; {fix}: python train.py resume={folder}" if fix else ""
        raise NotLoadable(f"RUN must be completed, got {folder}, which is {summary['status']}{how}")
    return config, summary


def restore_weights(model: nn.Module, module: nn.Module, folder: Path | str, weights: Weights = "last") -> None:
    """Set a model to the weights that a run was judged by.

    Args:
        model: what is set; the module itself or a part of it.
        module: what was trained. The rest of it belongs to the training data, which may be others by now.
        folder: the run's.
        weights: which.

    Raises:
        NotLoadable: the checkpoint is missing, damaged or not of such a model.
    """
    path = Path(folder) / "checkpoints" / f"{weights}.pt"
    try:
        state: dict[str, Any] = checkpoints.load(path)
        named = state["module"]
        if state.get("average") is not None:
            named |= dict(zip((name for name, _ in module.named_parameters()), state["average"], strict=True))
        prefix = next(f"{name}." if name else "" for name, part in module.named_modules() if part is model)
        model.load_state_dict({key.removeprefix(prefix): x for key, x in named.items() if key.startswith(prefix)})
    except checkpoints.CheckpointError as error:
        raise NotLoadable(str(error)) from error
    except (KeyError, RuntimeError, ValueError) as error:
        raise NotLoadable(
            f"{path} must fit the model, got weights of other names or shapes; the model's and the data's dimensions"
            " must be those of training"
        ) from error
