"""Classes that encircle each other."""

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
    """Draw points with the class 0 where |x| <= r1 and 1 where r2 <= |x| <= r3, uniform in each, as many of both.

    Dupont et al. 2019, https://arxiv.org/abs/1904.01681, Sec. 3: no flow of R^d maps them to two sides of a plane.

    Args:
        dim: d.
        r1, r2, r3: radii, increasing.
        train, validation, test: numbers of points.
        seed: of all of them; a set stays the same when the size of another changes.
        device: where all tensors are put.
    """
    if not 0 < r1 < r2 < r3:
        raise ValueError(f"`r1` must be above 0, below r2, and that below r3, got {r1:g}, {r2:g} and {r3:g}")
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
