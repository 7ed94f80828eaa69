"""Networks for images: a stem, then residual blocks or one ODE block, then a classifier.

The layers are those of https://github.com/rtqichen/torchdiffeq/blob/master/examples/odenet_mnist.py.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from neuralode_exp.models.classifier import Blocks, Classifier, ODEBlock
from neuralode_exp.ode import Gradient, Method, Stats

Image = tuple[int, int, int]  # channels, height and width


def make_norm(channels: int) -> nn.GroupNorm:
    """Return GroupNorm (arXiv 1803.08494) with 32 groups, or one for each channel if there are fewer channels."""
    if channels < 1 or (channels > 32 and channels % 32):
        raise ValueError(f"`channels` must be at most 32 or a multiple of 32, got {channels}; 64 is the usual choice")
    return nn.GroupNorm(min(32, channels), channels)


class Stem(nn.Module):
    """Three convolutions with norms between them: images (B, c, h, w) to features (B, C, h', w').

    The last two halve a side of 8 pixels or more (28 to 26, 13, 6) and shorten a smaller one by 1 (8 to 6, 5, 4).
    """

    def __init__(self, image: Image, channels: int) -> None:
        super().__init__()
        side = min(image[1:]) - 2
        strides = (2 if side >= 8 else 1, 2 if side >= 16 else 1)
        self.conv1 = nn.Conv2d(image[0], channels, 3)
        self.norm1 = make_norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 4, strides[0], padding=1)
        self.norm2 = make_norm(channels)
        self.conv3 = nn.Conv2d(channels, channels, 4, strides[1], padding=1)

    def forward(self, x: Tensor) -> Tensor:
        z = F.relu_(self.norm1(self.conv1(x)))
        z = F.relu_(self.norm2(self.conv2(z)))
        return self.conv3(z)


class ResidualBlock(nn.Module):
    """z + conv(relu(norm(conv(relu(norm(z)))))): pre-activation (arXiv 1603.05027), convolutions without bias."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = make_norm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = make_norm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        dz = self.conv1(F.relu_(self.norm1(z)))
        return z + self.conv2(F.relu_(self.norm2(dz)))


class TimeConv(nn.Module):
    """3x3 convolution, zero-padded, of an image and a constant channel with the value t:

        conv([t 1, z], [time_weight, weight]) + bias = conv(z, weight) + bias + t conv(1, time_weight).

    Function, initialisation and number of parameters are those of torchdiffeq's `ConcatConv2d(C, C, 3, 1, 1)`.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(channels, channels, 3, 3))
        self.time_weight = nn.Parameter(torch.empty(channels, 1, 3, 3))
        self.bias = nn.Parameter(torch.empty(channels))
        bound = 1 / math.sqrt((channels + 1) * 9)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        time_map = F.conv2d(torch.ones_like(z[:1, :1]), self.time_weight, padding=1)
        return F.conv2d(z, self.weight, self.bias, padding=1) + t * time_map


class ConvField(nn.Module):
    """f(t, z) = norm(conv(t, relu(norm(conv(t, relu(norm(z))))))) for a scalar t and z of shape (B, C, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = make_norm(channels)
        self.conv1 = TimeConv(channels)
        self.norm2 = make_norm(channels)
        self.conv2 = TimeConv(channels)
        self.norm3 = make_norm(channels)

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        dz = self.conv1(t, F.relu_(self.norm1(z)))
        dz = self.conv2(t, F.relu_(self.norm2(dz)))
        return self.norm3(dz)


class ConvNet(Classifier):
    """classifier(body(features(x))) for images (B, c, h, w); features are the stem's with `augment` channels of zeros.

    The zeros give the state room to move in (Dupont et al. 2019, https://arxiv.org/abs/1904.01681, Sec. 4).
    """

    def __init__(self, image: Image, classes: int, channels: int, body: Blocks | ODEBlock, augment: int = 0) -> None:
        super().__init__()
        self.image, self.augment = image, augment
        self.stem = Stem(image, channels)
        self.body = body
        channels += augment
        self.classifier = nn.ModuleDict({"norm": make_norm(channels), "linear": nn.Linear(channels, classes)})

    def classify(self, z: Tensor) -> Tensor:
        return self.classifier["linear"](F.relu_(self.classifier["norm"](z)).mean((2, 3)))

    def features(self, x: Tensor) -> Tensor:
        _check(x, self.image)
        z = self.stem(x)
        return F.pad(z, (0, 0, 0, 0, 0, self.augment)) if self.augment else z


class MLP(nn.Module):
    """One hidden layer: images (B, c, h, w) to logits (B, classes)."""

    def __init__(self, image: Image, classes: int, hidden: int) -> None:
        super().__init__()
        self.image, self.stats = image, Stats()
        self.layers = nn.Sequential(nn.Linear(math.prod(image), hidden), nn.ReLU(), nn.Linear(hidden, classes))

    def forward(self, x: Tensor) -> Tensor:
        _check(x, self.image)
        return self.layers(x.flatten(1))


def image_model(
    name: str,
    image: Image = (1, 28, 28),
    classes: int = 10,
    *,
    method: Method | None = None,
    gradient: Gradient | None = None,
    channels: int = 64,
    blocks: int = 6,
    hidden: int = 300,
    field: nn.Module | None = None,
    augment: int = 0,
) -> ConvNet | MLP:
    """Make a network that takes normalised images (B, *image), floats, and returns logits (B, classes).

    Args:
        name: mlp, stem, resnet, rknet or odenet; the last two have the same state_dict.
        image: channels, height and width.
        classes: number of classes.
        method: the method of the ODE block, from `make_method`; rknet and odenet need it.
        gradient: how the ODE block is differentiated; None: `backprop` for rknet, `adjoint` for odenet.
        channels: channels of the stem and the blocks, at most 32 or a multiple of 32.
        blocks: number of residual blocks of resnet.
        hidden: number of hidden units of mlp.
        field: vector field of the ODE block, on (B, channels + augment, h, w); None: `ConvField`.
        augment: number of channels of zeros beside those of the stem.
    """
    defaults: dict[str, Gradient] = {"rknet": "backprop", "odenet": "adjoint"}
    if name not in (names := ("mlp", "stem", "resnet", *defaults)):
        raise ValueError(f"`name` must be one of {', '.join(names)}, got {name!r}")
    if name == "mlp":
        return MLP(image, classes, hidden)
    body: Blocks | ODEBlock
    if name not in defaults:
        body = Blocks([ResidualBlock(channels + augment) for _ in range(blocks if name == "resnet" else 0)])
    elif method is None:
        raise ValueError(f"{name} solves an ODE and needs `method`, got None; make one with make_method")
    else:
        body = ODEBlock(field or ConvField(channels + augment), method, gradient or defaults[name])
    return ConvNet(image, classes, channels, body, augment)


def _check(x: Tensor, image: Image) -> None:
    if x.dim() != 4 or tuple(x.shape[1:]) != image or not x.is_floating_point():
        raise ValueError(f"images must be floats of shape (B, {str(image)[1:-1]}), got {x.dtype} {tuple(x.shape)}")
