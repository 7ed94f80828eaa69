"""Does a trained network still represent an ODE, or does it depend on the steps that it was trained with?

The test follows Ott et al., ResNet after all? Neural ODEs and their numerical solution (arXiv 2007.15386): solve the
trained vector field far more accurately, and measure what changes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from torch import Tensor, nn

from neuralode_exp.models.neural_ode import NeuralODE
from neuralode_exp.ode import Adaptive, FixedStep, Method, SolverError, TorchdiffeqMethod, make_method

Model = TypeVar("Model", bound=nn.Module)

TIGHTER = 100.0
TIGHTEST = 1e-9
REFERENCE = 1e-6
SAMPLES = 1000  # the most test samples that are solved again


def accurate_method(method: Method) -> Method:
    """Return the method with tolerances 100x tighter, but not below 1e-9. Fixed steps become dopri5 at 1e-6."""
    if isinstance(method, FixedStep) or (isinstance(method, TorchdiffeqMethod) and method.step_size is not None):
        return make_method("dopri5", rtol=REFERENCE, atol=REFERENCE, max_steps=100_000)
    assert isinstance(method, Adaptive | TorchdiffeqMethod)
    return replace(
        method,
        rtol=max(method.rtol / TIGHTER, TIGHTEST),
        atol=max(method.absolute_tolerance / TIGHTER, TIGHTEST),
        max_steps=100_000,
    )


def consistency(model: Model, measure: Callable[[Model], tuple[Tensor, Tensor | float]]) -> dict[str, float]:
    """Return by tag how much an accurate solve changes a trained model's states (relatively) and its error.

    Args:
        model: a model with any number of `NeuralODE` in it. Without one the result is empty.
        measure: returns the states and the error of a model. It is called with copies in float64.
    """
    copied = copy.deepcopy(model).double()
    odes = [part for part in copied.modules() if isinstance(part, NeuralODE)]
    if not odes:
        return {}
    try:
        z, error = measure(copied)
        for ode in odes:
            ode.method = accurate_method(ode.method)
        reference, reference_error = measure(copied)
    except SolverError:
        return {"solver/consistency": float("inf")}
    return {
        "solver/consistency": relative_change(z, reference),
        "solver/consistency_error": abs(float(error - reference_error)),
    }


def relative_change(z: Tensor, reference: Tensor) -> float:
    """Return ||z - reference|| / ||reference|| over all entries."""
    return float((z - reference).norm() / reference.norm().clamp(min=1e-300))
