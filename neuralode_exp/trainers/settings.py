"""What the models of all tasks read of a config."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

from neuralode_exp.config import Config, solver_arguments
from neuralode_exp.models.neural_ode import NeuralODE
from neuralode_exp.ode import SOLVERS, Gradient, Method, Reversible, make_method

Model = TypeVar("Model", bound=nn.Module)

DTYPES = {"float32": torch.float32, "float64": torch.float64}


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


def ready(model: Model, config: Config) -> Model:
    """The model in the precision of the run, with `solver.first_step=previous` where that is asked for."""
    solver = config.solver
    if solver.first_step == "previous" and "first_step" in SOLVERS[solver.name].keys:
        for part in model.modules():
            if isinstance(part, NeuralODE):
                part.start_from_previous()
    return model.to(dtype_of(config))
