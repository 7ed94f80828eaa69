"""What the models of all tasks read of a config."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from neuralode_exp import extend
from neuralode_exp.config import Config, solver_arguments
from neuralode_exp.config.schema import FIELDS
from neuralode_exp.models.neural_ode import NeuralODE
from neuralode_exp.ode import SOLVERS, Gradient, Method, Reversible, make_method

Model = TypeVar("Model", bound=nn.Module)

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bf16": torch.float32}  # of weights and states


def dtype_of(config: Config) -> torch.dtype:
    return DTYPES[config.precision]


def method_of(config: Config) -> Method:
    """The solver, with the keys that it reads."""
    return make_method(**solver_arguments(config.solver))


def gradient_of(config: Config) -> Gradient:
    """How the solves are differentiated, with the keys that it reads."""
    if config.model.gradient != "reversible":
        return config.model.gradient
    return Reversible(config.solver.coupling, config.solver.stored_states)


def registered_field(config: Config, dim: int) -> nn.Module | None:
    """The field that the user registered, for d = dim; None where the config names one of the package."""
    if config.model.field in FIELDS:
        return None
    field: nn.Module = registered("field", config.model.field, config).make(dim, **config.model.options)
    return field


def registered(kind: extend.Kind, name: str, config: Config) -> extend.Registered:
    """What the user registered by a name.

    Raises:
        ValueError: the files of `extensions` have not been imported.
    """
    entry = extend.find(kind, name, config.extensions)
    if entry is None:
        raise ValueError(f"{name} must be a {kind} of a file that is imported, got {list(config.extensions)}")
    return entry


def ready(model: Model, config: Config) -> Model:
    """The model in the precision of the run, with `solver.first_step=previous` where that is asked for."""
    solver = config.solver
    if solver.first_step == "previous" and "first_step" in SOLVERS[solver.name].keys:
        for part in model.modules():
            if isinstance(part, NeuralODE):
                part.start_from_previous()
    return model.to(dtype_of(config))
