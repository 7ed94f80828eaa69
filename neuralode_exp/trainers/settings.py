"""What the models of all tasks read of a config."""

from __future__ import annotations

import torch

from neuralode_exp.config import Config, solver_arguments
from neuralode_exp.ode import Method, make_method

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def dtype_of(config: Config) -> torch.dtype:
    return DTYPES[config.precision]


def method_of(config: Config) -> Method:
    """The solver, with the keys that it reads."""
    return make_method(**solver_arguments(config.solver))


def depth_of(config: Config, default: int) -> int:
    """Hidden layers of the field: none if it is linear."""
    return 0 if config.model.field == "linear" else config.model.depth or default
