"""Prepare the pictures of the dynamics trainer: states, fields and eigenvalues as arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from neuralode_exp.data.observed import Trajectories
from neuralode_exp.models.neural_ode import NeuralODE
from neuralode_exp.ode import SolverError
from neuralode_exp.tracking.figures import dynamics as pictures
from neuralode_exp.tracking.figures import measured
from neuralode_exp.tracking.figures.style import limits
from neuralode_exp.trainers.dynamics.shooting import MultipleShooting

if TYPE_CHECKING:
    from neuralode_exp.tracking.recorder import Recorder
    from neuralode_exp.trainers.dynamics.task import LearnDynamics

GRID = 20  # points per side of a drawn field


def take_snapshot(task: LearnDynamics, step: int) -> None:
    """Store the states and eigenvalues of this step for the animation and the path of the eigenvalues."""
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
    if task.shape.scale is not None:
        _draw_measured(task, known, step, recorder)
    if task.shape.dim < 2:
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


def _draw_measured(task: LearnDynamics, known: Trajectories, step: int, recorder: Recorder) -> None:
    """Draw the forecast of a held-out trajectory and the learned field, in the units of the table."""
    scale, learned = task.shape.scale, task.snapshots[-1][:, :, 0]
    assert scale is not None
    now = ~np.isnan(_array(known.observed[:, 0])).all(axis=0)  # not values of the past, nor columns without any
    names = [name for name, column in zip(scale.names, now.tolist(), strict=True) if column]
    if not names:
        return
    forecast = measured.Forecast(
        names,
        _array(known.t) * scale.step,
        _array(scale.outward(known.observed[:, 0]))[:, now],
        _array(scale.outward(learned))[..., now],
        _array(scale.unit if scale.spread is None else scale.spread)[now],
    )
    recorder.figure(step, "dynamics/forecast", measured.draw_forecast(forecast))
    of_states = task.shape.dim == 2 and not task.shape.inputs
    if of_states and isinstance(task.flow, NeuralODE) and isinstance(task.shooting, MultipleShooting):
        states = task.shooting.observed()
        seen = _array(scale.outward(states))
        x, y = (np.linspace(*limits(seen[:, k]), GRID) for k in range(2))
        grid = torch.tensor(np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2))
        at = scale.inward(grid).to(states)
        slope = task.flow.field(at.new_zeros(()), task.replicas.expand(at)).view(-1, GRID * GRID, 2).mean(0)
        field = scale.slopes(grid, slope.cpu()).view(GRID, GRID, 2)
        picture = measured.draw_learned_field(scale.names, x, y, _array(field), [seen])
        recorder.figure(step, "dynamics/learned_field", picture)


def _drawn(task: LearnDynamics) -> Trajectories | None:
    known = task.test or task.validation
    return known[0] if known else None


def _view(task: LearnDynamics, known: Trajectories, learned: Tensor) -> pictures.Trajectories:
    n, scale = learned.shape[2], task.shape.scale
    true = _array(known.z[:, :n]) if task.truth is not None else None
    if scale is None:
        return pictures.Trajectories(_array(known.t), _array(known.observed[:, :n]), true, _array(learned))
    t, observed, led_on = known.t * scale.step, scale.outward(known.observed[:, :n]), scale.outward(learned)
    return pictures.Trajectories(_array(t), _array(observed), None, _array(led_on), scale.names)


def _array(x: Tensor) -> np.ndarray:
    return x.detach().cpu().numpy()
