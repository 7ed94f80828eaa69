"""Make a model of hidden dynamics and its training task from a config."""

from __future__ import annotations

import logging
from functools import partial

import torch
from torch import nn

from neuralode_exp.config import Config
from neuralode_exp.config.options import data_of, input_of, known_of
from neuralode_exp.config.schema import CsvKeys, DynamicsKeys
from neuralode_exp.data.dynamics import Dynamics, make_dynamics
from neuralode_exp.data.measured import observe
from neuralode_exp.data.observed import Observed, of_system
from neuralode_exp.data.systems import known_system
from neuralode_exp.models.fields.hamiltonian import HamiltonianField
from neuralode_exp.models.fields.hybrid import Hybrid
from neuralode_exp.models.fields.mlp import MLPField
from neuralode_exp.models.fields.scaled import Scaled
from neuralode_exp.models.fields.second_order import SecondOrder
from neuralode_exp.models.neural_ode import NeuralODE
from neuralode_exp.models.replicas import Replicas, stack
from neuralode_exp.models.residual_flow import ResidualFlow
from neuralode_exp.models.shape import Shape
from neuralode_exp.ode.solvers import SOLVERS
from neuralode_exp.trainers.dynamics.collocation import collocate, smooth
from neuralode_exp.trainers.dynamics.curvature import weight_for
from neuralode_exp.trainers.dynamics.metrics import spread_error, trajectory_error
from neuralode_exp.trainers.dynamics.segments import Segments, cut, estimate_noise, units, windows_for
from neuralode_exp.trainers.dynamics.shooting import MultipleShooting, SingleShooting
from neuralode_exp.trainers.dynamics.task import LearnDynamics
from neuralode_exp.trainers.dynamics.truth import Flow, truth_of
from neuralode_exp.trainers.settings import (
    dtype_of,
    gradient_of,
    make_field,
    method_of,
    ready,
    registered_data,
    sees_inputs,
)

log = logging.getLogger(__name__)

MANY_STEPS = 500  # warn if stability forces an explicit method to so many steps per trajectory


def build_model(config: Config, shape: Shape, replicas: Replicas | None = None) -> Flow:
    """Return the model of the config for states of a shape. With several replicas it contains all of them."""
    replicas = replicas or Replicas(config.trainer.replicas)
    fields = [_field(config, shape, config.seed + k) for k in range(replicas.n)]
    assert shape.units is not None
    field = Scaled(stack(fields, replicas), shape.units)
    if config.model.name == "resnet":
        assert shape.dt is not None
        return ready(ResidualFlow(field, shape.dt), config)
    reading = input_of(config.dataset) or "hold"
    return ready(NeuralODE(field, method_of(config), gradient_of(config), reading), config)


def _field(config: Config, shape: Shape, seed: int) -> nn.Module:
    """Return a field in the units of the data. Its weights depend only on the seed."""
    units = shape.units_of_table
    assert units is not None
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        made = make_field(config, shape.dim, shape.inputs)
        if config.model.field == "hybrid":
            made = _hybrid(config, shape, made)
        if isinstance(made, HamiltonianField):
            made.set_units(units)
        return SecondOrder(made, units) if config.model.order == 2 else made


def _hybrid(config: Config, shape: Shape, network: nn.Module) -> Hybrid:
    model, entry = config.model, known_of(config.model, config.dataset, config.extensions)
    assert entry is not None
    assert shape.units is not None
    rest = network if model.residual else None
    return Hybrid(entry.make, model.options, model.free, shape.units, shape.scale, driven=entry.driven, rest=rest)


def build(config: Config, device: torch.device) -> LearnDynamics:
    """Return the task with the data and model of the config, on the device."""
    observed, trainer = _observe(config), config.trainer
    reading = input_of(config.dataset)
    seen = observed.inputs if reading and sees_inputs(config) else []
    windows = (trainer.window,) if trainer.window else windows_for(observed.states)
    segments = cut(observed.times, observed.states, windows, seen, reading or "hold")
    t, known = observed.times[0], observed.known
    dt = float(t[-1]) / (len(t) - 1) if known else None
    inputs = seen[0].shape[1] if seen else 0
    shape = Shape(segments.z.shape[1], units=units(segments), dt=dt, scale=observed.scale, inputs=inputs)
    replicas = Replicas(trainer.replicas)
    flow = build_model(config, shape, replicas)
    flow, shooting = flow.to(device), _shooting(config, observed, segments, shape, replicas).to(device)
    bend = weight_for(len(segments.z)) if trainer.curvature is None else trainer.curvature
    bend *= isinstance(flow.field.field, MLPField) and not seen  # not for users' own fields, which they know better

    def start() -> None:
        curves = smooth(observed.times, observed.states)
        collocate(flow.field, curves, trainer.collocation, bend, config.seed, replicas)
        if isinstance(shooting, MultipleShooting):
            shooting.start_from(curves.rows, curves.at_rows)

    return LearnDynamics(
        flow,
        shooting,
        [x.to(device) for x in observed.validation],
        [x.to(device) for x in observed.test],
        observed.long.to(device) if observed.long else None,
        truth_of(known, flow, device) if known else None,
        error=partial(spread_error, scale=observed.scale) if observed.scale else trajectory_error,
        shape=shape,
        replicas=replicas,
        start=start if trainer.collocation and config.weights is None and not seen else None,
        bend=bend,
        batch_size=trainer.batch_size,
        seed=config.seed,
        figures=config.figures,
        constants=_true_constants(config),
    )


def _true_constants(config: Config) -> dict[str, float]:
    """Return the true constants, if the field is a hybrid of the system that made the data."""
    found, known = data_of(config.dataset, config.extensions), known_of(config.model, config.dataset, config.extensions)
    return {name: float(found[1][name]) for name in config.model.free} if found and found[0] is known else {}


def _observe(config: Config) -> Observed:
    dataset, dtype = config.dataset, dtype_of(config)
    if isinstance(dataset, CsvKeys):
        observed = observe(dtype=dtype, **dataset.arguments())
        log.info(observed.note)
        for warning in observed.warnings:
            log.warning(warning)
        return observed
    entry, options = registered_data(config)
    sizes = {key: x for key, x in dataset.arguments().items() if key in DynamicsKeys.model_fields}
    sizes["input"] = input_of(dataset) or "hold"  # the system is driven even if the field does not see the input
    data = make_dynamics(known_system(entry, options), dtype=dtype, **sizes)
    _warn_of_stiffness(config, data)
    return of_system(data)


def _shooting(
    config: Config, observed: Observed, segments: Segments, shape: Shape, replicas: Replicas
) -> MultipleShooting | SingleShooting:
    if config.trainer.shooting == "single":
        u = torch.stack(observed.inputs, 1) if segments.u is not None else None
        return SingleShooting(observed.times[0], torch.stack(observed.states, 1), replicas, u)
    assert shape.units is not None
    noise = estimate_noise(observed.states) if observed.noise is None else observed.noise
    return MultipleShooting(segments, shape.units, noise, replicas)


def _warn_of_stiffness(config: Config, data: Dynamics) -> None:
    """Warn if a stiff system will force an explicit method to small steps after training."""
    if not config.solves_ode or data.system.inputs or SOLVERS[config.solver.name].scipy is not None:
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
