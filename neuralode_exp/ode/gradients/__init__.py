"""The ways to differentiate a solve: for each a class with one method, which returns the observations of a walk."""

from __future__ import annotations

from neuralode_exp.ode.gradients.adjoint import Adjoint
from neuralode_exp.ode.gradients.backprop import Backprop
from neuralode_exp.ode.gradients.checkpoint import Checkpoint
from neuralode_exp.ode.gradients.gradient import SolveGradient
from neuralode_exp.ode.gradients.reversible import Reversible

GRADIENTS: dict[str, type[SolveGradient]] = {
    "backprop": Backprop,
    "checkpoint": Checkpoint,
    "adjoint": Adjoint,
    "reversible": Reversible,
}

__all__ = ["GRADIENTS", "Adjoint", "Backprop", "Checkpoint", "Reversible", "SolveGradient"]
