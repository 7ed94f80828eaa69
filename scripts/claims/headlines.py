"""The table of README's results: each claim beside what the files in `results/` say of it today."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

from claims import mnist
from claims.kept import Results, errors, range_of, seeds, spread
from neuralode_exp.report.runs import Run

HEADING = "| claim | measured |\n|---|---|\n"


def headlines(folder: Path) -> str:
    """Return the table in Markdown."""
    results = Results(folder)
    return HEADING + "".join(f"| {claim} | {measured(results)} |\n" for claim, measured in ROWS.items())


def with_headlines(page: str, folder: Path) -> str:
    """Return a page whose table of this heading is replaced by today's."""
    before, found, rest = page.partition(HEADING)
    if not found:
        raise ValueError(f"the page must have a table with the heading {HEADING.splitlines()[0]!r}, got none")
    return before + headlines(folder) + "\n" + rest.partition("\n\n")[2]


def of_mnist(results: Results, model: str) -> list[Run]:
    return results.runs("mnist-table", model=model)


def mnist_odenet(results: Results) -> str:
    runs = of_mnist(results, "odenet (checkpoint)")
    return f"`checkpoint`, one step of rk4, ten epochs: {errors(runs)}, {runs[0].metrics['parameters']:,.0f} parameters"


def mnist_resnet(results: Results) -> str:
    runs = of_mnist(results, "resnet")
    return f"ten epochs: {errors(runs)}, {runs[0].metrics['parameters']:,.0f} parameters"


def mnist_rknet(results: Results) -> str:
    rknet, adjoint, stem = (of_mnist(results, name) for name in ("rknet", "odenet", "stem"))
    return (
        f"one step of rk4, ten epochs: {errors(rknet)}; ODE-Net by `adjoint` {errors(adjoint)}; the stem alone, "
        f"without a block, {errors(stem)}"
    )


def clothes(results: Results) -> str:
    each = [f"{name} {errors(runs)}" for name, runs in mnist.by_name(results.runs("fashion-table")).items()]
    return f"test error on Fashion-MNIST, ten epochs: {'; '.join(each)}"


def memory(results: Results) -> str:
    names = {
        "adjoint": "odenet",
        "checkpoint": "odenet (checkpoint)",
        "reversible": "odenet (reversible)",
        "backprop": "rknet",
    }
    ratios: dict[str, list[str]] = {"memory/peak_mib": [], "memory/saved_mib": []}
    for gradient, name in names.items():
        runs = {run.metrics["nfe/forward"]: run.metrics for run in results.runs("claim-memory", model=name)}
        for tag, parts in ratios.items():
            parts.append(f"`{gradient}` {runs[64][tag] / runs[8][tag]:.2f}")
    least = min(run.metrics["memory/peak_mib"] for run in results.runs("claim-memory", model="odenet"))
    peak, saved = (", ".join(parts) for parts in ratios.values())
    return (
        f"peak of a training step, at NFE 64 over NFE 8: {peak} (the stem before the block sets a floor of {least:.0f} "
        f"MiB); saved when backward starts: {saved}"
    )


def cost(results: Results) -> str:
    one, dopri5 = (
        results.quartiles("cost", f"odenet (checkpoint), {name}: time over resnet's", digits)
        for name, digits in (("one step of rk4", 2), ("dopri5 1e-3", 1))
    )
    whole = [
        f"{results.value('train', f'odenet {name}, checkpoint, over our resnet'):.{digits}f}"
        for name, digits in (("rk4 one step", 2), ("dopri5", 1), ("dopri5 with first_step=previous", 1))
    ]
    times = mnist.times_to_one_percent(mnist.by_name(results.runs("mnist-table")), results)
    return (
        f"by turns in one process, median and quartiles, `checkpoint`: one step of rk4 {one}, dopri5 at 1e-3 {dopri5} "
        f"times (`scripts/benchmark.py cost`); with optimiser and data, on two idle cores, {whole[0]}, {whole[1]}, and "
        f"{whole[2]} with `solver.first_step=previous` (`train`); time to 1 % test error "
        f"{times['odenet (checkpoint)']:.2f} of ResNet's, by the first"
    )


def rknet_cost(results: Results) -> str:
    def of(name: str, what: str) -> float:
        return results.value("cost", f"{name}, dopri5 1e-3: {what}")

    peak, saved, time = "peak of a step, MiB", "saved when backward starts, MiB", "time over rknet's"
    gradients = ("adjoint", "checkpoint", "reversible")
    ratios = {
        what: ", ".join(
            f"`{g}` {of(f'odenet ({g})', what) / (1.0 if what == time else of('rknet', what)):.2f}" for g in gradients
        )
        for what in (peak, saved, time)
    }
    return (
        f"with dopri5 at 1e-3 a training step of RK-Net peaks at {of('rknet', peak):.0f} MiB, and ODE-Net's peak is "
        f"this times {ratios[peak]}. When backward starts, RK-Net has saved {of('rknet', saved):.0f} MiB, and ODE-Net "
        f"this times {ratios[saved]}. ODE-Net's time a step is RK-Net's times {ratios[time]}, by turns "
        "(`scripts/benchmark.py cost`)"
    )


def k_over_h(results: Results) -> str:
    def of(formula: str, name: str) -> float:
        return results.value("cost", f"{formula}: {name}")

    plain, both = "backprop, ms a step = a + b k/h", "checkpoint, ms a step = a + b k/h + c (k/h - k)"
    return (
        f"a training step of one thread takes {of(plain, 'a'):.0f} ms + {of(plain, 'b'):.1f} ms k/h by `backprop` (R² "
        f"{of(plain, 'R^2'):.3f}); `checkpoint` evaluates k/h - k stages again, and takes {of(both, 'a'):.0f} ms + "
        f"{of(both, 'b'):.1f} ms k/h + {of(both, 'c'):.1f} ms (k/h - k) (R² {of(both, 'R^2'):.3f})"
    )


def order(results: Results) -> str:
    runs = results.runs("claim-k-over-h")
    each = [[run for run in runs if mnist.STAGES[str(run.settings["solver"])] == k] for k in (1, 2, 3, 4)]
    means = ", ".join(f"{mnist.mean(group, 'error/test'):.1f}" for group in each)
    return f"mean test error of orders 1 to 4 after an epoch: {means} % (one seed a cell)"


def nfe(results: Results) -> str:
    (run,) = results.runs("claim-nfe")
    return f"{mnist.backward_over_forward(run):.2f} of them over an epoch, dopri5 at 1e-3, `adjoint`"


def continuous(results: Results) -> str:
    ranges = {
        solver: [100 * run.metrics["solver/consistency"] for run in results.runs("claim-continuous", solver=solver)]
        for solver in ("euler", "rk4")
    }
    ten = [100 * run.metrics["solver/consistency"] for run in of_mnist(results, "odenet (checkpoint)")]
    return (
        f"after an epoch an accurate solve moves the final state by {range_of(ranges['euler'], 0)} % (euler), "
        f"{range_of(ranges['rk4'], 2)} % (rk4), by step size; after ten epochs with one step of rk4 by "
        f"{statistics.mean(ten):.1f} %"
    )


def unstable(results: Results) -> str:
    runs = results.runs("hidden-dynamics", dataset="unstable", model="odenet")
    (hundred,) = results.runs("hundred-seeds")
    return (
        f"learned to an eigenvalue error of {spread(runs, 'dynamics/eigenvalue_error', 2, 100)} % ({seeds(runs)}), and "
        f"by {hundred.metrics['dynamics/active_replicas']:.0f} seeds of 100"
    )


def matching(results: Results) -> str:
    kl = []
    for name in ("two-moons", "two-circles", "eight-gaussians", "pinwheel"):
        runs = results.runs("matching", dataset=name)
        kl.append(f"{spread(runs, 'density/kl', 4)} nat on {name} ({seeds(runs)})")
    return f"2,000 steps of matching and 300 of likelihood: KL {', '.join(kl)}"


def penalties(results: Results) -> str:
    parts = []
    for name in ("two-moons", "eight-gaussians"):
        runs = [
            run
            for run in results.runs("regularise", dataset=name)
            if not {"trainer.steer", "trainer.error"} & _set(run)
        ]
        evaluations: dict[str, list[Run]] = {}
        for run in runs:
            penalty = " and ".join(sorted(key.removeprefix("trainer.") for key in _set(run))) or "none"
            evaluations.setdefault(penalty, []).append(run)
        plain = evaluations.pop("none")
        nfe = [mnist.mean(group, "nfe/forward") for group in evaluations.values()]
        kl = [mnist.mean(group, "density/kl") for group in evaluations.values()]
        parts.append(
            f"{name}, {seeds(plain)}, {spread(plain, 'nfe/forward', 0)} evaluations a solve without a penalty and "
            f"{range_of(nfe, 0)} with one, at a KL of {mnist.mean(plain, 'density/kl'):.3f} and {range_of(kl, 3)} nat"
        )
    return f"600 steps: {'; '.join(parts)}"


def _set(run: Run) -> set[str]:
    penalties = ("kinetic", "jacobian", "taylor", "steer", "error")
    return {key for name in penalties if run.settings.get(key := f"trainer.{name}")}


def rings(results: Results) -> str:
    plain, augmented = (
        [
            r
            for r in results.runs("augment", model="odenet (checkpoint)")
            if bool(r.settings.get("model.augment")) == more
        ]
        for more in (False, True)
    )
    right = range_of((100 - run.metrics["error/test"] for run in plain), 1)
    return (
        f"`annuli`, {seeds(plain)}: {right} % right without augmentation, {mnist.mean(plain, 'nfe/forward'):.0f} "
        f"evaluations a solve; {100 - mnist.mean(augmented, 'error/test'):.0f} % with it, "
        f"{mnist.mean(augmented, 'nfe/forward'):.0f} evaluations"
    )


def energy(results: Results) -> str:
    hamiltonian, plain = (results.runs("energy", model_field=name) for name in ("hamiltonian", "mlp"))
    tag = "dynamics/energy_drift"
    return (
        f"`pendulum` over 100 periods, {seeds(plain)}: drift {spread(hamiltonian, tag, 4)} against "
        f"{spread(plain, tag, 2)} of a plain field"
    )


def densities(results: Results) -> str:
    runs = [run for run in results.runs("densities") if "density/kl" in run.metrics]
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.settings["dataset"], []).append(run)
    board = groups.pop("checkerboard")
    kl = range_of((mnist.mean(group, "density/kl") for group in groups.values()), 3)
    error = range_of((run.metrics["density/kl_standard_error"] for run in runs), 4)
    return (
        f"KL to the truth of {kl} nat on {len(groups)} densities, {mnist.mean(board, 'density/kl'):.3f} on the "
        f"checkerboard ({seeds(board)} each), with standard errors over the test points of {error}"
    )


ROWS: dict[str, Callable[[Results], str]] = {
    "MNIST: ODE-Net 0.42 % with 0.22M parameters": mnist_odenet,
    "MNIST: ResNet 0.41 % with 0.60M parameters": mnist_resnet,
    "MNIST: RK-Net 0.47 %": mnist_rknet,
    "blocks matter more on clothes than on digits": clothes,
    "memory does not grow with depth": memory,
    "an ODE-Net takes four times ResNet's time": cost,
    "RK-Net halves ODE-Net's time, at more memory": rknet_cost,
    "time grows as stages over step size, k/h": k_over_h,
    "order hardly changes accuracy": order,
    "backward takes half of forward's evaluations": nfe,
    "the trained net is an ODE": continuous,
    "an unstable system crashes the program": unstable,
    "flow matching needs no solve": matching,
    "penalties make a field cheap to solve": penalties,
    "a Neural ODE cannot separate rings": rings,
    "a Hamiltonian field keeps the energy": energy,
    "a flow's density": densities,
}
