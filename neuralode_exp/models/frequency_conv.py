"""The zero-padded 3x3 convolution of small images as a few matrix products.

An n x n image with one more row and column of zeros is an image on the torus of m = n + 1 points a side, and there the
zero padding needs no care: the neighbour before the first row is the row of zeros. On a torus the convolution is
diagonal in frequency,

    y(p) = sum_tau w(tau) x(p + tau),    Y(k) = W(k) X(k),    X(k) = sum_p x(p) exp(-2 pi i k.p / m),
                                                              W(k) = sum_tau w(tau) exp(2 pi i k.tau / m),

with W(k) a matrix over channels. Real images need one frequency of each pair k, -k: for n = 6 these are 25 complex
products of (channels x channels) by (channels x batch) instead of 9 * 36 real ones, so that, transforms included, a
convolution of 64 channels takes half the multiplications and its backward less than that. The transforms are products
with constant matrices, orthogonal up to scale, and in float32 the result is as accurate as the direct sum.

States are kept space first and batch last, (n * n, channels, batch): every product then runs over contiguous memory.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor


def to_space_first(z: Tensor) -> Tensor:
    """(B, C, n, n) to a contiguous (n * n, C, B)."""
    return z.permute(2, 3, 1, 0).flatten(0, 1).contiguous()


def to_images(z: Tensor) -> Tensor:
    """(n * n, C, B) to a view (B, C, n, n)."""
    n = math.isqrt(z.shape[0])
    return z.unflatten(0, (n, n)).permute(3, 2, 0, 1)


def spectrum(weight: Tensor, n: int) -> Tensor:
    """Transform the weight (O, I, 3, 3) of `torch.nn.functional.conv2d` for images of n x n pixels.

    Returns:
        The real form [[Re W, -Im W], [Im W, Re W]] of W(k), shape (frequencies, 2 O, 2 I).
    """
    _, _, taps = _fourier(n, weight.dtype, weight.device)
    blocks = torch.einsum("kabt,oit->kaobi", taps, weight.flatten(2))
    return blocks.flatten(3, 4).flatten(1, 2)


def convolve(x: Tensor, weight_spectrum: Tensor) -> Tensor:
    """`conv2d(x, weight, padding=1)` for x (n * n, I, B) and `spectrum(weight, n)`; gives (n * n, O, B)."""
    space, n_in, batch = x.shape
    analysis, synthesis, _ = _fourier(math.isqrt(space), x.dtype, x.device)
    frequencies = len(weight_spectrum)
    x_k = (analysis @ x.flatten(1)).view(frequencies, 2 * n_in, batch)
    y_k = torch.bmm(weight_spectrum, x_k)
    return (synthesis @ y_k.view(2 * frequencies, -1)).view(space, -1, batch)


@lru_cache
def _fourier(n: int, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The constant matrices for n x n images, with K frequencies; real and imaginary parts are neighbours.

    Returns:
        analysis (2 K, n * n): x to [Re X(k), Im X(k)]. synthesis (n * n, 2 K): [Re Y(k), Im Y(k)] to y.
        taps (K, 2, 2, 9): w to [[Re W(k), -Im W(k)], [Im W(k), Re W(k)]].
    """
    m = n + 1
    pairs = [(i, j) for i in range(m) for j in range(m) if (i, j) <= (-i % m, -j % m)]
    # Computed in float64 for every dtype. Made under inference_mode, a cached tensor could not be used in training.
    with torch.inference_mode(False):
        k = torch.tensor(pairs, dtype=torch.float64) * (2 * math.pi / m)
        twice = torch.tensor([1.0 if (i, j) == (-i % m, -j % m) else 2.0 for i, j in pairs], dtype=torch.float64)
        points = torch.cartesian_prod(*2 * [torch.arange(n, dtype=torch.float64)])
        phase = k @ points.T
        analysis = torch.stack([phase.cos(), -phase.sin()], dim=1)
        synthesis = analysis * twice[:, None, None] / m**2
        offsets = torch.cartesian_prod(*2 * [torch.arange(-1, 2, dtype=torch.float64)])
        re, im = (k @ offsets.T).cos(), (k @ offsets.T).sin()
        taps = torch.stack([torch.stack([re, -im], dim=1), torch.stack([im, re], dim=1)], dim=1)
        return (
            analysis.flatten(0, 1).to(device, dtype),
            synthesis.flatten(0, 1).T.contiguous().to(device, dtype),
            taps.to(device, dtype),
        )
