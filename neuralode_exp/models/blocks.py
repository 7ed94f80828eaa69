"""What stands between the image stem and the classifier: residual blocks, or one ODE block.

Both map features (B, C, n, n) to features of the same shape and count what that cost in `stats`. Inside, states are
space first and batch last (see `frequency_conv`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuralode_exp.models.frequency_conv import convolve, spectrum, to_images, to_space_first
from neuralode_exp.models.group_norm import group_norm
from neuralode_exp.models.neural_ode import NeuralODE
from neuralode_exp.ode import Gradient, Method, Stats


def make_norm(channels: int) -> nn.GroupNorm:
    """GroupNorm with 32 groups, or one for each channel if there are fewer.

    Raises:
        ValueError: if 32 groups cannot share the channels evenly.
    """
    if channels < 1 or (channels > 32 and channels % 32):
        raise ValueError(f"`channels` must be at most 32 or a multiple of 32, got {channels}; 64 is the usual choice")
    return nn.GroupNorm(min(32, channels), channels)


def _norm_relu(z: Tensor, norm: nn.GroupNorm) -> Tensor:
    return F.relu(group_norm(z, norm), inplace=True)


class ResidualBlock(nn.Module):
    """z + conv(relu(norm(conv(relu(norm(z)))))): pre-activation (arXiv 1603.05027), convolutions without bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = make_norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = make_norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        """z: (n * n, C, B)."""
        n = math.isqrt(z.shape[0])
        dz = convolve(_norm_relu(z, self.norm1), spectrum(self.conv1.weight, n))
        return z + convolve(_norm_relu(dz, self.norm2), spectrum(self.conv2.weight, n))


class ResidualBlocks(nn.Module):
    """The discrete way of depth: `blocks` residual blocks in a row, features (B, C, n, n) to the same shape."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*[ResidualBlock(channels) for _ in range(blocks)])
        self.stats = Stats(nfe_forward=blocks, nfe_backward=blocks)

    def forward(self, z: Tensor) -> Tensor:
        return to_images(self.blocks(to_space_first(z)))


class TimeConv(nn.Module):
    """3x3 convolution of an image and a constant channel of value t.

        conv2d([t 1, z], [time_weight, weight]) + bias = conv2d(z, weight) + bias + t conv2d(1, time_weight),

    all zero-padded: the time channel is t times a fixed image. The same function, initialisation (torch's for
    C + 1 input channels) and number of parameters as torchdiffeq's `ConcatConv2d(C, C, 3, 1, 1)`, with its weight
    kept as two parameters.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        self.time_weight = nn.Parameter(torch.empty(channels, 1, 3, 3))
        self.bias = nn.Parameter(torch.empty(channels))
        bound = 1 / math.sqrt((channels + 1) * 9)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def prepare(self, n: int) -> PreparedConv:
        """What of it does not depend on (t, z), for images of n x n pixels."""
        ones = self.time_weight.new_ones(1, 1, n, n)
        time_map = F.conv2d(ones, self.time_weight, padding=1)
        return PreparedConv(spectrum(self.weight, n), self.bias[:, None], to_space_first(time_map))


class PreparedConv(NamedTuple):
    """A `TimeConv` for one size of image: weight (K, 2 C, 2 C), bias (C, 1), time_map (n * n, C, 1)."""

    weight: Tensor
    bias: Tensor
    time_map: Tensor

    def __call__(self, t: Tensor, z: Tensor) -> Tensor:
        return convolve(z, self.weight) + (self.bias + t * self.time_map)


class ConvField(nn.Module):
    """The vector field of the ODE block,

        f(t, z) = norm(conv(t, relu(norm(conv(t, relu(norm(z))))))),

    as in torchdiffeq's MNIST example. The network itself is f(t, z) on images; a solve, which evaluates it many times
    with the same weights, uses `prepare`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = make_norm(channels)
        self.conv1 = TimeConv(channels)
        self.norm2 = make_norm(channels)
        self.conv2 = TimeConv(channels)
        self.norm3 = make_norm(channels)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """dz/dt for a scalar t and z of shape (B, C, n, n)."""
        f, _ = self.prepare(z.shape[-1])
        return to_images(f(t, to_space_first(z)))

    def prepare(self, n: int) -> tuple[Callable[[Tensor, Tensor], Tensor], tuple[Tensor, ...]]:
        """f(t, z) for z of shape (n * n, C, B), with the weights transformed once, and the tensors it depends on.

        Gradients reach the parameters through those tensors, which belong to one forward pass.
        """
        conv1, conv2 = self.conv1.prepare(n), self.conv2.prepare(n)

        def f(t: Tensor, z: Tensor) -> Tensor:
            z = conv1(t, _norm_relu(z, self.norm1))
            z = conv2(t, _norm_relu(z, self.norm2))
            return group_norm(z, self.norm3)

        norms = [p for norm in (self.norm1, self.norm2, self.norm3) for p in norm.parameters()]
        return f, (*conv1, *conv2, *norms)


class ODEBlock(nn.Module):
    """The continuous way of depth: z(1) of dz/dt = f(t, z), z(0) = the features (B, C, n, n).

    Attributes:
        ode: what solves it; a trained block is solved by another method after `block.ode.method = make_method(...)`.
    """

    def __init__(self, channels: int, method: Method, gradient: Gradient) -> None:
        super().__init__()
        self.ode = NeuralODE(ConvField(channels), method, gradient)

    def forward(self, z: Tensor) -> Tensor:
        f, tensors = self.ode.field.prepare(z.shape[-1])
        return to_images(self.ode(to_space_first(z), (0.0, 1.0), f, tensors)[-1])

    @property
    def stats(self) -> Stats:
        return self.ode.stats
