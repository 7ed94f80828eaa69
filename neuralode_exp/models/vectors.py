"""Networks for labelled points: no stem, then blocks with the field of dynamics, then a linear classifier."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from neuralode_exp.models.classifier import Blocks, Classifier, ODEBlock


class VectorNet(Classifier):
    """W body((x, 0)) + b: maps points (B, d), with `augment` zeros appended, to logits (B, classes).

    Solutions of an ODE do not cross. So classes of which one encircles the other cannot be separated in the space of
    the points themselves, but they can with one more dimension (Dupont et al. 2019, https://arxiv.org/abs/1904.01681).

    Args:
        dim: d.
        classes: number of classes.
        body: blocks on states (B, d + augment).
        augment: number of zeros.
    """

    def __init__(self, dim: int, classes: int, body: Blocks | ODEBlock, augment: int = 0) -> None:
        super().__init__()
        self.dim, self.augment, self.body = dim, augment, body
        self.classifier = nn.Linear(dim + augment, classes)

    def features(self, x: Tensor) -> Tensor:
        if x.dim() != 2 or x.shape[1] != self.dim or not x.is_floating_point():
            raise ValueError(f"points must be floats of shape (B, {self.dim}), got {x.dtype} {tuple(x.shape)}")
        return F.pad(x, (0, self.augment))

    def classify(self, z: Tensor) -> Tensor:
        return self.classifier(z)


class EulerStep(nn.Module):
    """z + f(0, z): a residual block of a field. Unlike solutions of the ODE, its paths may cross."""

    def __init__(self, field: nn.Module) -> None:
        super().__init__()
        self.field = field

    def forward(self, z: Tensor) -> Tensor:
        return z + self.field(z.new_zeros(()), z)
