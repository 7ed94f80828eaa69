"""Errors of a classifier: one test image at a time, logarithms in NumPy, and a finer solve by a plain loop."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from recompute import field_of
from scipy.special import log_softmax
from torch import Tensor

from neuralode_exp.config import Config
from recomputed.loops import three_eighths

FINE = 1 / 64  # step of the reference
FEW = 1000  # as many as the package uses


@torch.no_grad()
def recompute(task: Any, config: Config, metrics: Mapping[str, float]) -> Iterator[tuple[Any, ...]]:
    model = task.model.eval()

    def logits(images: Tensor) -> np.ndarray:
        pixels = (images.float() / 255 - 0.1307) / 0.3081
        return np.concatenate([model(image[None]).double().numpy() for image in pixels])

    test, validation = task.data.test, task.data.validation
    wrong = (logits(test.images).argmax(1) != test.labels.numpy()).mean()
    yield "error/test", metrics["error/test"], 100 * wrong, 0.0, 1e-9
    found, labels = logits(validation.images), validation.labels.numpy()
    yield "error/validation", metrics["error/validation"], 100 * (found.argmax(1) != labels).mean(), 0.0, 1e-9
    loss = -log_softmax(found, axis=1)[np.arange(len(labels)), labels].mean()
    yield "loss/validation", metrics["loss/validation"], loss, 1e-5

    exact = copy.deepcopy(model).double()
    start = exact.features((test.images[:FEW].double() / 255 - 0.1307) / 0.3081)
    field = field_of(exact)

    def f(t: float, z: Tensor) -> Tensor:
        return field(torch.tensor(t, dtype=torch.float64), z)

    stepped = three_eighths(f, start, [0.0, 1.0], config.solver.step_size)[-1]
    fine = three_eighths(f, start, [0.0, 1.0], FINE)[-1]
    difference = float((stepped - fine).norm() / fine.norm())
    # ReLUs: both references are off by about 1e-6.
    yield "solver/consistency", metrics["solver/consistency"], difference, 0.02, 1e-5
