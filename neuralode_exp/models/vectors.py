"""Networks on vectors: a vector field, and the discrete flow z0 -> z(t) that it makes.

Every network here is a stack of R independent replicas of one architecture, trained side by side: states have shape
(R, B, d), weights (R, inputs, outputs), and a layer is one batched matrix product. R = 1 is the ordinary case.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from neuralode_exp.models.neural_ode import eigenvalues
from neuralode_exp.ode import Stats

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh": torch.tanh,
    "softplus": nn.functional.softplus,
    "silu": nn.functional.silu,
}


class MLPField(nn.Module):
    """dz/dt = rate * (W_L h_L + b_L), h_l = act(W_{l-1} h_{l-1} + b_{l-1}), h_0 = (z - centre) / scale.

    It does not depend on t. Weights start uniform in +-1 / sqrt(inputs), as those of `nn.Linear`. Replica k is drawn
    from the k-th generator alone, so that it is the network that a stack of one gets from that generator.

    Args:
        dim: d.
        width: units of a hidden layer.
        depth: number L of hidden layers; 0 makes the field affine.
        activation: `tanh`, `softplus` or `silu`.
        generators: one for each replica, on the CPU.
        centre, scale: of the states, shape (d,); None is 0 and 1. They make the inputs of order 1.
        rate: of dz/dt where |z - centre| is about `scale`, shape (d,); None is 1.

    Attributes:
        active: 1, or 0 for a frozen replica, shape (R, 1, 1).

    Example:
        >>> import torch
        >>> from neuralode_exp.models.vectors import MLPField
        >>> f = MLPField(2, generators=[torch.Generator().manual_seed(k) for k in range(3)])
        >>> f(torch.tensor(0.0), torch.zeros(3, 10, 2)).shape
        torch.Size([3, 10, 2])
    """

    centre: Tensor
    scale: Tensor
    rate: Tensor
    active: Tensor

    def __init__(
        self,
        dim: int,
        *,
        width: int = 64,
        depth: int = 2,
        activation: str = "silu",
        generators: Sequence[torch.Generator],
        centre: Tensor | None = None,
        scale: Tensor | None = None,
        rate: Tensor | None = None,
    ) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"`activation` must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        if not generators:
            raise ValueError("`generators` must hold one for each replica, got none; pass [torch.Generator()]")
        self.dim = dim
        self.activation = ACTIVATIONS[activation]
        sizes = [dim, *[width] * depth, dim]
        layers = [[_layer(n, m, g) for n, m in zip(sizes, sizes[1:], strict=False)] for g in generators]
        # One (R, inputs, outputs) and one (R, 1, outputs) for each layer.
        weights, biases = zip(*(zip(*layer, strict=True) for layer in zip(*layers, strict=True)), strict=True)
        self.weights = nn.ParameterList(torch.stack(w) for w in weights)
        self.biases = nn.ParameterList(torch.stack(b) for b in biases)
        self.register_buffer("centre", torch.zeros(dim) if centre is None else centre.clone())
        self.register_buffer("scale", torch.ones(dim) if scale is None else scale.clone())
        self.register_buffer("rate", torch.ones(dim) if rate is None else rate.clone())
        self.register_buffer("active", torch.ones(len(generators), 1, 1))
        self._some_frozen = False

    @property
    def replicas(self) -> int:
        return len(self.active)

    def freeze(self, replicas: Tensor) -> None:
        """Give these replicas, a mask of shape (R,), the derivative 0, and all others their own.

        A frozen state stays where it is, so that it neither overflows nor shortens the others' adaptive steps.
        """
        self.active.copy_(~replicas[:, None, None])
        self._some_frozen = bool(replicas.any())

    def forward(self, t: Tensor, z: Tensor) -> Tensor:
        """Evaluate dz/dt, shape (R, B, d), for z of shape (R, B, d); t is not used."""
        weights, biases = list(self.weights), list(self.biases)
        if self._some_frozen:  # by weights of 0, as NaN would survive a product with 0
            weights, biases = ([torch.where(self.active > 0, w, 0.0) for w in tensors] for tensors in (weights, biases))
        h = (z - self.centre) / self.scale
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            h = self.activation(torch.baddbmm(bias, h, weight))
        return torch.baddbmm(biases[-1], h, weights[-1]) * self.rate


def _layer(inputs: int, outputs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Weight (inputs, outputs) and bias (1, outputs)."""
    bound = 1 / math.sqrt(inputs)
    weight = torch.empty(inputs, outputs).uniform_(-bound, bound, generator=generator)
    return weight, torch.empty(1, outputs).uniform_(-bound, bound, generator=generator)


class ResidualFlow(nn.Module):
    """z(t + dt) = z(t) + g(z(t)), g = dt f: a residual block for each step of a regular grid of times.

    Each of its weights is shared by all blocks. It knows nothing between the times of the grid.

    Args:
        field: f.
        dt: the grid's step.

    Attributes:
        stats: evaluations of the last pass, as many backward as forward.
    """

    def __init__(self, field: MLPField, dt: float) -> None:
        super().__init__()
        if not dt > 0:
            raise ValueError(f"`dt` must be > 0, the distance of two observations, got {dt}")
        self.field = field
        self.dt = dt
        self.stats = Stats()

    def forward(self, z0: Tensor, t: Tensor) -> Tensor:
        """Step through the times t, shape (T,), dt apart: z0 of shape (R, B, d) gives (T, R, B, d)."""
        self._check(t.diff(), 1)
        states = [z0]
        for _ in t[1:]:
            states.append(self._step(states[-1]))
        self._count(len(t) - 1)
        return torch.stack(states)

    def advance(self, z0: Tensor, duration: Tensor) -> Tensor:
        """Step on by `duration`, shape (R, B, 1), the same whole number of dt for all states."""
        blocks = round(float(duration.max()) / self.dt)
        self._check(duration, blocks)
        z = z0
        for _ in range(blocks):
            z = self._step(z)
        self._count(blocks)
        return z

    def eigenvalues(self, z: Tensor) -> Tensor:
        """log(mu) / dt of the eigenvalues mu of d(z + g)/dz at z, shape (..., d): the same shape, complex128."""
        return eigenvalues(self._step, z).log() / self.dt

    def _step(self, z: Tensor) -> Tensor:
        return z + self.dt * self.field(z.new_zeros(()), z)

    def _count(self, blocks: int) -> None:
        self.stats = Stats(nfe_forward=blocks, nfe_backward=blocks if torch.is_grad_enabled() else 0)

    def _check(self, durations: Tensor, blocks: int) -> None:
        # A thousandth of a step: differences of float32 times are not exact.
        off = (durations - blocks * self.dt).abs()
        if off.numel() and float(off.max()) > 1e-3 * self.dt:
            wrong = float(durations.flatten()[off.argmax()])
            raise ValueError(
                f"times must be {blocks} * {self.dt:.6g} apart, a residual flow's grid, got {wrong:.6g}; "
                "take sampling=regular"
            )
