"""A multilayer perceptron as a vector field."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "softplus": nn.functional.softplus,
    "silu": nn.functional.silu,
}
# Derivatives of the activations.
SLOPES: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": lambda a: 1 - torch.tanh(a).square(),
    "softplus": torch.sigmoid,
    "silu": lambda a: torch.sigmoid(a) * (1 + a * torch.sigmoid(-a)),
}


class MLPField(nn.Module):
    """dz/dt = h_L W_L + b_L, h_l = act(h_{l-1} W_{l-1} + b_{l-1}), h_0 = z, for states z of shape (..., d).

    It does not depend on t. With inputs u of shape (..., m), h_0 is (z, u). Weights have the shape (inputs, outputs)
    and are initially uniform in +-1 / sqrt(inputs), as those of `nn.Linear`. Biases have the shape (1, outputs), so
    that the same code works for stacked parameters with a first axis of R replicas, on states of shape (R, B, d).

    Args:
        dim: d.
        inputs: m.
        width: units of a hidden layer.
        depth: number L of hidden layers; 0 makes the field affine.
        activation: `tanh`, `softplus` or `silu`.
        outputs: number of outputs; None: d, as a vector field has. With 1 output `gradient` can be used.

    Example:
        >>> import torch
        >>> from neuralode_exp.models.fields.mlp import MLPField
        >>> MLPField(2)(torch.tensor(0.0), torch.zeros(10, 2)).shape
        torch.Size([10, 2])
    """

    def __init__(
        self,
        dim: int,
        inputs: int = 0,
        *,
        width: int = 64,
        depth: int = 2,
        activation: str = "silu",
        outputs: int | None = None,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"`activation` must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        self.activation, self.slope = ACTIVATIONS[activation], SLOPES[activation]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        sizes = [dim + inputs, *[width] * depth, outputs or dim]
        for inputs, outputs in zip(sizes, sizes[1:], strict=False):
            bound = 1 / math.sqrt(inputs)
            for tensors, rows in ((self.weights, inputs), (self.biases, 1)):
                tensors.append(torch.empty(rows, outputs).uniform_(-bound, bound))

    def forward(self, t: Tensor, z: Tensor, u: Tensor | None = None) -> Tensor:
        """Evaluate dz/dt at z and u; t is not used."""
        *hidden, (weight, bias) = zip(self.weights, self.biases, strict=True)
        h = z if u is None else torch.cat((z, u), -1)
        for w, b in hidden:
            h = self.activation(_affine(h, w, b))
        return _affine(h, weight, bias)

    def gradient(self, z: Tensor) -> Tensor:
        """Evaluate dh/dz, shape (..., d), for a network with one output h.

        The chain rule is written out in plain operations, so that every kind of gradient of a solve works with it.
        """
        *hidden, (weight, _) = zip(self.weights, self.biases, strict=True)
        h, slopes = z, []
        for w, b in hidden:
            a = _affine(h, w, b)
            h = self.activation(a)
            slopes.append(self.slope(a))
        row = weight.mT if weight.dim() == 3 else weight[:, 0]
        gradient = row.expand(*z.shape[:-1], -1)
        for (w, _), slope in zip(reversed(hidden), reversed(slopes), strict=True):
            gradient = (gradient * slope) @ w.mT
        return gradient


def _affine(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Return h W + b, as one fused product for the shapes of training."""
    if weight.dim() == 3:
        return torch.baddbmm(bias, h, weight)
    return torch.addmm(bias, h, weight) if h.dim() == 2 else h @ weight + bias.squeeze(0)
