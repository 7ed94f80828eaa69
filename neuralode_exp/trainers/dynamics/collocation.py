"""A start by collocation: smooth the observations, and fit the field to the slopes of the smooth curves.

It takes a second, because no ODE is solved, and brings the field close enough for shooting. Shooting alone gets stuck
if observations are few or noisy. Each column of each trajectory is smoothed by a cubic spline whose weight is chosen by
generalised cross-validation.

References: Varah 1982, doi:10.1137/0903003 (spline least squares); Wahba 1990, Spline Models for Observational Data,
Ch. 4; Roesch, Rackauckas & Stumpf 2021, https://arxiv.org/abs/2012.07244 (collocation for neural ODEs).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import make_smoothing_spline
from torch import Tensor

from neuralode_exp.data.observed import filled
from neuralode_exp.models.fields.scaled import Scaled
from neuralode_exp.models.replicas import Replicas
from neuralode_exp.trainers.dynamics.curvature import curvature
from neuralode_exp.trainers.task import seeded

BLOCK = 250  # rows that are smoothed together
MOST = 5000  # the most rows that are smoothed in total
BETWEEN = 4  # points of a smooth curve between two observations
FEWEST = 5  # values that a smoothing spline needs
BATCH = 256
LR = 0.01


@dataclass(frozen=True, eq=False)
class Smooth:
    """Smooth curves through observations.

    Args:
        z, dz: states and slopes of the curves, also between the observations, shape (N, d).
        rows: indices of the smoothed observations, counted through all trajectories, shape (m,).
        at_rows: states of the curves at these observations, shape (m, d).
    """

    z: Tensor
    dz: Tensor
    rows: Tensor
    at_rows: Tensor


def smooth(times: Sequence[Tensor], states: Sequence[Tensor]) -> Smooth:
    """Smooth trajectories. Of long ones, only evenly spaced blocks of rows are smoothed.

    Args:
        times: increasing times of each trajectory, shape (n,).
        states: states of each trajectory, shape (n, d), with NaN for missing values.
    """
    blocks = []
    offset = 0
    for t, z in zip(times, states, strict=True):
        cuts = np.linspace(0, len(t), math.ceil(len(t) / BLOCK) + 1).astype(int)
        blocks += [(offset, a, b, t, z) for a, b in zip(cuts, cuts[1:], strict=False) if b - a > 1]
        offset += len(t)
    n = sum(b - a for _, a, b, _, _ in blocks)
    chosen = np.unique(np.linspace(0, len(blocks) - 1, max(1, round(len(blocks) * min(1, MOST / n)))).astype(int))
    parts = []
    for k in chosen:
        offset, a, b, t, z = blocks[k]
        parts.append((*_smooth_block(t[a:b], z[a:b]), torch.arange(offset + a, offset + b)))
    curves, slopes, at_rows, rows = (torch.cat(part) for part in zip(*parts, strict=True))
    return Smooth(curves, slopes, rows, at_rows)


def _smooth_block(t: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return states and slopes along the curves through a block, and the states at its rows."""
    x = t.double().numpy()
    between = np.interp(np.linspace(0, len(x) - 1, BETWEEN * (len(x) - 1) + 1), np.arange(len(x)), x)
    columns = []
    for y in z.double().unbind(1):
        known = ~y.isnan().numpy()
        if known.sum() >= FEWEST:
            curve = make_smoothing_spline(x[known], y.numpy()[known])
            columns.append((curve(between), curve(between, nu=1)))
        else:
            line = np.interp(between, x, filled(t, y[:, None])[:, 0].numpy())
            columns.append((line, np.gradient(line, between)))
    curves, slopes = (torch.from_numpy(np.stack(part, 1)).to(z) for part in zip(*columns, strict=True))
    return curves, slopes, curves[::BETWEEN]


def collocate(field: Scaled, curves: Smooth, steps: int, weight: float, seed: int, replicas: Replicas) -> None:
    """Fit a field to the slopes of smooth curves by least squares, in units of the field's rate.

    Args:
        field: the field of one network or of replicas, which is changed in place.
        curves: from `smooth`.
        steps: number of steps of Adam, on batches of points.
        weight: weight of the field's curvature.
        seed: seed of the batches. Replica k draws from seed + k.
        replicas: the networks of the field.
    """
    parameters = [p for p in field.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps, pct_start=0.1)
    z, dz = curves.z.to(field.scale), curves.dz.to(field.scale)
    zero = z.new_zeros(())
    for step in range(1, steps + 1):
        generators = [seeded(seed + k, "collocation", step) for k in range(replicas.n)]
        drawn = replicas.join([torch.randint(len(z), (min(BATCH, len(z)),), generator=g) for g in generators])
        optimizer.zero_grad()
        miss = (field(zero, z[drawn]) - dz[drawn]) / field.rate
        loss = miss.square().mean(dim=(-2, -1))
        if weight:
            loss = loss + weight * curvature(field, z, generators, replicas)
        loss.sum().backward()
        optimizer.step()
        schedule.step()
    optimizer.zero_grad()
