"""From a config to objects: the device, the method, and for each kind of dataset its task."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from neuralode_exp.config import Config, solver_arguments
from neuralode_exp.config.cells import solves_ode
from neuralode_exp.config.schema import CsvKeys, DensitiesKeys, ImagesKeys, Model, PointsKeys
from neuralode_exp.data.target import Target
from neuralode_exp.ode import Method, make_method
from neuralode_exp.ode.solvers import SOLVERS
from neuralode_exp.trainers.task import Task

if TYPE_CHECKING:
    from neuralode_exp.data.dynamics import Dynamics

log = logging.getLogger(__name__)

MANY_STEPS = 500  # of an explicit method over a trajectory, for stability alone: it crawls
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def pick_device(name: str) -> torch.device:
    """The device of a name; `auto` takes CUDA if there is one.

    Raises:
        ValueError: if this machine does not have it.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device must be one of this machine's, got {name} of {torch.cuda.device_count()} CUDA devices"
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device must be one of this machine's, got mps, which it does not have; use device=auto")
    return device


def device_of_job(name: str, number: int, n_cuda: int | None = None) -> str:
    """The name of the device of a grid's job: `auto` deals the machine's CUDA devices out by the job's number."""
    n_cuda = torch.cuda.device_count() if n_cuda is None else n_cuda
    return f"cuda:{number % n_cuda}" if name == "auto" and n_cuda > 1 else name


def build_method(config: Config) -> Method:
    """The solver of the config, with the keys that it reads."""
    return make_method(**solver_arguments(config.solver))


def build_task(config: Config, device: torch.device) -> Task:
    """Data and model of the config, on the device."""
    return TASKS[config.dataset.kind](config, device)


def build_image_module(config: Config) -> torch.nn.Module:
    from neuralode_exp.models.images import image_model

    model = config.model
    method = build_method(config) if model.name in ("rknet", "odenet") else None
    module = image_model(
        model.name,
        method=method,
        gradient=model.gradient,
        channels=model.channels,
        blocks=model.blocks,
        hidden=model.hidden,
    )
    return module.to(DTYPES[config.precision])


def _classification(config: Config, device: torch.device) -> Task:
    from neuralode_exp.data.mnist import load_mnist
    from neuralode_exp.trainers.classification import Classification

    dataset, trainer = config.dataset, config.trainer
    assert isinstance(dataset, ImagesKeys)
    return Classification(
        build_image_module(config).to(device),  # type: ignore[arg-type]
        load_mnist(dataset.root, train=dataset.train, validation=dataset.validation, test=dataset.test, device=device),
        batch_size=trainer.batch_size,
        shift=dataset.shift,
        rotate=dataset.rotate,
        stretch=dataset.stretch,
        label_smoothing=trainer.label_smoothing,
        seed=config.seed,
        figures=config.figures,
    )


def _density(config: Config, device: torch.device) -> Task:
    from neuralode_exp.data.densities import density
    from neuralode_exp.data.points import Points
    from neuralode_exp.models.flows import Flow
    from neuralode_exp.trainers.density import DensityEstimation
    from neuralode_exp.trainers.task import seeded

    dataset, model, trainer = config.dataset, config.model, config.trainer
    if isinstance(dataset, PointsKeys):
        target: Target = density(dataset.name, **dataset.arguments())
        assert isinstance(target, Points)
        validation, test = target.all_held_out().chunk(2)
        steps_per_epoch = max(1, len(target.train) // trainer.batch_size)
    else:
        assert isinstance(dataset, DensitiesKeys)
        scales = dataset.arguments()
        seed, n_validation, n_test = (scales.pop(key) for key in ("seed", "validation", "test"))
        target = density(dataset.name, **scales)
        validation = target.held_out(n_validation, seeded(seed, "validation", 0))
        test = target.held_out(n_test, seeded(seed, "test", 0))
        steps_per_epoch = DensityEstimation.evaluate_every
    flow = Flow(
        target.dim,
        width=model.width,
        depth=_depth(model, 3),
        trace=model.trace,
        noise=model.noise,
        method=build_method(config),
        gradient=model.gradient,
    )
    return DensityEstimation(
        flow.to(device, DTYPES[config.precision]),
        target,
        validation,
        test,
        batch_size=trainer.batch_size,
        steps_per_epoch=steps_per_epoch,
        seed=config.seed,
        figures=config.figures,
    )


def _dynamics(config: Config, device: torch.device) -> Task:
    from neuralode_exp.data.csv_trajectories import read_trajectories, split
    from neuralode_exp.data.dynamics import make_dynamics
    from neuralode_exp.models.vectors import MLPField, ODEFlow, ResidualFlow
    from neuralode_exp.trainers.dynamics import LearnDynamics, Trajectories
    from neuralode_exp.trainers.dynamics_truth import truth_of
    from neuralode_exp.trainers.shooting import MultipleShooting, SingleShooting, cut, estimate_noise, units

    dataset, model, trainer = config.dataset, config.model, config.trainer
    dtype = DTYPES[config.precision]
    noise: float | torch.Tensor
    if isinstance(dataset, CsvKeys):
        parts = split(read_trajectories(dataset.path), dataset.validation, dataset.seed)
        log.info(parts.note)
        train = [(x.t.to(dtype), x.z.to(dtype)) for x in parts.train]
        held_out = [Trajectories(x.t, z := x.z.to(dtype)[:, None], z) for x in parts.held_out]
        noise, data = estimate_noise([z for _, z in train]), None
    else:
        data = make_dynamics(dataset.name, dtype=dtype, **dataset.arguments())
        _warn_of_stiffness(config, data)
        train = [(data.t, z) for z in data.train.noisy.unbind(1)]
        held_out, noise = [], data.noise
        if dataset.arguments()["validation"]:
            held_out = [Trajectories(data.t, data.validation.clean, data.validation.noisy)]
    segments = cut([t for t, _ in train], [z for _, z in train], trainer.window)
    scales = units(segments)
    field = MLPField(
        segments.z.shape[1],
        width=model.width,
        depth=_depth(model, 2),
        activation=model.activation or "silu",
        generators=[torch.Generator().manual_seed(config.seed + k) for k in range(trainer.replicas)],
        centre=scales.centre,
        scale=scales.scale,
        rate=scales.rate,
    )
    flow: ODEFlow | ResidualFlow
    if model.name == "resnet":
        assert data is not None  # resnet on csv has no meaning
        flow = ResidualFlow(field, float(data.t[-1]) / (len(data.t) - 1))
    else:
        flow = ODEFlow(field, build_method(config), model.gradient)
    shooting: MultipleShooting | SingleShooting
    if trainer.shooting == "single":
        assert data is not None  # csv with single shooting has no meaning
        shooting = SingleShooting(data.t, data.train.noisy)
    else:
        shooting = MultipleShooting(segments, scales, noise, trainer.replicas)
    return LearnDynamics(
        flow.to(device, dtype),
        shooting.to(device, dtype),
        [x.to(device) for x in held_out],
        [] if data is None else [Trajectories(data.t, data.test.clean, data.test.noisy).to(device)],
        None if data is None else Trajectories(data.t_long, data.z_long, data.z_long).to(device),
        None if data is None else truth_of(data, flow, device),
        batch_size=trainer.batch_size,
        seed=config.seed,
        figures=config.figures,
    )


def _warn_of_stiffness(config: Config, data: Dynamics) -> None:
    """Say what a stiff system will cost an explicit method once its field is learned."""
    if not solves_ode(config) or SOLVERS[config.solver.name].scipy is not None:
        return
    rate, t_max = data.system.fastest_decay(data.train.clean.flatten(0, 1)), float(data.t[-1])
    steps = round(rate * t_max / 3)
    if steps > MANY_STEPS:
        log.warning(
            "%s is stiff: it decays at rates up to %.3g, an explicit method takes steps below %.2g, %d of them to "
            "t = %.4g, once the field is learned; pick model=odenet solver=lsoda",
            config.dataset.name,
            rate,
            3 / rate,
            steps,
            t_max,
        )


def _depth(model: Model, default: int) -> int:
    """Hidden layers of the field: none if it is linear."""
    return 0 if model.field == "linear" else model.depth or default


# Kind of dataset -> what makes its task. Each imports what it needs: one kind's libraries are not the others' cost.
TASKS: dict[str, Callable[[Config, torch.device], Task]] = {
    "images": _classification,
    "dynamics": _dynamics,
    "densities": _density,
}
