"""Labelled points of two classes, one of which encloses the other."""

from __future__ import annotations

import torch
from torch import Tensor

from neuralode_exp.data.images import Images, Split


def annuli(
    *,
    dim: int = 2,
    r1: float = 0.5,
    r2: float = 1.0,
    r3: float = 1.5,
    train: int = 3000,
    validation: int = 1000,
    test: int = 10_000,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> Images:
    """Draw points of class 0, |x| <= r1, and of class 1, r2 <= |x| <= r3, uniform in each and equally likely.

    No flow of R^d maps the classes to two sides of a plane (Dupont et al. 2019, https://arxiv.org/abs/1904.01681,
    Sec. 3).

    Args:
        dim: dimension d of the points.
        r1, r2, r3: radii, increasing.
        train, validation, test: numbers of points.
        seed: seed of all sets. A set does not change with the size of another set.
        device: device of all tensors.

    Returns:
        Points of shape (n, d), float32, with labels of shape (n,).

    Raises:
        ValueError: the radii are not positive and increasing.
    """
    if not 0 < r1 < r2 < r3:
        raise ValueError(f"`r1` must be above 0, and r1 < r2 < r3, got {r1:g}, {r2:g} and {r3:g}")
    learned, held_out, tested = (
        _draw(dim, (0.0, r1), (r2, r3), n, 3 * seed + k).to(device) for k, n in enumerate((train, validation, test))
    )
    mean, std = torch.zeros(dim, device=device), torch.ones(dim, device=device)
    return Images(learned, held_out, tested, 2, mean, std)


def _draw(dim: int, inner: tuple[float, float], outer: tuple[float, float], n: int, seed: int) -> Split:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (n,), generator=generator)
    low, high = torch.tensor([inner, outer], dtype=torch.float64)[labels].unbind(1)
    direction = torch.randn(n, dim, generator=generator, dtype=torch.float64)
    volume = torch.rand(n, generator=generator, dtype=torch.float64)
    radius: Tensor = (low**dim + volume * (high**dim - low**dim)) ** (1 / dim)
    x = radius[:, None] * direction / torch.linalg.vector_norm(direction, dim=1, keepdim=True)
    return Split(x.float(), labels)
