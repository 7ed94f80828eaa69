"""A flow's density: traces of whole Jacobians, plain steps, a mixture in NumPy, Gauss-Legendre quadrature."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from recompute import field_of
from scipy.special import logsumexp
from torch import Tensor

from neuralode_exp.config import Config
from recomputed.loops import three_eighths

NODES = 120  # of the quadrature, a side


def recompute(task: Any, config: Config, metrics: Mapping[str, float]) -> Iterator[tuple[Any, ...]]:
    field = copy.deepcopy(field_of(task.model)).double()

    def f(t: float, state: Tensor) -> Tensor:
        """dz/dt and the trace of df/dz, of the whole Jacobian of each point."""
        z, time = state[:, :-1], torch.tensor(t, dtype=torch.float64)

        def one(point: Tensor) -> Tensor:
            return field(time, point[None])[0]

        traces = torch.func.vmap(lambda point: torch.func.jacrev(one)(point).trace())(z)
        return torch.cat((torch.func.vmap(one)(z), traces[:, None]), 1)

    def log_prob(x: Tensor) -> np.ndarray:
        state = torch.cat((x, x.new_zeros(len(x), 1)), 1)
        end = three_eighths(f, state, [1.0, 0.0], config.solver.step_size)[-1].detach().numpy()
        return -(end[:, :-1] ** 2).sum(1) / 2 - math.log(2 * math.pi) + end[:, -1]

    def log_true(x: np.ndarray) -> np.ndarray:
        radius, std = config.dataset.radius, config.dataset.std  # type: ignore[attr-defined]
        angles = 2 * math.pi * np.arange(8) / 8
        centres = radius * np.stack((np.cos(angles), np.sin(angles)), 1)
        squares = ((x[:, None] - centres) ** 2).sum(2) / std**2
        return logsumexp(-squares / 2, axis=1) - math.log(8 * 2 * math.pi * std**2)

    x = task.test.double()
    model = log_prob(x)
    difference = log_true(x.numpy()) - model
    yield "density/nll", metrics["density/nll"], -model.mean(), 1e-5
    yield "density/kl", metrics["density/kl"], difference.mean(), 1e-4
    error = difference.std(ddof=1) / math.sqrt(len(x))
    yield "density/kl_standard_error", metrics["density/kl_standard_error"], error, 1e-4

    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    low, high = task.target.box.numpy()
    half, centre = 1.5 * (high - low) / 2, (high + low) / 2
    grid = np.stack(np.meshgrid(centre[0] + half[0] * nodes, centre[1] + half[1] * nodes, indexing="ij"), -1)
    density = np.exp(log_prob(torch.from_numpy(grid.reshape(-1, 2))))
    mass = (np.outer(weights * half[0], weights * half[1]).ravel() * density).sum()
    yield "density/mass", metrics["density/mass"], mass, 1e-3
