"""Errors of learned linear dynamics: the matrix exponential, SciPy's solver, finite differences, loops in NumPy."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from recompute import field_of
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from neuralode_exp.config import Config
from recomputed.loops import three_eighths


def recompute(task: Any, config: Config, metrics: Mapping[str, float]) -> Iterator[tuple[Any, ...]]:
    matrix = np.array(config.dataset.matrix)  # type: ignore[attr-defined]
    field = copy.deepcopy(field_of(task.model)).double()

    def f(z: np.ndarray) -> np.ndarray:
        """Of states (n, d)."""
        with torch.no_grad():
            return field(torch.zeros((), dtype=torch.float64), torch.from_numpy(z)[None])[0].numpy()

    (known,) = task.test
    t = known.t.double().numpy()
    start = known.z[0].double().numpy()
    truth = np.stack([start @ expm(matrix * x).T for x in t])
    learned = np.stack(
        [solve_ivp(lambda _, z: f(z[None])[0], (t[0], t[-1]), z, t_eval=t, rtol=1e-9, atol=1e-11).y.T for z in start], 1
    )
    errors = [np.linalg.norm(learned[:, i] - truth[:, i]) / np.linalg.norm(truth[:, i]) for i in range(len(start))]
    yield "dynamics/trajectory_error", metrics["dynamics/trajectory_error"], np.mean(errors), 1e-3

    states = task.truth.states.double().numpy()
    true = states @ matrix.T
    error = np.sqrt(((f(states) - true) ** 2).sum() / (true**2).sum())
    yield "dynamics/field_error", metrics["dynamics/field_error"], error, 1e-4

    h = 1e-5
    jacobian = np.stack([(f(h * e[None])[0] - f(-h * e[None])[0]) / (2 * h) for e in np.eye(len(matrix))], 1)
    found, wanted = np.linalg.eigvals(jacobian), np.linalg.eigvals(matrix)
    pairings = itertools.permutations(range(len(wanted)))
    best = min(pairings, key=lambda order: sum(abs(found[list(order)] - wanted)))
    error = max(abs(found[list(best)] - wanted)) / max(abs(wanted))
    yield "dynamics/eigenvalue_error", metrics["dynamics/eigenvalue_error"], error, 1e-3

    zero = torch.zeros((), dtype=torch.float64)
    with torch.no_grad():
        stepped = three_eighths(
            lambda _, z: field(zero, z[None])[0], torch.from_numpy(start), t.tolist(), config.solver.step_size
        )
    difference = np.linalg.norm(torch.stack(stepped).numpy() - learned) / np.linalg.norm(learned)
    # Both references are off by about 1e-7.
    yield "solver/consistency", metrics["solver/consistency"], difference, 0.05, 1e-6
