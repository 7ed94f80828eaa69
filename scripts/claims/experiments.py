"""Fits, sentences and pictures that RESULTS.md has below the table of an experiment that measures a claim."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from claims import mnist
from neuralode_exp.report.runs import Run

Points = Mapping[float, float]  # y by x


def power(points: Points) -> float:
    """Return the exponent p of the least-squares line log y = p log x + c; y must be positive."""
    x, y = np.log(list(points)), np.log(list(points.values()))
    return float(np.polyfit(x, y, 1)[0])


def upper_half(points: Points) -> dict[float, float]:
    """Return the points with the larger half of the x values."""
    kept = sorted(points)[len(points) // 2 :]
    return {x: points[x] for x in kept}


def medians(runs: Sequence[Run], key: str, tag: str) -> dict[float, float]:
    """Return the median of a metric for each value of a numeric key, in ascending order of the key."""
    values: dict[float, list[float]] = {}
    for run in runs:
        if tag in run.metrics:
            values.setdefault(float(run.settings[key]), []).append(run.metrics[tag])
    return {x: statistics.median(values[x]) for x in sorted(values)}


def trace(runs: Sequence[Run], folder: Path) -> Iterator[str]:
    """Fit how an evaluation's cost grows with d, for a flow's traces and a discrete layer's log-determinant."""
    from claims.figures import draw_powers

    estimated = [run for run in runs if run.settings["model.trace"] == "hutchinson"]
    exact = [run for run in runs if run.settings["model.trace"] == "exact"]
    field = medians(runs, "dataset.dim", "time/field_ms")
    costs = {
        "the log-determinant": medians(runs, "dataset.dim", "time/determinant_ms"),
        "the exact trace": medians(exact, "dataset.dim", "time/trace_ms"),
        "Hutchinson's estimate": medians(estimated, "dataset.dim", "time/trace_ms"),
    }
    common = set(field).intersection(*costs.values())
    if len(common) < 4:
        return  # two points make no fit
    field, *kept = ({d: ms[d] for d in sorted(common)} for ms in (field, *costs.values()))
    costs = dict(zip(costs, kept, strict=True))
    parts = []
    for name, ms in costs.items():
        beyond = {d: ms[d] - field[d] for d in upper_half(ms) if ms[d] > field[d]}
        parts.append(f"with {name} as d^{power(upper_half(ms)):.2f} (its cost beyond f alone: d^{power(beyond):.2f})")
    fitted = upper_half(field)
    yield (
        "Least squares of log ms (medians over the seeds) against log d over d = "
        f"{', '.join(f'{d:g}' for d in fitted)}: f alone grows as d^{power(fitted):.2f}, {', '.join(parts)}."
    )
    yield (
        "Hidden layers keep their width w while d grows. The work for a point is O(d w + w^2) for f and for the "
        "estimate, O(d w^2) for the exact trace by d tangents, and O(d^2 w + d w^2 + d^3) for the log-determinant. So "
        "the trace is O(d) at a fixed width. With w proportional to d the trace is O(d^3) too, and only the estimate "
        "costs as much as f, O(d^2)."
    )
    draw_powers({"f alone": field, **costs}, "dimension d", "ms an evaluation, f included (median)").savefig(
        folder / "figure.png"
    )
    yield f"![{folder.name}](results/{folder.name}/figure.png)"


def planar(runs: Sequence[Run], folder: Path) -> Iterator[str]:
    """List KL by the hidden units of a continuous flow and by the layers of a planar flow."""
    for dataset in dict.fromkeys(run.settings["dataset"] for run in runs):
        here = [run for run in runs if run.settings["dataset"] == dataset]
        parts = []
        for name, key in (("continuous", "model.width"), ("planar", "model.layers")):
            of_name = [run for run in here if (run.settings["model"] == "planar") == (name == "planar")]
            kl = {int(run.settings[key]): run.metrics["density/kl"] for run in of_name}
            parts.append(f"{name} {', '.join(f'{kl[n]:.2f} ({n})' for n in sorted(kl))}")
        yield f"{dataset}, KL in nat (hidden units or layers): {'; '.join(parts)}."


# Experiment -> metrics that its table shows beside the usual ones.
FURTHER_COLUMNS: dict[str, tuple[str, ...]] = {
    "claim-trace": ("time/field_ms", "time/trace_ms", "time/determinant_ms"),
    "claim-continuous": ("solver/consistency_error",),
    "measured": ("dynamics/persistence_error",),
    "chaos": (
        "dynamics/field_error_std",
        "dynamics/valid_time",
        "dynamics/valid_time_std",
        "dynamics/active_replicas",
    ),
    "hundred-seeds": ("dynamics/active_replicas", "dynamics/field_error_std", "dynamics/eigenvalue_error_std"),
}
# Experiment -> columns that its table leaves out.
# Runs that shared the machine: `scripts/benchmark.py cost` measures times by turns, and `claim-memory` the memory.
SHARED = ("time/step_ms", "memory/peak_mib", "memory/saved_mib", "seconds")
LEFT_OUT: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("mnist-table", "fashion-table", "claim-continuous", "claim-k-over-h"), SHARED),
    "measured": ("time/step_ms", "seconds"),  # the machine was busy with other work
    # Its runs have two steps, whose memory is measured: too few to train, and slowed by the measurement.
    "claim-memory": ("time/step_ms", "solver/consistency", "error/test", "loss/train", "seconds"),
}
# Experiment -> function that describes its runs in Markdown and draws pictures in its folder, results/<experiment>.
CLAIMS: dict[str, Callable[[Sequence[Run], Path], Iterator[str]]] = {
    "claim-planar": planar,
    "claim-trace": trace,
    "claim-memory": mnist.memory,
    "claim-k-over-h": mnist.k_over_h,
    "claim-nfe": mnist.nfe,
    "claim-continuous": mnist.continuous,
    "fashion-table": mnist.blocks,
    "mnist-table": mnist.table,
}
