"""Ratios, fits and pictures of cost, memory and NFE that RESULTS.md has below the tables of experiments on MNIST."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import ttest_ind

from claims.figures import draw_curves, draw_powers
from claims.kept import Results, error_of
from neuralode_exp.ode.tableaus import TABLEAUS
from neuralode_exp.report.runs import Run

STAGES = {name: TABLEAUS[name].stages for name in ("euler", "midpoint", "heun2", "heun3", "rk4")}
PEAK = "memory/peak_mib"
# Chen et al. 2018, https://arxiv.org/abs/1806.07366, table 1: one run each, adaptive solves, 160 epochs.
PUBLISHED = {"mlp": 1.60, "resnet": 0.41, "rknet": 0.47, "odenet": 0.42}
MODELS = ("mlp", "stem", "resnet", "rknet", "odenet")  # the order of the rows


def name_of(run: Run) -> str:
    """Return the model's name as in tables, but with the adjoint named too."""
    model = str(run.settings["model"])
    return "odenet (adjoint)" if model == "odenet" else model


def mean(runs: Iterable[Run], tag: str) -> float:
    return statistics.mean(run.metrics[tag] for run in runs)


def by_name(runs: Sequence[Run]) -> dict[str, list[Run]]:
    names = sorted(set(map(name_of, runs)), key=lambda name: (MODELS.index(name.split(" ")[0]), name))
    return {name: [run for run in runs if name_of(run) == name] for name in names}


def table(runs: Sequence[Run], folder: Path) -> Iterator[str]:
    """Compare the published errors with ours, and list how long each model takes to 1 % test error."""
    groups = by_name(runs)
    times = times_to_one_percent(groups, Results(folder.parent))
    rows = [
        "| | gradient, solver | Chen et al. 2018 (%) | here (%) | seeds | steps to 1 % | time to 1 % over resnet's |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, group in groups.items():
        steps = steps_to_one_percent(group)
        reached = f"{steps:.0f}" if math.isfinite(steps) else "not reached"
        time = f"{times[name]:.2f}" if name in times else ""
        published = PUBLISHED.get(name.split(" ")[0], "")
        errors = f"{published} | {error_of(group)}"
        rows.append(f"| {name} | {_how(group[0])} | {errors} | {len(group)} | {reached} | {time} |")
    yield "\n".join(rows)
    yield (
        f"Chen et al.: table 1, adaptive solves, 160 epochs. Here: {_budget(runs)}. The test error is measured every "
        "epoch. The runs shared the machine, so their own times compare nothing: the last column is the ratio of the "
        "steps, times the ratio of a step's times by turns in one process (`scripts/benchmark.py cost`). The picture "
        "shows the lowest seed of each."
    )
    yield from blocks(runs, folder)
    first = [group[0] for group in groups.values() if "error/test" in group[0].curves]
    curves = {_named(run): run.curves["error/test"] for run in first}
    if curves:
        yield _picture(draw_curves(curves, "training step", "test error (%)", log=True), folder)


def blocks(runs: Sequence[Run], _: Path) -> Iterator[str]:
    """Say how many points of the test error the blocks take off the stem's, and how each ODE compares with resnet."""
    groups = by_name(runs)
    errors = {name: [run.metrics["error/test"] for run in group] for name, group in groups.items()}
    if "stem" in errors:
        stem = statistics.mean(errors["stem"])
        gains = [f"{k} {stem - statistics.mean(own):.2f}" for k, own in errors.items() if k not in ("stem", "mlp")]
        yield (
            f"The stem alone, without a block, errs on {stem:.2f} %. Its error minus that of a model with blocks, in "
            f"percentage points: {', '.join(gains)}."
        )
    resnet = errors.get("resnet", [])
    compared = [name for name, own in errors.items() if name.startswith(("rknet", "odenet")) and len(own) > 1]
    if len(resnet) < 2 or not compared:
        return
    differences = [
        f"{name} {statistics.mean(errors[name]) - statistics.mean(resnet):+.3f} "
        f"(p = {ttest_ind(errors[name], resnet, equal_var=False).pvalue:.2f})"
        for name in compared
    ]
    rate = statistics.mean(resnet) / 100
    yield (
        f"Test error less resnet's, in points, with Welch's t-test over the seeds: {', '.join(differences)}. With p "
        "above 0.05 the difference may be noise. All models see the same 10,000 test images; an error measured on so "
        f"many has a standard error of {100 * math.sqrt(rate * (1 - rate) / 10_000):.2f} points."
    )


def times_to_one_percent(groups: Mapping[str, Sequence[Run]], results: Results) -> dict[str, float]:
    """Return the time of training to 1 % test error over resnet's, for the models that `cost` times by turns."""
    steps = {name: steps_to_one_percent(group) for name, group in groups.items()}
    times = {}
    for name in steps:
        if name.startswith(("rknet", "odenet")) and math.isfinite(steps[name] + steps.get("resnet", math.inf)):
            step = results.value("cost", f"{name}, one step of rk4: time over resnet's")
            times[name] = step * steps[name] / steps["resnet"]
    return times


def steps_to_one_percent(group: Sequence[Run]) -> float:
    """Return the mean number of training steps to 1 % test error, infinite if a run does not reach it."""
    return statistics.mean(steps_to(run, 1.0) for run in group)


def steps_to(run: Run, error: float) -> float:
    """Return the first evaluated step whose test error is at most `error` percent, or infinity."""
    steps, errors = run.curves.get("error/test", ([], []))
    return next((step for step, value in zip(steps, errors, strict=True) if value <= error), math.inf)


def memory(runs: Sequence[Run], folder: Path) -> Iterator[str]:
    """Compare the memory of a training step across depth: blocks of resnet, 8 to 64 evaluations of the others."""
    runs = [run for run in runs if run.settings["model"] == "resnet" or 8 <= _nfe(run) <= 64]
    groups = {name: group for name, group in by_name(runs).items() if len(set(map(_nfe, group))) > 1}
    if not groups:
        return
    saved = _by_nfe(groups, "memory/saved_mib")
    yield (
        "Saved by autograd when backward starts, at the most evaluations over the fewest of those in brackets "
        f"(resnet: blocks): {_growth(saved)}."
    )
    peaks = _by_nfe(groups, PEAK)
    yield (
        f"Peak of a training step, the same ratio: {_growth(peaks)}. The stem before the blocks sets a floor for it."
    )
    slopes = [f"{name} {np.polyfit(list(points), list(points.values()), 1)[0]:.2f}" for name, points in peaks.items()]
    yield (
        "Slope of the peak over evaluations forward by least squares, in MiB for each (resnet: for each block): "
        f"{', '.join(slopes)}."
    )
    yield _picture(draw_powers(peaks, "evaluations forward (resnet: blocks)", "peak MiB of a training step"), folder)


def _by_nfe(groups: Mapping[str, Sequence[Run]], tag: str) -> dict[str, dict[float, float]]:
    return {name: {_nfe(r): r.metrics[tag] for r in sorted(group, key=_nfe)} for name, group in groups.items()}


def _growth(curves: Mapping[str, Mapping[float, float]]) -> str:
    return ", ".join(
        f"{name} {points[max(points)] / points[min(points)]:.2f} ({min(points):g} to {max(points):g})"
        for name, points in curves.items()
    )


def k_over_h(runs: Sequence[Run], _: Path) -> Iterator[str]:
    """List the error by order and by step size. `scripts/benchmark.py cost` measures the time."""
    orders = sorted({STAGES[str(run.settings["solver"])] for run in runs})
    errors = [
        f"{k}: {mean([r for r in runs if STAGES[str(r.settings['solver'])] == k], 'error/test'):.2f} %" for k in orders
    ]
    sizes = sorted({float(run.settings["solver.step_size"]) for run in runs}, reverse=True)
    by_size = [
        f"{h:g}: {mean([r for r in runs if float(r.settings['solver.step_size']) == h], 'error/test'):.2f} %"
        for h in sizes
    ]
    yield f"Mean test error after {_budget(runs)} by order {', '.join(errors)}; by step size {', '.join(by_size)}."


def backward_over_forward(run: Run) -> float:
    """Return the evaluations of the backward solves of a training over those of the forward solves."""
    return sum(run.curves["nfe/backward"][1]) / sum(run.curves["nfe/forward"][1])


def nfe(runs: Sequence[Run], folder: Path) -> Iterator[str]:
    """Describe the evaluations of a training step, forward and backward, as training goes on."""
    run = next((run for run in runs if "nfe/backward" in run.curves), None)
    if run is None:
        return
    curves = {direction: run.curves[f"nfe/{direction}"] for direction in ("forward", "backward")}
    parts = [
        f"{name} {ys[0]:.1f} at step {xs[0]:g}, {ys[-1]:.1f} at step {xs[-1]:g}" for name, (xs, ys) in curves.items()
    ]
    ratio = backward_over_forward(run)
    yield f"Evaluations a step: {'; '.join(parts)}. Backward over forward, mean over training: {ratio:.2f}."
    yield _picture(draw_curves(curves, "training step", "evaluations a step"), folder)


def continuous(runs: Sequence[Run], folder: Path) -> Iterator[str]:
    """Describe what an accurate solve changes in networks trained at each step size."""
    curves: dict[str, dict[float, float]] = {}
    parts = []
    for run in sorted(
        runs, key=lambda run: (STAGES[str(run.settings["solver"])], float(run.settings["solver.step_size"]))
    ):
        solver, h = str(run.settings["solver"]), float(run.settings["solver.step_size"])
        curves.setdefault(solver, {})[h] = run.metrics["solver/consistency"]
        parts.append(
            f"{solver} {h:g}: {100 * run.metrics['solver/consistency']:.2g} % of the final state, "
            f"{run.metrics['solver/consistency_error']:.1f} points of test error"
        )
    yield (
        f"What an accurate solve of the test changes after {_budget(runs)}, by the solver and step size of the "
        f"training: {'; '.join(parts)}."
    )
    figure = draw_powers(curves, "step size of the training", "relative change of the final state")
    yield _picture(figure, folder)


def _budget(runs: Sequence[Run]) -> str:
    """Return how long the runs trained."""
    budgets = set()
    for run in runs:
        steps, epochs = run.settings["trainer.max_steps"], run.settings["trainer.epochs"]
        budgets.add(f"{steps} training steps" if steps else f"{epochs} epoch{'s' * (epochs != 1)}")
    return ", ".join(sorted(budgets))


def _nfe(run: Run) -> float:
    return run.metrics["nfe/forward"]


def _how(run: Run) -> str:
    """Return gradient, solver and its tolerance or step size; nothing for a network without an ODE."""
    return f"{run.settings['model.gradient']}, {solver}" if (solver := _solver(run)) else ""


def _named(run: Run) -> str:
    """Return the model's name in pictures, with its solver."""
    return f"{name_of(run)}, {solver}" if (solver := _solver(run)) else name_of(run)


def _solver(run: Run) -> str:
    solver = str(run.settings["solver"]) if "solver" in run.settings else ""
    if "solver.rtol" in run.settings:
        return f"{solver} {float(run.settings['solver.rtol']):.0e}".replace("e-0", "e-")
    return f"{solver} h={float(run.settings['solver.step_size']):g}" if solver else ""


def _picture(figure: Figure, folder: Path) -> str:
    figure.savefig(folder / "figure.png")
    return f"![{folder.name}](results/{folder.name}/figure.png)"
