"""Estimate the memory of a run before it starts, by one formula for each kind of data, within a factor of two.

The estimate in bytes is

    data + weights * (1 + gradient + state and temporaries of the optimiser) + max(step, evaluation),

where step and evaluation are the peaks of a training step and of an evaluation. A training step holds the activations
of several evaluations of the network at once: of a whole solve for `backprop`, of one solver step for `checkpoint` and
`reversible`, of two evaluations for `adjoint`. The constants are measured (`tests/config/test_memory_estimate.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from neuralode_exp.config.errors import Mistake, spell
from neuralode_exp.config.image_files import sizes
from neuralode_exp.config.options import dim_of
from neuralode_exp.config.schema import (
    AnnuliKeys,
    Config,
    DensitiesKeys,
    DynamicsKeys,
    ImagesKeys,
    OwnImagesKeys,
)
from neuralode_exp.ode.solvers import SOLVERS

BYTES = {"float32": 4, "float64": 8, "bf16": 2}  # of one number of an activation; one of a weight takes at least 4
WINDOW = 10  # steps of a window, where the data determine its length
WHOLE = 8  # bytes of an index, and of a number in float64
# Number of tensors of a parameter's size in an update: the parameter, its gradient, the optimiser's state, temporaries.
UPDATE = {"sgd": 3, "adam": 6, "adamw": 6}
FEW_STEPS = 3  # assumed steps of an adaptive method in one solve
UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
Formula = Callable[[Config], float]


def of_images(c: Config) -> float:
    """Count images, features of the first convolution, for MNIST (C, 26, 26), and features of the blocks, (C, 6, 6)."""
    dataset, model, s = c.dataset, c.model, BYTES[c.precision]
    if isinstance(dataset, OwnImagesKeys):
        n_bytes, (height, width, channels) = sizes(dataset.path)
        data, evaluated = 3.0 * n_bytes, 500
    else:
        assert isinstance(dataset, ImagesKeys)
        images, evaluated = 70_000 if dataset.test > 500 else 0, min(500, max(dataset.validation, dataset.test))
        height, width, channels = 28, 28, 1
        data = 3.0 * images * 28**2
    pixels = height * width * channels
    if model.name == "mlp":
        weights = (pixels + 11) * model.hidden
        step = 4 * c.trainer.batch_size * (pixels + model.hidden) * s
        evaluation = 2 * evaluated * (pixels + model.hidden) * s
    else:
        convolutions = {"stem": 2, "resnet": 4 + 2 * model.blocks}.get(model.name, 4)
        channels = model.channels + model.augment
        weights = 9 * convolutions * channels**2 + 14 * channels**2
        stem = (height - 2) * (width - 2) * model.channels * s
        block = max(4, height // 4 - 1) * max(4, width // 4 - 1) * channels * s
        blocks = {"stem": 0, "resnet": model.blocks}.get(model.name) or kept_evaluations(c, 1.0)
        step = c.trainer.batch_size * (4 * stem + 7 * block * (blocks if model.name != "stem" else 0))
        evaluation = 3 * evaluated * stem
    return data + _update(c) * weights * max(s, 4) + max(step, evaluation)


def of_labels(c: Config) -> float:
    """Count points, with those of the test set twice because an evaluation uses them twice, and a plain network."""
    dataset, s = c.dataset, BYTES[c.precision]
    assert isinstance(dataset, AnnuliKeys)
    d = dataset.dim + c.model.augment
    width, weights = _layers(c, d, 2)
    blocks = c.model.blocks if c.model.name == "resnet" else 1
    evaluations = blocks if c.model.name == "resnet" else kept_evaluations(c, 1.0)
    points = dataset.train + dataset.validation + 2 * dataset.test
    step = 2 * evaluations * c.trainer.batch_size * (width + d) * s
    return 2.0 * points * (d + 1) * WHOLE + _update(c) * blocks * weights * s + step


def of_dynamics(c: Config) -> float:
    """Count trajectories, one estimate of each observed state per replica, and the field at all states."""
    dataset, trainer, s = c.dataset, c.trainer, BYTES[c.precision]
    if isinstance(dataset, DynamicsKeys):
        d = dim_of(dataset, c.extensions) or 2
        observations = dataset.trajectories * dataset.points
        rows = round(dataset.test_horizon * dataset.points)
        held_out = (dataset.validation + dataset.test) * dataset.points + dataset.test * rows
        data = observations * (9 * d + 5) * WHOLE + held_out * 5 * d * WHOLE + rows * 5 * d**2 * WHOLE
        span, batch = (dataset.t_max or 4.0) * (trainer.window or WINDOW) / (dataset.points - 1), trainer.batch_size
        led_on = max(dataset.validation * dataset.points, dataset.test * rows)
    else:
        size = _size(getattr(dataset, "path", ""))
        d, observations, data, span, batch, led_on = 2, size // 30, 15 * size, 0.5, trainer.batch_size, size // 30
    evaluations = (trainer.window or WINDOW) if c.model.name == "resnet" else kept_evaluations(c, span)
    if trainer.shooting == "single" and isinstance(dataset, DynamicsKeys):
        batch = min(batch, dataset.trajectories)
        evaluations *= (dataset.points - 1) if not SOLVERS[c.solver.name].adaptive else 1
    width, weights = _layers(c, d, 2)
    estimates = observations * d if trainer.shooting == "multiple" else 0
    step = 2 * evaluations * batch * width * s + 4 * batch * d * WHOLE
    if c.model.name != "resnet" and SOLVERS[c.solver.name].scipy is not None:
        step += 3 * trainer.replicas * (batch * d) ** 2 * WHOLE  # the Jacobian of all states together
    evaluation = 3 * observations * max(c.model.width, d) * s + 4 * led_on * d * s
    return data + trainer.replicas * (_update(c) * (weights + estimates) * s + max(step, evaluation))


def of_densities(c: Config) -> float:
    """Count points, and for each a tangent per dimension in every layer. Some densities also sum over many terms."""
    dataset, s = c.dataset, BYTES[c.precision]
    if isinstance(dataset, DensitiesKeys):
        d = dim_of(dataset, c.extensions) or 2
        points, most = dataset.validation + dataset.test, max(dataset.validation, dataset.test)
        data = (points + 2 * most) * d * WHOLE
    else:
        size = _size(getattr(dataset, "path", ""))
        d, most, data = 2, size // 20, 10 * size
    scales = dataset.model_dump()
    if dataset.name == "two-moons":
        data += 4 * 4096 * 16 * math.ceil(scales["radius"] / scales["noise"]) * WHOLE
    if dataset.name == "pinwheel":
        data += 5 * most * scales["arms"] * WHOLE
    if c.model.name == "planar":
        step = 3 * c.trainer.batch_size * c.model.layers * (d + 2) * s
        return data + step + 4 * min(60_000, most) * (d + 2) * c.model.layers * s
    tangents = d if c.model.trace == "exact" else 1
    width, weights = _layers(c, d, 3)
    step = (kept_evaluations(c, 1.0) + 1) * c.trainer.batch_size * (1 + tangents) * (width + d) * s
    evaluation = 4 * min(max(60_000, 1 + d), most * (1 + d)) * max(c.model.width, d) * s
    return data + _update(c) * weights * s + max(step, evaluation)


def kept_evaluations(c: Config, span: float) -> int:
    """Return how many evaluations of the field hold their activations at once, in one solve over `span`."""
    if c.model.gradient == "adjoint":
        return 2
    solver = SOLVERS[c.solver.name]
    stages = len(solver.tableau.b) if solver.tableau else 12
    if c.model.gradient in ("checkpoint", "reversible"):
        return stages
    return stages * (FEW_STEPS if solver.adaptive else math.ceil(min(span / c.solver.step_size, 1e9)))


def _layers(c: Config, d: int, depth: int) -> tuple[int, int]:
    """Return the units of all hidden layers of a field, and its number of parameters."""
    layers = 0 if c.model.field == "linear" else c.model.depth or depth
    width = c.model.width if layers else d
    return max(1, layers) * width, 2 * d * width + max(0, layers - 1) * width**2 + (layers + 1) * width


def _update(c: Config) -> int:
    return UPDATE[c.trainer.optimizer] + (c.trainer.average is not None)


def _size(path: str) -> int:
    return Path(path).stat().st_size if Path(path).is_file() else 0


# The keys that a run's memory depends on, each with the value that needs least.
SPARING: dict[str, float] = {
    "trainer.replicas": 1,
    "model.width": 1,
    "model.channels": 32,
    "model.hidden": 1,
    "model.blocks": 1,
    "model.depth": 1,
    "dataset.points": 2,
    "dataset.trajectories": 1,
    "dataset.dim": 1,
    "dataset.arms": 1,
    "dataset.noise": 1,  # two-moons sums over pieces of about this size
    "dataset.test": 1,
    "dataset.train": 1,
    "dataset.validation": 1,
    "dataset.test_horizon": 1,
    "trainer.batch_size": 1,
}


def too_large(c: Config, formula: Formula, available: float) -> Mistake | None:
    """Return the key to change, and its new value, if a run needs more than the available bytes, else None."""
    needed = formula(c)
    if needed <= available:
        return None
    smallest = {key: formula(_with(c, key, value)) for key, value in SPARING.items() if _get(c, key) is not None}
    key = min(smallest, key=lambda key: smallest[key])
    rule = f"must let the run fit into the {size(available)} of this machine"
    got = f"{spell(_get(c, key))}, with which it needs about {size(needed)}"
    if smallest[key] > available:
        return Mistake(key, rule, got, "change it, and others too")
    fits, fails = float(SPARING[key]), float(_get(c, key))
    while max(fits, fails) > 1.02 * min(fits, fails):
        middle = math.sqrt(fits * fails)
        fits, fails = (middle, fails) if formula(_with(c, key, middle)) <= available else (fits, middle)
    return Mistake(key, rule, got, f"{_round(key, fits)} fits")


def _round(key: str, value: float) -> str:
    if key == "model.channels":  # a multiple of 32
        return str(int(value) // 32 * 32)
    return f"{value:.2g}" if value < 1 else str(int(value))


def size(n_bytes: float) -> str:
    """Write a number of bytes with a fitting unit."""
    power = min(len(UNITS) - 1, int(math.log(max(n_bytes, 1), 1024)))
    number = n_bytes / 1024**power
    return f"{number:.3g} {UNITS[power]}" if number < 1000 else f"{number:.0f} {UNITS[power]}"


def _get(c: Config, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(c, section), name, None)


def _with(c: Config, key: str, value: float) -> Config:
    section, _, name = key.partition(".")
    return c.model_copy(update={section: getattr(c, section).model_copy(update={name: type(_get(c, key))(value)})})
