"""What all classifiers with a depth have in common: features, the blocks, and a layer that reads classes off."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from neuralode_exp.models.neural_ode import NeuralODE
from neuralode_exp.ode import Gradient, Method, Stats


class Blocks(nn.Module):
    """The discrete way of depth: residual blocks in a row; none of them is the control, features alone."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.stats = Stats(nfe_forward=len(blocks), nfe_backward=len(blocks))

    def forward(self, z: Tensor) -> Tensor:
        return self.blocks(z)


class ODEBlock(nn.Module):
    """The continuous way of depth: z(1) of dz/dt = f(t, z), z(0) = the features.

    Under autocast f is evaluated in the lower precision, and the state keeps that of the weights.
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
        """The state before the blocks."""

    @abstractmethod
    def classify(self, z: Tensor) -> Tensor:
        """Logits of the state after them."""

    @property
    def stats(self) -> Stats:
        return self.body.stats
