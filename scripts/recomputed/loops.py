"""Solving by plain loops."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

Field = Callable[[float, Tensor], Tensor]


def three_eighths(f: Field, z: Tensor, times: Sequence[float], step_size: float) -> list[Tensor]:
    """Return states at the times by the 3/8 rule (Kutta 1901), with equal steps of at most the step size."""
    states = [z]
    for a, b in zip(times, times[1:], strict=False):
        n = max(1, -int(-(abs(b - a) / step_size - 1e-9) // 1))
        h = (b - a) / n
        for i in range(n):
            t = a + i * h
            k1 = f(t, z)
            k2 = f(t + h / 3, z + h * k1 / 3)
            k3 = f(t + 2 * h / 3, z + h * (k2 - k1 / 3))
            k4 = f(t + h, z + h * (k1 - k2 + k3))
            z = z + h * (k1 + 3 * k2 + 3 * k3 + k4) / 8
        states.append(z)
    return states
