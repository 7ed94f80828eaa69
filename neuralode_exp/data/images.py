"""Images with labels. They stay on the device as stored, and each batch is normalised and augmented there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from neuralode_exp.data.npz_images import n_held_out, read_npz_images


class Split(NamedTuple):
    """Images, shape (N, c, h, w), uint8 or float32, or points, shape (N, d), with their labels, shape (N,), int64."""

    images: Tensor
    labels: Tensor

    def to(self, device: torch.device | str) -> Split:
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class Images:
    """Images for training, for validation and for the final test.

    Args:
        classes: number of different labels, 0, 1, ...
        mean, std: mean and standard deviation of the stored training pixels, shape (c, 1, 1), or of points, shape (d,).
    """

    train: Split
    validation: Split
    test: Split
    classes: int
    mean: Tensor
    std: Tensor

    def normalise(self, images: Tensor) -> Tensor:
        """Return (images - mean) / std, float32."""
        return (images.float() - self.mean) / self.std


def hold_out(split: Split, n: int, seed: int = 0) -> tuple[Split, Split]:
    """Split off the last n entries of a random order. Return the rest and the entries.

    Raises:
        ValueError: nothing is left.
    """
    images, labels = split
    if not 0 <= n < len(images):
        raise ValueError(
            f"`validation` must be from 0 to {len(images) - 1}, as there are {len(images)} training images, got {n}"
        )
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).to(labels.device)
    train, held_out = order.split([len(images) - n, n])
    return Split(images[train], labels[train]), Split(images[held_out], labels[held_out])


def load_images(
    path: str | Path, *, validation: float, train: int | None = None, device: torch.device | str = "cpu"
) -> Images:
    """Load the user's own images from an npz file, see `read_npz_images`.

    Args:
        path: the file.
        validation: fraction of the training images that is held out, in [0, 1).
        train: number of the other images that are used, the first of a random order; None: all.
        device: device of all tensors.

    Raises:
        WrongFile: the file does not hold images and labels.
        ValueError: nothing is left to train on.
    """
    x_train, y_train, x_test, y_test = map(torch.from_numpy, read_npz_images(path))
    every = Split(x_train.movedim(3, 1).contiguous(), y_train)
    left, held_out = hold_out(every, n_held_out(validation, len(y_train)))
    learned = Split(left.images[:train], left.labels[:train])
    mean, std = _moments(learned.images)
    splits = (learned, held_out, Split(x_test.movedim(3, 1).contiguous(), y_test))
    learned, held_out, test = (split.to(device) for split in splits)
    return Images(learned, held_out, test, int(y_train.max()) + 1, mean.to(device), std.to(device))


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of each channel, shape (c, 1, 1), part by part in float64."""
    parts, n = images.split(1000), images.numel() // images.shape[1]
    mean = torch.stack([x.double().sum((0, 2, 3)) for x in parts]).sum(0)[:, None, None] / n
    squares = torch.stack([(x.double() - mean).square().sum((0, 2, 3)) for x in parts]).sum(0)[:, None, None]
    return mean.float(), (squares / n).sqrt().float()


def random_shift(images: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Shift each image by its own random whole number of pixels, from -pixels to pixels along both axes.

    Pixels from outside the image are zero.

    Args:
        images: shape (batch, channels, height, width), any dtype.
        pixels: the largest shift.
        generator: a generator on any device. One on the CPU draws the same shifts for images on every device.

    Returns:
        The shifted images, of the shape and dtype of `images`.
    """
    batch, _, height, width = images.shape
    corners = torch.randint(2 * pixels + 1, (2, batch), generator=generator, device=generator.device)
    top, left = corners.to(images.device)
    # A view of all (2 pixels + 1)^2 windows of each padded image. Indexing copies only one of them.
    windows = F.pad(images, (pixels,) * 4).unfold(2, height, 1).unfold(3, width, 1)
    return windows[torch.arange(batch, device=images.device), :, top, left]


def random_warp(images: Tensor, degrees: float, stretch: float, generator: torch.Generator) -> Tensor:
    """Turn each image about its centre by its own random angle, and stretch each of its axes by a random factor.

    The angle is uniform in [-degrees, degrees], the logarithm of each factor in [-log(1 + stretch), log(1 + stretch)].
    Pixels are interpolated bilinearly, and pixels outside the image are zero. With degrees = stretch = 0 the images are
    returned unchanged.

    Args:
        images: shape (batch, channels, height, width), any dtype.
        degrees: the largest angle.
        stretch: the largest relative change of size.
        generator: a generator on any device. One on the CPU draws the same maps for images on every device.

    Returns:
        The warped images, of the shape and dtype of `images`.
    """
    if degrees == 0 and stretch == 0:
        return images
    drawn = 2 * torch.rand(3, len(images), generator=generator, device=generator.device) - 1
    angle, *logs = drawn.to(images.device)
    angle = angle * math.radians(degrees)
    across, down = (torch.exp(log * math.log1p(stretch)) for log in logs)
    # The map goes from a pixel (x, y) of the result to the place where it is read: a rotation, then a scaling of the
    # axes. Coordinates are -1 and 1 at the edges, so that the rotation of an oblong image needs height / width.
    cos, sin, zero, oblong = angle.cos(), angle.sin(), torch.zeros_like(angle), images.shape[2] / images.shape[3]
    rows = [cos / across, -sin / across * oblong, zero, sin / down / oblong, cos / down, zero]
    maps = torch.stack(rows, dim=1).view(-1, 2, 3)
    grid = F.affine_grid(maps, list(images.shape), align_corners=False)
    warped = F.grid_sample(images.float(), grid, align_corners=False)
    return warped.to(images.dtype) if images.is_floating_point() else warped.round().to(images.dtype)
