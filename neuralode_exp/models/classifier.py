"""The common parts of classifiers with depth: features, the blocks, and a last layer that gives logits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from neuralode_exp.models.neural_ode import NeuralODE
from neuralode_exp.ode import Gradient, Method, Stats


class Blocks(nn.Module):
    """Discrete depth: residual blocks in a row. Without blocks it is a control that passes the features on."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.stats = Stats(nfe_forward=len(blocks), nfe_backward=len(blocks))

    def forward(self, z: Tensor) -> Tensor:
        return self.blocks(z)


class ODEBlock(nn.Module):
    """Continuous depth: z(1) of dz/dt = f(t, z), where z(0) are the features.

    Under autocast f is evaluated in the lower precision, and the state keeps the precision of the weights.
    """

    def __init__(self, field: nn.Module, method: Method, gradient: Gradient) -> None:
        super().__init__()
        self.ode = NeuralODE(field, method, gradient)

    def forward(self, z: Tensor) -> Tensor:
        return self.ode(z.to(next(self.ode.field.parameters(), z).dtype), (0.0, 1.0))[-1]

    @property
    def stats(self) -> Stats:
        return self.ode.stats


class Classifier(nn.Module, ABC):
    """Logits (B, classes) = classify(body(features(x)))."""

    body: Blocks | ODEBlock

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.body(self.features(x)))

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """Return the state before the blocks."""

    @abstractmethod
    def classify(self, z: Tensor) -> Tensor:
        """Return the logits of the state after the blocks."""

    @property
    def stats(self) -> Stats:
        return self.body.stats
