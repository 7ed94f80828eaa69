"""Make a normalizing flow and its training task from a config."""

from __future__ import annotations

import logging
import math

import torch
from torch import Tensor

from neuralode_exp import user_files
from neuralode_exp.config import Config
from neuralode_exp.config.schema import DensitiesKeys, PointsKeys
from neuralode_exp.data.densities import known_density
from neuralode_exp.data.points import PointTarget
from neuralode_exp.data.target import Target
from neuralode_exp.models.density_model import DensityModel
from neuralode_exp.models.flows import Flow
from neuralode_exp.models.planar import PlanarFlow
from neuralode_exp.models.shape import Shape
from neuralode_exp.trainers.density.task import DensityEstimation
from neuralode_exp.trainers.settings import gradient_of, make_field, method_of, ready, registered_data
from neuralode_exp.trainers.task import seeded

log = logging.getLogger(__name__)


def build_model(config: Config, shape: Shape) -> DensityModel:
    """Return the flow of the config for points of a shape."""
    model = config.model
    if model.name == "planar":
        return ready(PlanarFlow(shape.dim, model.layers), config)
    flow = Flow(
        shape.dim,
        field=None if user_files.find("field", model.field, ()) else make_field(config, shape.dim),
        width=model.width,
        depth=0 if model.field == "linear" else model.depth or 3,
        fourier=model.features == "fourier",
        trace=model.trace,
        noise=model.noise,
        method=method_of(config),
        gradient=gradient_of(config),
    )
    return ready(flow, config)


def build(config: Config, device: torch.device) -> DensityEstimation:
    """Return the task with the data and model of the config, on the device."""
    target, validation, test = _target(config)
    shape = Shape(target.dim)
    steps_per_epoch = DensityEstimation.evaluate_every
    if isinstance(target, PointTarget):
        steps_per_epoch = max(1, len(target.train) // config.trainer.batch_size)
    return DensityEstimation(
        build_model(config, shape).to(device),
        target,
        validation,
        test,
        shape=shape,
        batch_size=config.trainer.batch_size,
        steps_per_epoch=steps_per_epoch,
        matching=_matching_steps(config),
        pairing=config.trainer.pairing,
        seed=config.seed,
        figures=config.figures,
    )


def _matching_steps(config: Config) -> float:
    trainer = config.trainer
    return {"likelihood": 0, "flow-matching": math.inf}.get(trainer.loss, trainer.matching_steps)


def _target(config: Config) -> tuple[Target, Tensor, Tensor]:
    """Return the target, with points for validation and test."""
    dataset = config.dataset
    if isinstance(dataset, PointsKeys):
        points = PointTarget(**dataset.arguments())
        log.info(points.note)
        for warning in points.warnings:
            log.warning(warning)
        validation, test = points.held_out.tensor_split(2)  # of a single point the test has none
        return points, validation, test
    assert isinstance(dataset, DensitiesKeys)
    target = known_density(*registered_data(config))
    validation = target.sample(dataset.validation, seeded(dataset.seed, "validation", 0))
    return target, validation, target.sample(dataset.test, seeded(dataset.seed, "test", 0))
