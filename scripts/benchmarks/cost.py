"""What a training step on images costs in time and memory: gradients and solvers against resnet and against each other.

A step is forward, backward and SGD on 128 random images of MNIST's size; weights stay at their initial values. All
networks take turns in one process, so that changes of the machine affect all of them; ratios are medians of those
within a round. The peak is the most bytes of tensors that a step makes and holds at once (`memory/peak_mib`). It does
not depend on the load of the machine.
"""

from __future__ import annotations

import statistics
from itertools import product

import torch

from benchmarks.gpu import a_batch, network, training_step
from benchmarks.table import Figure
from benchmarks.timing import interleaved, ratio
from neuralode_exp.ode import Gradient, make_method
from neuralode_exp.tracking.memory import Peaks, SavedTensors

GRADIENTS: tuple[Gradient, ...] = ("backprop", "checkpoint", "adjoint", "reversible")
METHODS = {
    "dopri5 1e-3": make_method("dopri5", rtol=1e-3),
    "one step of rk4": make_method("rk4", step_size=1.0),
    "four steps of rk4": make_method("rk4", step_size=0.25),
}


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
    return figures
