"""Networks for 28 x 28 grey images: one stem and one classifier, and between them what depth is made of.

The shapes and sizes are those of torchdiffeq's MNIST example
(https://github.com/rtqichen/torchdiffeq/blob/master/examples/odenet_mnist.py).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuralode_exp.models.blocks import ODEBlock, ResidualBlocks, make_norm
from neuralode_exp.ode import Gradient, Method, Stats

PIXELS = 28


class Stem(nn.Module):
    """Three convolutions with norms between them, (B, 1, 28, 28) to features (B, C, 6, 6).

    The second convolution, two thirds of the work, runs in channels_last, where it is a quarter faster on a CPU;
    torch's group norm is four times slower there, so what follows is contiguous.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, channels, 3)
        self.norm1 = make_norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 4, stride=2, padding=1)
        self.norm2 = make_norm(channels)
        self.conv3 = nn.Conv2d(channels, channels, 4, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        z = F.relu(conv_group_norm(x, self.conv1, self.norm1), inplace=True)
        z = self.conv2(z.unflatten(1, (PIXELS - 2, PIXELS - 2)).permute(0, 3, 1, 2))
        return self.conv3(F.relu(self.norm2(z.contiguous()), inplace=True))


def conv_group_norm(x: Tensor, conv: nn.Conv2d, norm: nn.GroupNorm) -> Tensor:
    """norm(conv(x)) of a 3x3 convolution of grey images, without ever forming conv(x).

    With p the 9 pixels under the kernel, channel c is w_c . p + b_c. Over an image it has the mean w_c . mean(p) + b_c
    and the variance w_c^T cov(p) w_c, so the statistics of a group follow from the mean and covariance of 9 numbers,
    and the normalised image is again a linear map of p, one for each image. The convolution's output, the largest
    tensor of these networks, is written once instead of being written, read, normalised and written again.

    Args:
        x: images, shape (B, 1, h, w).

    Returns:
        shape (B, (h - 2) * (w - 2), C).
    """
    assert conv.bias is not None
    patches = F.unfold(x, 3)  # (B, 9, S)
    mean = patches.mean(2, keepdim=True)
    patches = patches - mean
    covariance = patches @ patches.mT / patches.shape[2]

    groups, weight, bias = norm.num_groups, conv.weight.flatten(1), conv.bias
    channel_mean = (weight @ mean).squeeze(2) + bias  # (B, C)
    channel_var = (weight @ covariance * weight).sum(2)
    mean_g = channel_mean.unflatten(1, (groups, -1))
    offset = (mean_g - mean_g.mean(2, keepdim=True)).flatten(1)  # of a channel from its group
    var = (channel_var + offset.square()).unflatten(1, (groups, -1)).mean(2, keepdim=True)
    scale = (norm.weight.view(groups, -1) * (var + norm.eps).rsqrt()).flatten(1)  # (B, C)

    maps = torch.cat([weight * scale[:, :, None], (norm.bias + scale * offset)[:, :, None]], dim=2)  # (B, C, 10)
    ones = torch.ones_like(patches[:, :1])
    return torch.cat([patches, ones], dim=1).mT @ maps.mT


class Classifier(nn.Module):
    """Norm, ReLU, mean over the image and one linear layer: features (B, C, n, n) to logits (B, classes)."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = make_norm(channels)
        self.linear = nn.Linear(channels, classes)

    def forward(self, z: Tensor) -> Tensor:
        return self.linear(F.relu(self.norm(z), inplace=True).mean((2, 3)))


class NoDepth(nn.Module):
    """Nothing between stem and classifier: the control that shows how much the stem does alone."""

    def __init__(self) -> None:
        super().__init__()
        self.stats = Stats()

    def forward(self, z: Tensor) -> Tensor:
        return z


class ConvNet(nn.Module):
    """classifier(body(stem(x))): images (B, 1, 28, 28) to logits (B, classes).

    Attributes:
        body: `NoDepth`, `ResidualBlocks` or `ODEBlock`. A trained ODE-Net is evaluated under another solver by
            `model.body.ode.method = make_method(...)`.
    """

    def __init__(self, channels: int, body: NoDepth | ResidualBlocks | ODEBlock, classes: int = 10) -> None:
        super().__init__()
        self.stem = Stem(channels)
        self.body = body
        self.classifier = Classifier(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.body(self.features(x)))

    def features(self, x: Tensor) -> Tensor:
        """The state before the first block, (B, C, 6, 6): z(0) of the ODE."""
        _check_images(x)
        return self.stem(x)

    @property
    def stats(self) -> Stats:
        """What the last forward pass cost, and its backward pass once that has run."""
        return self.body.stats


class MLP(nn.Module):
    """One hidden layer: images (B, 1, 28, 28) to logits (B, 10)."""

    def __init__(self, hidden: int, classes: int = 10) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(PIXELS**2, hidden), nn.ReLU(), nn.Linear(hidden, classes))
        self.stats = Stats()

    def forward(self, x: Tensor) -> Tensor:
        _check_images(x)
        return self.layers(x.flatten(1))


def image_model(
    name: str,
    *,
    method: Method | None = None,
    gradient: Gradient | None = None,
    classes: int = 10,
    channels: int = 64,
    blocks: int = 6,
    hidden: int = 300,
) -> ConvNet | MLP:
    """Make a network for images (B, 1, 28, 28), floats, that returns logits (B, classes).

    `rknet` and `odenet` are one network with the same state_dict; they differ in how its gradient is computed.

    Args:
        name: mlp, stem, resnet, rknet or odenet.
        method: solver of the ODE block, from `make_method`; needed by rknet and odenet.
        gradient: of the ODE block: backprop, checkpoint or adjoint; None takes the one that the name stands for.
        classes: number of logits.
        channels: of the convolutions: at most 32, or a multiple of 32.
        blocks: residual blocks of resnet.
        hidden: width of mlp.

    Raises:
        ValueError: for an unknown name, an ODE block without a method, or channels that cannot be grouped.
    """

    def ode_net(default: Gradient) -> ConvNet:
        if method is None:
            raise ValueError(f"{name} solves an ODE and needs `method`, got None; make one with make_method")
        return ConvNet(channels, ODEBlock(channels, method, gradient or default), classes)

    models: dict[str, Callable[[], ConvNet | MLP]] = {
        "mlp": lambda: MLP(hidden, classes),
        "stem": lambda: ConvNet(channels, NoDepth(), classes),
        "resnet": lambda: ConvNet(channels, ResidualBlocks(channels, blocks), classes),
        "rknet": lambda: ode_net("backprop"),
        "odenet": lambda: ode_net("adjoint"),
    }
    if name not in models:
        raise ValueError(f"`name` must be one of {', '.join(models)}, got {name!r}")
    return models[name]()


def _check_images(x: Tensor) -> None:
    if x.dim() != 4 or x.shape[1:] != (1, PIXELS, PIXELS) or not x.is_floating_point():
        dtype = str(x.dtype).removeprefix("torch.")
        raise ValueError(f"images must be floats of shape (B, 1, {PIXELS}, {PIXELS}), got {dtype} {tuple(x.shape)}")
