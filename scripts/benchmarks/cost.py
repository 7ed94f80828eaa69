"""What a training step on images costs in time and memory: gradients and solvers against resnet and against each other.

A step is forward, backward and SGD on 128 random images of MNIST's size; weights stay at their initial values. All
networks take turns in one process, so that changes of the machine affect all of them; ratios are medians of those
within a round. A solve from t = 0 to 1 by a method of k stages with the step size h takes k/h evaluations, of which
`checkpoint` repeats k/h - k in backward. The time of a step is fitted to these counts: the value comes from a fit to
the medians over the rounds, and its quartiles from a fit to each round alone. The peak is the most bytes of
tensors that a step makes and holds at once (`memory/peak_mib`). It does not depend on the load of the machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu import a_batch, network, training_step
from benchmarks.table import Figure
from benchmarks.timing import interleaved, ratio
from neuralode_exp.ode import TABLEAUS, Gradient, make_method
from neuralode_exp.tracking.memory import Peaks, SavedTensors

GRADIENTS: tuple[Gradient, ...] = ("backprop", "checkpoint", "adjoint", "reversible")
METHODS = {
    "dopri5 1e-3": make_method("dopri5", rtol=1e-3),
    "one step of rk4": make_method("rk4", step_size=1.0),
    "four steps of rk4": make_method("rk4", step_size=0.25),
}
# Name, stages k and step size h of the methods of the fit.
CELLS = [
    (name, TABLEAUS[name].stages, h) for name in ("euler", "midpoint", "heun2", "heun3", "rk4") for h in (1, 0.5, 0.25)
]


def measure(quick: bool) -> list[Figure]:
    device = torch.device("cpu")
    batch, rounds = a_batch(2 if quick else 128, device), 1 if quick else 5
    models = {"resnet": network("resnet", None, None, device)}
    for gradient, (how, method) in product(GRADIENTS, METHODS.items()):
        name = "rknet" if gradient == "backprop" else "odenet"
        models[f"{name if name == 'rknet' else f'odenet ({gradient})'}, {how}"] = network(
            name, method, gradient, device
        )
    steps = {name: training_step(model, *batch) for name, model in models.items()}
    seconds = interleaved(steps, rounds)
    details = {}
    for name, model in models.items():
        peaks = Peaks(device)
        with peaks.of_step():
            steps[name]()
        with SavedTensors(exclude=model) as saved:
            loss = model(batch[0]).sum()
            saved.backward_starts()
            loss.backward()
        assert peaks.step_mib is not None
        ms = 1e3 * statistics.median(seconds[name])
        details[name] = {"ms": ms, "peak_mib": peaks.step_mib, "saved_mib": saved.saved_mib}
    figures = []
    for name in models:
        how = name.partition(", ")[2]
        for base in ("resnet", f"rknet, {how}"):
            if how and name != base:
                over = ratio(seconds[name], seconds[base])
                of_base = f"{base.partition(',')[0]}'s"
                figures.append(Figure(f"{name}: time over {of_base}", over.median, spread=over.quartiles))
    for name, found in details.items():
        figures.append(Figure(f"{name}: peak of a step, MiB", found["peak_mib"], details=found))
        figures.append(Figure(f"{name}: saved when backward starts, MiB", found["saved_mib"]))
    return figures + evaluations(batch, rounds)


def evaluations(batch: tuple[Tensor, Tensor], rounds: int) -> list[Figure]:
    """Fit the time of a step to its evaluations, for `backprop` and for `checkpoint`."""
    gradients: tuple[Gradient, ...] = ("backprop", "checkpoint")
    steps = {}
    for gradient, (name, _, h) in product(gradients, CELLS):
        model = network("odenet", make_method(name, step_size=h), gradient, batch[0].device)
        steps[f"{gradient}, {name}, {h}"] = training_step(model, *batch)
    seconds = interleaved(steps, rounds)
    stages = np.array([k for _, k, _ in CELLS], dtype=float)
    counts = stages / np.array([h for _, _, h in CELLS])
    figures = []
    for gradient in gradients:
        ms = 1e3 * np.array([seconds[f"{gradient}, {name}, {h}"] for name, _, h in CELLS])
        figures += fit(f"{gradient}, ms a step = a + b k/h", ms, ["a", "b"], counts)
    return figures + fit(
        "checkpoint, ms a step = a + b k/h + c (k/h - k)", ms, ["a", "b", "c"], counts, counts - stages
    )


def fit(title: str, ms: np.ndarray, names: Sequence[str], *counts: np.ndarray) -> list[Figure]:
    """Return the coefficients of a least-squares fit to the medians over the rounds, and its R^2.

    Args:
        title: the formula.
        ms: times, shape (cells, rounds). The spread is that of a fit to each round.
        names: names of the coefficients, of the constant first.
        counts: what the time grows with, each of shape (cells,).
    """

    def fitted(y: np.ndarray) -> list[float]:
        terms = np.stack([np.ones_like(y), *counts], axis=1)
        coefficients = np.linalg.lstsq(terms, y)[0]
        residuals = y - terms @ coefficients
        return [*coefficients.tolist(), float(1 - (residuals**2).sum() / ((y - y.mean()) ** 2).sum())]

    spreads = np.quantile([fitted(y) for y in ms.T], (0.25, 0.75), axis=0).T
    goals = [*(None for _ in names), 0.98]
    return [
        Figure(f"{title}: {name}", value, at_least=goal, spread=(low, high))
        for name, value, goal, (low, high) in zip(
            [*names, "R^2"], fitted(np.median(ms, axis=1)), goals, spreads.tolist(), strict=True
        )
    ]
