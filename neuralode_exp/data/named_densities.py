"""The package's own densities. They are registered in the same way as a user's.

To add one, write a class in `densities.py` or another module, its function here and its file in `conf/dataset/`. The
function's keyword arguments become its keys. The functions import torch only when they are called, because the
preflight imports this module.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from neuralode_exp.data.numbers import Count, Positive
from neuralode_exp.extend import density


def _make(module: str, name: str, *scales: float) -> Any:
    return getattr(import_module(f"neuralode_exp.data.{module}"), name)(*scales)


@density("eight-gaussians", dim=2)
def eight_gaussians(*, radius: Positive = 2.0, std: Positive = 0.2) -> Any:
    """Eight Gaussians on a circle."""
    return _make("gaussians", "eight_gaussians", radius, std)


@density("two-moons", dim=2)
def two_moons(*, radius: Positive = 2.0, noise: Positive = 0.2) -> Any:
    """Two interleaved half circles."""
    return _make("densities", "TwoMoons", radius, noise)


@density("two-circles", dim=2)
def two_circles(*, inner: Positive = 1.0, outer: Positive = 2.0, noise: Positive = 0.16) -> Any:
    """Two concentric circles."""
    return _make("densities", "TwoCircles", inner, outer, noise)


@density("pinwheel", dim=2)
def pinwheel(
    *,
    arms: Count = 5,
    radius: Positive = 2.0,
    radial_std: Positive = 0.6,
    tangential_std: Positive = 0.2,
    rate: float = 0.25,
) -> Any:
    """Gaussians on a circle, twisted at a rate."""
    return _make("densities", "Pinwheel", arms, radius, radial_std, tangential_std, rate)


@density("checkerboard", dim=2)
def checkerboard(*, side: Positive = 1.0) -> Any:
    """Uniform on the black squares of a 4 x 4 board."""
    return _make("densities", "Checkerboard", side)


@density("gaussians-3d", dim=3)
def gaussians_3d(*, half_side: Positive = 1.0, std: Positive = 0.2) -> Any:
    """Eight Gaussians at the corners of a cube."""
    return _make("gaussians", "gaussians_3d", half_side, std)


@density("torus", dim=3)
def torus(*, major: Positive = 1.5, minor: Positive = 0.5, noise: Positive = 0.05) -> Any:
    """Uniform on a torus, with noise; its density is not known."""
    return _make("densities", "Torus", major, minor, noise)


@density("gaussian", dim=lambda dim: dim)
def gaussian(*, dim: Count = 2) -> Any:
    """A correlated Gaussian in any dimension."""
    return _make("gaussians", "Gaussian", dim)
