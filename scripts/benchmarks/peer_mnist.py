"""The peer of `benchmark.py train` and `gpu`: torchdiffeq's MNIST example, its networks and its data loading.

It follows https://github.com/rtqichen/torchdiffeq/blob/master/examples/odenet_mnist.py: NCHW, time concatenated as a
channel, `odeint` or `odeint_adjoint` at rtol = atol = 1e-3, a DataLoader with two workers whose transforms are PIL's
random crop with padding 4 and the conversion to a tensor (written out here, as torchvision has them).
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import torch
import torchdiffeq
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset


def norm(dim: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, dim), dim)


class ResBlock(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = norm(dim), norm(dim)
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(self.relu(self.norm1(x)))
        return self.conv2(self.relu(self.norm2(out))) + x


class ConcatConv2d(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(dim + 1, dim, 3, padding=1)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.layer(torch.cat([torch.ones_like(x[:, :1]) * t, x], 1))


class ODEfunc(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = norm(dim), norm(dim), norm(dim)
        self.relu = nn.ReLU(inplace=True)
        self.conv1, self.conv2 = ConcatConv2d(dim), ConcatConv2d(dim)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        out = self.conv1(t, self.relu(self.norm1(x)))
        return self.norm3(self.conv2(t, self.relu(self.norm2(out))))


class ODEBlock(nn.Module):
    def __init__(self, dim: int, adjoint: bool, tolerance: float) -> None:
        super().__init__()
        self.odefunc, self.tolerance = ODEfunc(dim), tolerance
        self.odeint = torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint

    def forward(self, x: Tensor) -> Tensor:
        t = torch.tensor([0.0, 1.0], device=x.device)
        return self.odeint(self.odefunc, x, t, rtol=self.tolerance, atol=self.tolerance)[1]


def peer_model(name: str, tolerance: float = 1e-3) -> nn.Sequential:
    """`resnet`, `rknet` (backpropagation through the solver) or `odenet` (adjoint)."""
    stem = [
        nn.Conv2d(1, 64, 3, 1),
        norm(64),
        nn.ReLU(inplace=True),
        nn.Conv2d(64, 64, 4, 2, 1),
        norm(64),
        nn.ReLU(inplace=True),
        nn.Conv2d(64, 64, 4, 2, 1),
    ]
    body = [ResBlock(64) for _ in range(6)] if name == "resnet" else [ODEBlock(64, name == "odenet", tolerance)]
    head = [norm(64), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(64, 10)]
    return nn.Sequential(*stem, *body, *head)


class PilImages(Dataset[tuple[Tensor, int]]):
    """One image at a time, padded and then cropped at random, as by torchvision's RandomCrop(28, padding=4)."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images = [Image.fromarray(image.numpy()) for image in images[:, 0]]
        self.labels = labels.tolist()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        padded = ImageOps.expand(self.images[i], border=4)
        left, top = random.randint(0, 8), random.randint(0, 8)
        pixels = np.asarray(padded.crop((left, top, left + 28, top + 28)), dtype=np.float32)
        return torch.from_numpy(pixels / 255)[None], self.labels[i]


def peer_batches(images: Tensor, labels: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    loader = DataLoader(PilImages(images, labels), batch_size, shuffle=True, num_workers=2, drop_last=True)
    while True:
        yield from loader
