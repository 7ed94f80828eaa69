"""Prepare the pictures of the density trainer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from neuralode_exp.tracking.figures import density as pictures
from neuralode_exp.trainers.task import seeded

if TYPE_CHECKING:
    from neuralode_exp.tracking.recorder import Recorder
    from neuralode_exp.trainers.density.task import DensityEstimation

DRAWN = 2000  # points in a picture
PICTURE = 150  # cells per side of a drawn density
FRAMES = 20  # frames of flow.gif


def draw_all(task: DensityEstimation, step: int, recorder: Recorder) -> None:
    """Record every picture of the run."""
    box = task.target.box.numpy()
    data = task.target.sample(DRAWN, seeded(task.seed, "picture", 0)).numpy()
    times = [i / (FRAMES - 1) for i in range(FRAMES)]
    path = task.module.path(DRAWN, times, seeded(task.seed, "picture", 1)).double().cpu().numpy()
    if task.module.dim == 2:
        points, _ = task.grid(PICTURE, 1.0)
        log_true, shape = task.target.log_prob(points), (PICTURE, PICTURE)
        true = None if log_true is None else log_true.exp().view(shape).numpy()
        learned = task.log_prob(points).exp().view(shape).numpy()
        recorder.figure(step, "density/learned", pictures.draw_densities(box, true, learned, data, path[-1]))
    elif task.module.dim > 2:
        recorder.figure(step, "density/clouds", pictures.draw_clouds(box, data, path[-1]))
    if task.module.dim >= 2:
        recorder.gif(step, "flow", pictures.flow_frames(box, np.array(times), path))
