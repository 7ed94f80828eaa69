"""Prepare the pictures of the classification trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from neuralode_exp.data.images import Split
from neuralode_exp.models.vectors import VectorNet
from neuralode_exp.tracking.figures.images import SHOWN, draw_mistakes
from neuralode_exp.tracking.figures.labels import draw_states

if TYPE_CHECKING:
    from neuralode_exp.tracking.recorder import Recorder

POINTS = 2000  # points in a picture


def draw_points(network: VectorNet, test: Split, step: int, recorder: Recorder) -> None:
    """Record a picture of where the blocks move the points of a plane."""
    x, last = test.images[:POINTS].to(network.classifier.weight), network.classifier
    z = network.body(network.features(x))
    arrays = (part.detach().cpu().numpy() for part in (x, z, test.labels[:POINTS], last.weight, last.bias))
    recorder.figure(step, "labels/states", draw_states(*arrays))


def draw_all(test: Split, predicted: Tensor, step: int, recorder: Recorder) -> None:
    """Record a picture of wrongly classified test images."""
    wrong = (predicted != test.labels).nonzero().flatten()
    pixels = test.images if test.images.shape[1] == 3 else test.images[:, :1]  # colours, or the first channel
    images, labels, taken_for = (x[wrong[:SHOWN]].cpu().numpy() for x in (pixels, test.labels, predicted))
    figure = draw_mistakes(np.moveaxis(images, 1, -1), labels, taken_for, wrong=len(wrong), tested=len(test.labels))
    recorder.figure(step, "images/mistakes", figure)
