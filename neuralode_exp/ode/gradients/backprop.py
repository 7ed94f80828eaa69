"""gradient="backprop": autograd through the steps."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from neuralode_exp.ode.gradients.gradient import SolveGradient
from neuralode_exp.ode.walk import Walk


class Backprop(SolveGradient):
    """Keeps every stage. It can be differentiated any number of times."""

    differentiates_errors = True

    def observations(self, walk: Walk, listed: Sequence[Tensor]) -> Tensor:
        return walk.run()
