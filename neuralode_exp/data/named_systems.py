"""The package's own dynamical systems dz/dt = f(t, z). They are registered in the same way as a user's.

To add one, write its function here and its file in `conf/dataset/`. The function's keyword arguments become its keys.
The functions import torch only when they are called, because the preflight imports this module.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from neuralode_exp.data.numbers import NonNegative, Positive
from neuralode_exp.extend import system

Matrix = tuple[tuple[float, ...], ...]


def stack(*parts: Any) -> Any:
    """Stack the components of dz/dt to a tensor, or to a NumPy array if they are arrays, as in a stiff solve."""
    import numpy as np
    import torch

    return torch.stack(parts, -1) if isinstance(parts[0], torch.Tensor) else np.stack(parts, -1)


def _square(matrix: Matrix) -> int:
    if any(len(row) != len(matrix) or not all(map(math.isfinite, row)) for row in matrix):
        got = [list(row) for row in matrix]
        raise ValueError(f"`matrix` must be square and finite, got {got}; write it row by row, as [[0,-1],[1,0]]")
    return len(matrix)


def _linear_t_max(matrix: Matrix) -> float:
    """Return four e-folding times of the dominant mode, but at most one turn of the fastest mode.

    On longer trajectories a decaying system shows only noise, a growing one only its last states, and the samples of a
    rotating one alias.
    """
    import torch

    eigenvalues = torch.linalg.eigvals(torch.tensor(matrix, dtype=torch.float64))
    growth = eigenvalues.real.max().abs().item()
    turning = eigenvalues.imag.abs().max().item()
    rate = max(growth, 4 * turning / (2 * math.pi)) or eigenvalues.abs().max().item() or 1.0
    return 4 / rate


def _times(matrix: Matrix, z: Any) -> Any:
    return z @ z.new_tensor(matrix).T


@system("spiral-stable-focus", dim=_square, t_max=_linear_t_max)
def spiral_stable_focus(t: Any, z: Any, *, matrix: Matrix = ((-1.0, -1.0), (1.0, -1.0))) -> Any:
    """z' = A z with the eigenvalues -1 +- i, or any other matrix."""
    return _times(matrix, z)


@system("stable-node", dim=_square, t_max=_linear_t_max)
def stable_node(t: Any, z: Any, *, matrix: Matrix = ((-1.0, 0.0), (0.0, -2.0))) -> Any:
    """z' = A z with the eigenvalues -1 and -2."""
    return _times(matrix, z)


@system("circle", dim=_square, t_max=_linear_t_max)
def circle(t: Any, z: Any, *, matrix: Matrix = ((0.0, -1.0), (1.0, 0.0))) -> Any:
    """z' = A z with the eigenvalues +- i."""
    return _times(matrix, z)


@system("unstable", dim=_square, t_max=_linear_t_max)
def unstable(t: Any, z: Any, *, matrix: Matrix = ((1.0, -1.0), (1.0, 1.0))) -> Any:
    """z' = A z with the eigenvalues 1 +- i."""
    return _times(matrix, z)


@system("two-foci", dim=2, t_max=15.0)
def two_foci(t: Any, z: Any) -> Any:
    """A stable focus on the left, an unstable one on the right: z' = s(<z, c>) A (z - c) + s(-<z, c>) B (z + c).

    s is the sigmoid, A = [[-0.1, -0.5], [0.5, -0.1]], B = [[0.2, 1], [-1, 0.2]], c = (-1, 0).
    """
    a, b, c = (z.new_tensor(x) for x in ([[-0.1, -0.5], [0.5, -0.1]], [[0.2, 1.0], [-1.0, 0.2]], [-1.0, 0.0]))
    left = (z @ c).sigmoid()[..., None]
    return left * ((z - c) @ a.T) + (1 - left) * ((z + c) @ b.T)


def _around(alpha: float, beta: float, gamma: float, delta: float, factor: float) -> Sequence[float]:
    return factor * gamma / delta, factor * alpha / beta


@system(
    "lotka-volterra",
    dim=2,
    # Half to twice the fixed point, for about one period of the small oscillations around it.
    low=lambda alpha, beta, gamma, delta: _around(alpha, beta, gamma, delta, 0.5),
    high=lambda alpha, beta, gamma, delta: _around(alpha, beta, gamma, delta, 2.0),
    t_max=lambda alpha, gamma: 2 * math.pi / math.sqrt(alpha * gamma),
)
def lotka_volterra(
    t: Any, z: Any, *, alpha: Positive = 2 / 3, beta: Positive = 4 / 3, gamma: Positive = 1.0, delta: Positive = 1.0
) -> Any:
    """Prey and predators, x' = alpha x - beta x y and y' = delta x y - gamma y."""
    x, y = z[..., 0], z[..., 1]
    return stack(alpha * x - beta * x * y, delta * x * y - gamma * y)


@system(
    "van-der-pol",
    dim=2,
    # About one period: 2 pi at mu = 0 and (3 - 2 ln 2) mu for mu -> infinity.
    t_max=lambda mu: 2 * math.pi + (3 - 2 * math.log(2)) * mu,
    stiff=lambda mu: mu >= 5,
    numpy=True,
)
def van_der_pol(t: Any, z: Any, *, mu: NonNegative = 1.0) -> Any:
    """x' = v, v' = mu (1 - x^2) v - x, a limit cycle of amplitude 2; stiff for a large mu."""
    x, v = z[..., 0], z[..., 1]
    return stack(v, mu * (1 - x * x) * v - x)


@system(
    "pendulum",
    dim=2,
    # Swings of up to 2.7 radians, for one period of the small ones.
    low=lambda frequency: (-2.0, -frequency),
    high=lambda frequency: (2.0, frequency),
    t_max=lambda frequency: 2 * math.pi / frequency,
    energy=lambda frequency: lambda z: z[..., 1] ** 2 / 2 + frequency**2 * (1 - z[..., 0].cos()),
)
def pendulum(t: Any, z: Any, *, frequency: Positive = 1.0) -> Any:
    """A pendulum without friction, q' = p, p' = -frequency^2 sin q, which keeps p^2 / 2 + frequency^2 (1 - cos q)."""
    q, p = z[..., 0], z[..., 1]
    return stack(p, -(frequency**2) * q.sin())


@system(
    "spring",
    dim=2,
    t_max=lambda mass, stiffness: 2 * math.pi * math.sqrt(mass / stiffness),
    energy=lambda mass, stiffness: lambda z: z[..., 1] ** 2 / (2 * mass) + stiffness * z[..., 0] ** 2 / 2,
)
def spring(t: Any, z: Any, *, mass: Positive = 1.0, stiffness: Positive = 2.0) -> Any:
    """A mass on a spring, q' = p / mass, p' = -stiffness q, which keeps p^2 / (2 mass) + stiffness q^2 / 2."""
    q, p = z[..., 0], z[..., 1]
    return stack(p / mass, -stiffness * q)


@system(
    "lorenz",
    dim=3,
    low=(-15.0, -20.0, 10.0),
    high=(15.0, 20.0, 40.0),
    t_max=2.0,
    lyapunov=lambda sigma, rho, beta: 0.9056 if (sigma, rho, beta) == (10.0, 28.0, 8 / 3) else None,
)
def lorenz(t: Any, z: Any, *, sigma: Positive = 10.0, rho: Positive = 28.0, beta: Positive = 8 / 3) -> Any:
    """Chaos of three numbers, x' = sigma (y - x), y' = x (rho - z) - y, z' = x y - beta z."""
    x, y, w = z[..., 0], z[..., 1], z[..., 2]
    return stack(sigma * (y - x), x * (rho - w) - y, x * y - beta * w)


@system("duffing", dim=2, t_max=20.0, inputs=[(-1.0, 1.0)])
def duffing(t: Any, z: Any, u: Any, *, damping: NonNegative = 0.3, stiffness: float = -1.0, cubic: float = 1.0) -> Any:
    """A driven oscillator, x' = v, v' = u - damping v - stiffness x - cubic x^3: two wells by itself."""
    x, v = z[..., 0], z[..., 1]
    return stack(v, u[..., 0] - damping * v - stiffness * x - cubic * x**3)


@system("two-tanks", dim=2, low=0.2, high=1.0, t_max=20.0, inputs=[(0.2, 1.0)])
def two_tanks(t: Any, z: Any, u: Any, *, inflow: Positive = 0.5, outflow: Positive = 0.5) -> Any:
    """Levels of two tanks under a pump u, h' = inflow u - outflow sqrt(h) and l' = outflow (sqrt(h) - sqrt(l))."""
    upper, lower = (z[..., i].clamp(min=1e-3).sqrt() for i in range(2))
    return stack(inflow * u[..., 0] - outflow * upper, outflow * (upper - lower))
