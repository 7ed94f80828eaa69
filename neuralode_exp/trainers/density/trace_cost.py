"""Measure the cost of a density: the trace of a continuous flow, and the log-determinant of a discrete layer.

A flow needs tr(df/dz) at each evaluation (Chen et al. 2018, https://arxiv.org/abs/1806.07366, eq. 4), a discrete layer
z + f(z) log|det(I + df/dz)| (ibid., eq. 3). Both are measured for the same f, on the same points.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from neuralode_exp.models.flows import Flow

BUDGET = 0.1  # seconds for each of the three measurements, unless `LEAST` repetitions take longer
LEAST, MOST = 3, 50  # repetitions
LARGEST = 2**26  # entries of a batch of Jacobians; larger ones are not measured


@torch.no_grad()
def evaluation_ms(flow: Flow, x: Tensor) -> dict[str, float]:
    """Time evaluations without gradients, each the median of several, in ms.

    Args:
        flow: a flow with the field f. Its `trace` is that of training, in evaluation mode too.
        x: points, shape (n, d).

    Returns:
        `field_ms` for f alone; `trace_ms` for f and its trace, exact or estimated; `determinant_ms` for f, its whole
        Jacobian by d tangents and log|det(I + df/dz)|. The last is left out if the Jacobians take more than
        256 MiB in float32, and on `mps`, which has no determinant.
    """
    field, t = flow.field, torch.full((), 0.5, dtype=x.dtype, device=x.device)
    was_training = flow.training
    probes = flow.train().probes(x)
    flow.train(was_training)

    def determinant() -> None:
        _, jacobian = field.with_jacobian(t, x)
        torch.linalg.slogdet(jacobian + torch.eye(flow.dim, dtype=x.dtype, device=x.device))

    tasks: dict[str, Callable[[], object]] = {
        "field_ms": lambda: field(t, x),
        "trace_ms": lambda: field.with_trace(t, x, probes),
    }
    if len(x) * flow.dim**2 <= LARGEST and x.device.type != "mps":
        tasks["determinant_ms"] = determinant
    return {name: 1e3 * _median_seconds(task, x.device) for name, task in tasks.items()}


def _median_seconds(task: Callable[[], object], device: torch.device) -> float:
    _seconds(task, device)  # the first one also allocates
    seconds: list[float] = []
    while len(seconds) < LEAST or (len(seconds) < MOST and sum(seconds) < BUDGET):
        seconds.append(_seconds(task, device))
    return statistics.median(seconds)


def _seconds(task: Callable[[], object], device: torch.device) -> float:
    wait = partial(torch.accelerator.synchronize, device) if device.type != "cpu" else lambda: None
    wait()
    start = time.perf_counter()
    task()
    wait()
    return time.perf_counter() - start
