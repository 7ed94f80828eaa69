"""Planar flows (Rezende & Mohamed 2015, https://arxiv.org/abs/1505.05770, Sec. 4.1), the discrete control for flows."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from neuralode_exp.models.density_model import DensityModel, log_normal
from neuralode_exp.ode import Stats

HALVINGS = 60  # of the interval that holds the inverse; this many reach round-off in float64


class PlanarFlow(DensityModel):
    """A density on R^d by K layers from data to base, z_{k+1} = z_k + u_k tanh(w_k . z_k + b_k).

    A layer is one Euler step of a continuous flow with one hidden unit, and its determinant costs O(d):

        log p(x) = log N(z_K; 0, I) + sum_k log|1 + (1 - tanh^2(w_k . z_k + b_k)) w_k . u_k|,    z_0 = x.

    The layers run from data to base, because maximum likelihood needs that direction. A layer is invertible if
    w . u > -1, which u = v + (softplus(w . v) - 1 - w . v) w / |w|^2 ensures for any v (ibid., A.1). The inverse has no
    closed form: a = w . z is the root of a + w . u tanh(a + b) = w . y. The left side increases in a, so the root is
    found by bisection, and differentiated as an implicit function.

    Args:
        dim: d.
        layers: K.

    Example:
        >>> import torch
        >>> from neuralode_exp.models.planar import PlanarFlow
        >>> flow, x = PlanarFlow(2, layers=8).double(), torch.randn(5, 2, dtype=torch.float64)
        >>> torch.allclose(flow.to_data(flow.to_base(x)), x)
        True
    """

    def __init__(self, dim: int, layers: int) -> None:
        super().__init__()
        self.dim = dim
        bound = 1 / math.sqrt(dim)
        self.w = nn.Parameter(torch.empty(layers, dim).uniform_(-bound, bound))
        self.v = nn.Parameter(torch.empty(layers, dim).uniform_(-bound, bound))
        self.b = nn.Parameter(torch.zeros(layers))
        self._stats = Stats()

    @property
    def stats(self) -> Stats:
        """Number of layers of the last pass, as many backward as forward."""
        return self._stats

    def to_base(self, x: Tensor) -> Tensor:
        return self.to_base_with_log_prob(x)[0]

    def to_base_with_log_prob(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, u = x, self._u()
        slopes = []
        for w, u_k, b in zip(self.w, u, self.b, strict=True):
            h = torch.tanh(z @ w + b)
            z = z + h[:, None] * u_k
            slopes.append(1 + (1 - h.square()) * (w @ u_k))
        self._count()
        return z, log_normal(z) + torch.stack(slopes).log().sum(0)

    def to_data_with_log_prob(self, z0: Tensor) -> tuple[Tensor, Tensor]:
        x = self.to_data(z0)
        return x, self.log_prob(x)

    def on_the_way(self, z0: Tensor, times: Sequence[float]) -> Tensor:
        """Undo K t layers, rounded to a whole number, for each time t."""
        z, u, undone, states = z0, self._u(), 0, []
        for time in times:
            while undone < round(time * len(u)):
                undone += 1
                z = self._undo(-undone, z, u)
            states.append(z)
        self._count()
        return torch.stack(states)

    def _undo(self, k: int, y: Tensor, u: Tensor) -> Tensor:
        w, b = self.w[k], self.b[k]
        a: Tensor = _Root.apply(y @ w, w @ u[k], b)
        return y - torch.tanh(a + b)[:, None] * u[k]

    def _u(self) -> Tensor:
        w_v = (self.w * self.v).sum(1)
        change = (softplus(w_v) - 1 - w_v) / self.w.square().sum(1)
        return self.v + change[:, None] * self.w

    def _count(self) -> None:
        layers = len(self.b)
        self._stats = Stats(nfe_forward=layers, nfe_backward=layers if torch.is_grad_enabled() else 0)


class _Root(torch.autograd.Function):
    """The root a of a + s tanh(a + b) = y for y of shape (n,), and its derivatives of any order.

    They are those of the implicit function, da = (dy - tanh(a + b) ds - s tanh'(a + b) db) / (1 + s tanh'(a + b)). The
    bisection itself has others: each of its points is y plus a constant.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor, s: Tensor, b: Tensor) -> Tensor:
        low, high = y - s.abs(), y + s.abs()
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            below = middle + s * torch.tanh(middle + b) < y
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        _, s, b = inputs
        ctx.save_for_backward(output, s, b)

    @staticmethod
    def backward(ctx: Any, adj: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, s, b = ctx.saved_tensors
        h = torch.tanh(a + b)
        slope = s * (1 - h.square())
        adj = adj / (1 + slope)
        return adj, -(adj * h).sum(), -(adj * slope).sum()
