"""Is the trained net still the ODE that it was trained as, or a net that needs the very steps it was trained with?

After Ott et al., ResNet after all? Neural ODEs and their numerical solution (arXiv 2007.15386): solve the trained
vector field far more accurately and see what changes.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from neuralode_exp.ode import Adaptive, FixedStep, Method, TorchdiffeqMethod, make_method

TIGHTER = 100.0
TIGHTEST = 1e-9
REFERENCE = 1e-6
SAMPLES = 1000  # at most so many test samples are solved again


def accurate_method(method: Method) -> Method:
    """The same method with tolerances 100x tighter, not below 1e-9; for fixed steps dopri5 at 1e-6."""
    if isinstance(method, FixedStep) or (isinstance(method, TorchdiffeqMethod) and method.step_size is not None):
        return make_method("dopri5", rtol=REFERENCE, atol=REFERENCE, max_steps=100_000)
    assert isinstance(method, Adaptive | TorchdiffeqMethod)
    return replace(
        method,
        rtol=max(method.rtol / TIGHTER, TIGHTEST),
        atol=max(method.absolute_tolerance / TIGHTER, TIGHTEST),
        max_steps=100_000,
    )


def relative_change(z: Tensor, reference: Tensor) -> float:
    """||z - reference|| / ||reference|| over all entries."""
    return float((z - reference).norm() / reference.norm().clamp(min=1e-300))
