"""Builds objects from a config: the device, and the task and the model of each kind of dataset."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch
from torch import nn

from neuralode_exp import user_files
from neuralode_exp.config import Config
from neuralode_exp.config.kinds import KINDS
from neuralode_exp.models.shape import Shape
from neuralode_exp.trainers.regularity import Regularity
from neuralode_exp.trainers.task import Task


def pick_device(name: str) -> torch.device:
    """Return the device with a name; `auto` takes CUDA if there is a CUDA device.

    Raises:
        ValueError: if this machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device must be one of this machine's, got {name} of {torch.cuda.device_count()} CUDA devices"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device must be one of this machine's, got mps, which it does not have; use device=auto")
    return device


def device_of_job(name: str, number: int, n_cuda: int | None = None) -> str:
    """Return the device name of a grid's job; `auto` distributes the CUDA devices by the number of the job."""
    n_cuda = torch.cuda.device_count() if n_cuda is None else n_cuda
    return f"cuda:{number % n_cuda}" if name == "auto" and n_cuda > 1 else name


def build_task(config: Config, device: torch.device) -> Task:
    """Build data and model of a config, on the device."""
    task: Task = _builders(config).build(config, device)
    of_user = user_files.entries("metric", config.extensions)
    task.regularity = Regularity(task.model, config.trainer, task.state_axes)
    task.metrics = {entry.name: entry.make for entry in of_user if entry.settings["on"] == config.dataset.kind}
    return task


def build_model(config: Config, shape: Shape) -> nn.Module:
    """Build the model of a config for data of a shape, without the data."""
    model: nn.Module = _builders(config).build_model(config, shape)
    return model


def _builders(config: Config) -> ModuleType:
    """Import and return the `build` module of a kind, so that a run imports the libraries of its kind alone."""
    return importlib.import_module(f"neuralode_exp.trainers.{KINDS[config.dataset.kind].trainer}.build")
