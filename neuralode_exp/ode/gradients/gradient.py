"""What a way to differentiate a solve is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from neuralode_exp.ode.walk import Walk


class SolveGradient(ABC):
    """From a walk to the states at its times, with their gradients."""

    @abstractmethod
    def observations(self, walk: Walk, listed: Sequence[Tensor]) -> Tensor:
        """Walk, and give the states at the times, shape (len(times), *z0.shape).

        Args:
            walk: the solve, not begun.
            listed: tensors that the caller says f depends on.
        """


def dependencies(walk: Walk, listed: Sequence[Tensor]) -> tuple[Tensor, ...] | None:
    """What f depends on; None if no gradient is asked for, as nothing needs one or nothing is solved."""
    if not torch.is_grad_enabled() or len(walk.times) == 1:
        return None
    found = walk.find_dependencies(listed)
    return found if found or walk.z0.requires_grad else None


def refuse_double_backward(gradient: str) -> None:
    """Backward runs with gradients enabled exactly when a graph of it is asked for (create_graph=True)."""
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"gradient={gradient!r} can be differentiated once, got backward(create_graph=True); "
            "use gradient='backprop' for higher derivatives"
        )
