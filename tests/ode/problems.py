"""Test problems with their exact solutions, and fields that watch what the solver does to them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from neuralode_exp.ode import TABLEAUS, Adaptive, ExplicitRungeKutta, FixedStep

# A damped rotation with a mode that is faster: eigenvalues -0.3 +- 2i and -1.5, no two rows alike.
MATRIX = torch.tensor([[-0.3, 2.0, 0.1], [-2.0, -0.3, 0.0], [0.2, 0.1, -1.5]], dtype=torch.float64)
Z0 = torch.tensor([[1.0, 0.5, -0.7], [-0.2, 0.9, 0.4]], dtype=torch.float64)


class Linear(nn.Module):
    """dz/dt = A z, z(t) = exp(A t) z(0)."""

    def __init__(self, matrix: Tensor = MATRIX) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix.clone())

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return z @ self.matrix.mT

    def exact(self, t: Tensor, z0: Tensor) -> Tensor:
        """z at all times t (n,), differentiable in t, z0 and the matrix."""
        flow = torch.linalg.matrix_exp((t - t[0])[:, None, None] * self.matrix)
        return torch.einsum("nij,...j->n...i", flow, z0)


class TimeMLP(nn.Module):
    """A smooth nonlinear field that depends on t, its parameters in float64; one bias that it does not use."""

    def __init__(self, size: int = 3, width: int = 5) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        draw = {"generator": generator, "dtype": torch.float64}
        self.w1 = nn.Parameter(torch.randn(size, width, **draw) * 0.7)
        self.w2 = nn.Parameter(torch.randn(width, size, **draw) * 0.7)
        self.b = nn.Parameter(torch.randn(width, **draw))
        self.unused = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        return torch.tanh(z @ self.w1 + t * self.b) @ self.w2


def hyperbola(t: Tensor, z: Tensor) -> Tensor:
    """dz/dt = -2 t z^2, nonlinear and time-dependent; z(t) = 1 / (1 / z(0) + t^2)."""
    return -2 * t * z * z


class Spy(nn.Module):
    """A field that records when it is evaluated."""

    def __init__(self, f: nn.Module) -> None:
        super().__init__()
        self.f = f
        self.times: list[float] = []

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        self.times.append(float(t.detach()))  # torchdiffeq's times carry a gradient
        return self.f(t, z)


def gradients(z: Tensor, *inputs: Tensor) -> list[Tensor]:
    """Gradients of a fixed, generic function of all observations but z0; zeros where there is no dependence."""
    weights = torch.linspace(-1.0, 1.0, z[1:].numel(), dtype=z.dtype).reshape(z[1:].shape)
    loss = (weights * z[1:]).sum() + (z[1:] ** 2).sum()
    found = torch.autograd.grad(loss, inputs, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]


def fixed(name: str, step_size: float, max_steps: int = 100_000) -> FixedStep:
    """Equal steps of any tableau, whether or not it could estimate its error."""
    return FixedStep(ExplicitRungeKutta(TABLEAUS[name], estimate=False), step_size, max_steps)


def adaptive(name: str, **settings: Any) -> Adaptive:
    """Steps of a tableau under error control."""
    return Adaptive(ExplicitRungeKutta(TABLEAUS[name]), **settings)
