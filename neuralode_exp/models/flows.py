"""Continuous normalizing flows (Chen et al. 2018, https://arxiv.org/abs/1806.07366, Sec. 4)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from neuralode_exp.models.density_model import BASE, DATA, DensityModel, log_normal
from neuralode_exp.models.fields.flow import FlowField
from neuralode_exp.models.fields.traced import Traced
from neuralode_exp.models.neural_ode import NeuralODE
from neuralode_exp.ode import Gradient, Method, Stats


class Flow(DensityModel):
    """A density on R^d: a standard normal, carried from t = 0 to t = 1 by dz/dt = f(t, z).

    Along a path the density changes by the instantaneous change of variables (ibid., eq. 4),

        dlog p(z(t)) / dt = -tr(df/dz),    hence    log p(x) = log N(z(0); 0, I) - int_0^1 tr(df/dz) dt, z(1) = x.

    The state has two parts, z and log p. Densities are in nats.

    Args:
        dim: d.
        field: f; None makes a `FlowField` of `width` and `depth`, with Fourier features if `fourier`.
        trace: `exact` uses d tangents, `hutchinson` one random tangent that is drawn once per solve. The estimate is
            for training; in eval mode (`flow.eval()`) the trace is exact.
        noise: distribution of Hutchinson's tangent, `rademacher` (+-1) or `gaussian`.
        method: the method of the solves, from `make_method`.
        gradient: how the solves are differentiated, see `solve`.

    Attributes:
        ode: the `NeuralODE` that solves for z.

    Example:
        >>> import torch
        >>> from neuralode_exp.models.flows import Flow
        >>> from neuralode_exp.ode import make_method
        >>> flow = Flow(2, method=make_method("rk4", step_size=0.25))
        >>> flow.log_prob(torch.zeros(5, 2)).shape, flow.stats.nfe_forward
        (torch.Size([5]), 16)
    """

    def __init__(
        self,
        dim: int,
        *,
        field: nn.Module | None = None,
        width: int = 64,
        depth: int = 3,
        fourier: bool = False,
        trace: str = "exact",
        noise: str = "rademacher",
        method: Method,
        gradient: Gradient = "backprop",
    ) -> None:
        super().__init__()
        if trace not in ("exact", "hutchinson"):
            raise ValueError(f"`trace` must be exact or hutchinson, got {trace!r}")
        if noise not in ("rademacher", "gaussian"):
            raise ValueError(f"`noise` must be rademacher or gaussian, got {noise!r}")
        self.dim = dim
        self.ode: NeuralODE[FlowField | Traced] = NeuralODE(
            Traced(field) if field else FlowField(dim, width, depth, fourier=fourier), method, gradient
        )
        self.trace = trace
        self.noise = noise

    @property
    def field(self) -> FlowField | Traced:
        return self.ode.field

    @property
    def stats(self) -> Stats:
        return self.ode.stats

    def to_base(self, x: Tensor) -> Tensor:
        return self.ode(x, [DATA, BASE])[-1]

    def to_base_with_log_prob(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # The second part starts at 0 and ends at log p(z(0)) - log p(x).
        z, change = self._solve_with_trace(x, x.new_zeros(len(x)), [DATA, BASE])
        return z, log_normal(z) - change

    def to_data_with_log_prob(self, z0: Tensor) -> tuple[Tensor, Tensor]:
        return self._solve_with_trace(z0, log_normal(z0), [BASE, DATA])

    def on_the_way(self, z0: Tensor, times: Sequence[float]) -> Tensor:
        return self.ode(z0, times)

    def _solve_with_trace(self, z: Tensor, log_p: Tensor, times: Sequence[float]) -> tuple[Tensor, Tensor]:
        field, probes = self.field, self.probes(z)
        z, log_p = self.ode((z, log_p), times, lambda t, state: field.with_trace(t, state[0], probes))
        return z[-1], log_p[-1]

    def probes(self, z: Tensor) -> Tensor:
        """Return the probes of the trace for one solve with z of shape (n, d), see `FlowField.with_trace`."""
        if self.trace == "exact" or not self.training:
            return torch.eye(self.dim, dtype=z.dtype, device=z.device)[:, None, :]
        noise = torch.randn_like(z)
        return (noise if self.noise == "gaussian" else noise.sign())[None]
