"""What the dynamics trainer hands to the pictures: states, fields and eigenvalues as arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from neuralode_exp.data.observed import Trajectories
from neuralode_exp.models.neural_ode import NeuralODE
from neuralode_exp.ode import SolverError
from neuralode_exp.tracking.figures import dynamics as pictures
from neuralode_exp.tracking.figures.style import limits

if TYPE_CHECKING:
    from neuralode_exp.tracking.recorder import Recorder
    from neuralode_exp.trainers.dynamics.task import LearnDynamics

GRID = 20  # points a side of a drawn field


def take_snapshot(task: LearnDynamics, step: int) -> None:
    """Keep what the animation and the path of the eigenvalues need of this step."""
    known = _drawn(task)
    if step in task.steps or known is None:
        return
    shown = known.z[0, : pictures.SHOWN]
    try:
        learned = task.lead_on(task.flow, known, shown, known.t)
    except SolverError:
        learned = torch.full((len(known.t), task.replicas.n, *shown.shape), torch.nan)
    task.steps.append(step)
    task.snapshots.append(learned.view(len(known.t), -1, *shown.shape).transpose(0, 1).cpu())
    if task.truth is not None and task.truth.fixed_point is not None:
        point = task.truth.fixed_point
        task.eigenvalues.append(task.flow.eigenvalues(task.replicas.expand(point)).view(-1, len(point)).cpu())


def draw_all(task: LearnDynamics, step: int, recorder: Recorder) -> None:
    """Record every picture of the run."""
    known = _drawn(task)
    if known is None or not task.snapshots:
        return
    views = [_view(task, known, learned) for learned in task.snapshots]
    recorder.figure(step, "dynamics/trajectories", pictures.draw_trajectories(views[-1]))
    recorder.gif(step, "learning", pictures.learning_frames(task.steps, views), frame_seconds=0.25)
    truth = task.truth
    if truth is not None and truth.eigenvalues is not None and task.eigenvalues:
        learned = torch.stack(task.eigenvalues).numpy()
        recorder.figure(
            step, "dynamics/eigenvalues", pictures.draw_eigenvalues(task.steps, learned, _array(truth.eigenvalues))
        )
    if truth is not None and truth.u is None and task.shape.dim == 2 and isinstance(task.flow, NeuralODE):
        states = _array(truth.states)
        x, y = (np.linspace(*limits(states[:, k], margin=0.0), GRID) for k in range(2))
        grid = torch.tensor(np.stack(np.meshgrid(x, y), axis=-1)).to(truth.states)
        zero = truth.states.new_zeros(())
        learned_field = task.flow.field(zero, task.replicas.expand(grid.view(-1, 2))).view(-1, GRID, GRID, 2).mean(0)
        figure = pictures.draw_fields(x, y, _array(truth.f(zero, grid)), _array(learned_field))
        recorder.figure(step, "dynamics/field", figure)


def _drawn(task: LearnDynamics) -> Trajectories | None:
    known = task.test or task.validation
    return known[0] if known else None


def _view(task: LearnDynamics, known: Trajectories, learned: Tensor) -> pictures.Trajectories:
    n = learned.shape[2]
    true = _array(known.z[:, :n]) if task.truth is not None else None
    return pictures.Trajectories(_array(known.t), _array(known.observed[:, :n]), true, _array(learned))


def _array(x: Tensor) -> np.ndarray:
    return x.detach().cpu().numpy()
