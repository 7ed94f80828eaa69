"""What the classification trainer hands to the pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from neuralode_exp.data.mnist import Split
from neuralode_exp.tracking.figures.images import SHOWN, draw_mistakes

if TYPE_CHECKING:
    from neuralode_exp.tracking.recorder import Recorder


def draw_all(test: Split, predicted: Tensor, step: int, recorder: Recorder) -> None:
    """Record the test images that were taken for something else."""
    wrong = (predicted != test.labels).nonzero().flatten()
    images, labels, taken_for = (x[wrong[:SHOWN]].cpu().numpy() for x in (test.images[:, 0], test.labels, predicted))
    figure = draw_mistakes(images, labels, taken_for, wrong=len(wrong), tested=len(test.labels))
    recorder.figure(step, "images/mistakes", figure)
