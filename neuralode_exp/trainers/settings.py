"""Make what the models of all tasks need from a config: solver, gradient, field and registered data."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import nn

from neuralode_exp import user_files
from neuralode_exp.config import Config, solver_arguments
from neuralode_exp.config.options import data_of
from neuralode_exp.models.neural_ode import NeuralODE
from neuralode_exp.ode import SOLVERS, Gradient, Method, Reversible, make_method
from neuralode_exp.registry import Registered

Model = TypeVar("Model", bound=nn.Module)

DTYPES = {"float32": torch.float32, "float64": torch.float64, "bf16": torch.float32}  # of weights and states


def dtype_of(config: Config) -> torch.dtype:
    return DTYPES[config.precision]


def method_of(config: Config) -> Method:
    """Return the solver with the keys that it reads."""
    return make_method(**solver_arguments(config.solver))


def gradient_of(config: Config) -> Gradient:
    """Return the way in which solves are differentiated, with the keys that it reads."""
    if config.model.gradient != "reversible":
        return config.model.gradient
    return Reversible(config.solver.coupling, config.solver.stored_states)


def make_field(config: Config, dim: int, inputs: int = 0) -> nn.Module:
    """Return the vector field of the config, for states of shape (..., dim) and inputs of shape (..., inputs).

    The options of a user's field are `model.options`. Those of the package's fields are keys of `model`.

    Raises:
        ValueError: the files of `extensions` have not been imported.
    """
    model, entry = config.model, _field_entry(config)
    options = model.options
    if user_files.find("field", model.field, ()):  # null means the default of the package's field
        options = {key: value for key in entry.options if (value := getattr(model, key)) is not None}
    field: nn.Module = entry.make(dim, *([inputs] if entry.driven else []), **options)
    return field


def sees_inputs(config: Config) -> bool:
    """Return whether the field takes the inputs of the data."""
    return _field_entry(config).driven


def _field_entry(config: Config) -> Registered:
    entry = user_files.find("field", config.model.field, config.extensions)
    if entry is None:
        files = list(config.extensions)
        raise ValueError(f"{config.model.field} must be a field of a file that is imported, got {files}")
    return entry


def registered_data(config: Config) -> tuple[Registered, dict[str, Any]]:
    """Return the registered system or density of the config, with its options.

    Raises:
        ValueError: the files of `extensions` have not been imported.
    """
    found = data_of(config.dataset, config.extensions)
    if found is None:
        raise ValueError(
            f"dataset={config.dataset.name} must be registered by a file that is imported, got "
            f"{list(config.extensions)}"
        )
    return found


def ready(model: Model, config: Config) -> Model:
    """Return the model in the precision of the run, and set up `solver.first_step=previous` if it is asked for."""
    solver = config.solver
    if solver.first_step == "previous" and "first_step" in SOLVERS[solver.name].keys:
        for part in model.modules():
            if isinstance(part, NeuralODE):
                part.start_from_previous()
    return model.to(dtype_of(config))
