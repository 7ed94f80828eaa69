"""The discrete counterpart of a `NeuralODE` on vectors: a residual block for each step of a grid."""

import torch
from torch import Tensor, nn

from neuralode_exp.models.fields.scaled import Scaled
from neuralode_exp.models.neural_ode import eigenvalues
from neuralode_exp.ode import Stats


class ResidualFlow(nn.Module):
    """z(t + dt) = z(t) + g(z(t)), g = dt f: a residual block for each step of a regular grid of times.

    All blocks share their weights. There is no state between the times of the grid.

    Args:
        field: f.
        dt: step of the grid.

    Attributes:
        stats: evaluations of the last pass, as many backward as forward.
    """

    def __init__(self, field: Scaled[nn.Module], dt: float) -> None:
        super().__init__()
        if not dt > 0:
            raise ValueError(f"`dt` must be > 0, the distance of two observations, got {dt}")
        self.field = field
        self.dt = dt
        self.stats = Stats()

    def forward(self, z0: Tensor, t: Tensor) -> Tensor:
        """Step from z0 of shape (..., d) through the times t, shape (T,), dt apart; return (T, ..., d)."""
        self._check(t.diff(), 1)
        states = [z0]
        for _ in t[1:]:
            states.append(self._step(states[-1]))
        self._count(len(t) - 1)
        return torch.stack(states)

    def advance(self, z0: Tensor, duration: Tensor) -> Tensor:
        """Advance z0 by `duration`, shape (..., 1), the same whole number of dt for all states."""
        blocks = round(float(duration.max()) / self.dt) if duration.numel() else 0
        self._check(duration, blocks)
        z = z0
        for _ in range(blocks):
            z = self._step(z)
        self._count(blocks)
        return z

    def eigenvalues(self, z: Tensor) -> Tensor:
        """Return log(mu) / dt for the eigenvalues mu of d(z + g)/dz at z of shape (..., d); same shape, complex128."""
        return eigenvalues(self._step, z).log() / self.dt

    def _step(self, z: Tensor) -> Tensor:
        dz: Tensor = self.field(z.new_zeros(()), z)
        return z + self.dt * dz

    def _count(self, blocks: int) -> None:
        self.stats = Stats(nfe_forward=blocks, nfe_backward=blocks if torch.is_grad_enabled() else 0)

    def _check(self, durations: Tensor, blocks: int) -> None:
        # A thousandth of a step is allowed, because differences of float32 times are not exact.
        off = (durations - blocks * self.dt).abs()
        if off.numel() and float(off.max()) > 1e-3 * self.dt:
            wrong = float(durations.flatten()[off.argmax()])
            raise ValueError(
                f"times must be {blocks} * {self.dt:.6g} apart, a residual flow's grid, got {wrong:.6g}; "
                "take sampling=regular"
            )
