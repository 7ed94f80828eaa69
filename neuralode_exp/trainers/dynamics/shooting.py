"""Learning dynamics from noisy observations by multiple shooting.

A trajectory is cut into overlapping segments, each from an observation i to a later one j. In an unstable system errors
grow without bound over a whole trajectory, but not over a segment. A solve that starts at the observation itself would
learn its noise as dynamics, above all where states have decayed. So the states z_i at all observed times are estimated
together with the field, each in units of its own uncertainty,

    z_i = y_i + sigma_i e_i,    sigma_i^2 = noise^2 + (relative * scale * |x_i|)^2,    x_i = (y_i - centre) / scale,

and the loss is the mean over a batch of segments of

    |e_i|^2 + |e_j|^2 + |(flow(z_i, t_j - t_i) - z_j) / sigma_j|^2,

the distance of the estimates from the observations, and the distance of the flow from one estimate to the next (weak
constraint, as in data assimilation). `relative` sets the same relative precision for all sizes. Without it only the few
largest states of a growing system would matter. A missing value has no term: its estimate starts on a straight line
between its neighbours, in units of the spread, and only the flow determines it. Half of a batch is drawn evenly in time
and half evenly in path length, |x_j - x_i|, because otherwise many slow states would hide a short fast passage.

References: Bock 1983 (multiple shooting); Tremolet 2006, doi:10.1256/qj.05.224 (weak constraint); Turan & Jaschke
2021, https://arxiv.org/abs/2109.06786 (multiple shooting for neural ODEs).
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from neuralode_exp.models.fields.scaled import Units
from neuralode_exp.models.replicas import Replicas
from neuralode_exp.trainers.dynamics.segments import Segments

FAR = 3.0  # standard deviations of the noise


class Flow(Protocol):
    """The flow as a loss uses it: from z0, shape (..., d), over durations, shape (..., 1), or to times, shape (T,)."""

    def advance(self, z0: Tensor, duration: Tensor) -> Tensor: ...

    def advance_driven(self, z0: Tensor, durations: Tensor, pieces: Tensor) -> Tensor: ...

    def __call__(self, z0: Tensor, t: Tensor, **inputs: Tensor) -> Tensor: ...


class MultipleShooting(nn.Module):
    """The loss above, with the estimate of the states; each replica has its own.

    Args:
        segments: from `cut`.
        units: from `units`.
        noise: standard deviation of the observations' noise, a number or shape (d,).
        replicas: the R networks that are trained side by side.
        relative: the uncertainty relative to the state, which is added to the noise.

    Attributes:
        e: the estimates minus the observations in units of their uncertainty, shape (M, d), or (R, M, d) for replicas.
            It is a parameter, and 0 at first.
    """

    z: Tensor
    sigma: Tensor
    start: Tensor
    end: Tensor
    duration: Tensor
    known: Tensor
    dt: Tensor
    pieces: Tensor

    def __init__(
        self,
        segments: Segments,
        units: Units,
        noise: float | Tensor,
        replicas: Replicas | None = None,
        relative: float = 0.003,
    ) -> None:
        super().__init__()
        self.replicas = replicas or Replicas()
        z = segments.z
        # Without noise, the uncertainty of a state at the centre would be 0.
        size = units.size(z).clamp(min=0.01)
        self.register_buffer("z", z)
        sigma = torch.hypot(torch.as_tensor(noise).to(z), relative * units.scale * size)
        self.register_buffer("sigma", torch.where(segments.known, sigma, units.scale))
        # It is not stored: old checkpoints lack it, and it follows from the data.
        self.register_buffer("known", segments.known.to(z), persistent=False)
        self.register_buffer("start", segments.start)
        self.register_buffer("end", segments.end)
        self.register_buffer("duration", segments.duration)
        self.driven = segments.pieces is not None
        if segments.pieces is not None:
            self.register_buffer("dt", segments.dt, persistent=False)
            self.register_buffer("pieces", segments.pieces, persistent=False)
        self.e = nn.Parameter(self.replicas.expand(torch.zeros_like(z)).clone())
        length = torch.linalg.vector_norm((z[segments.end] - z[segments.start]) / units.scale, dim=1).double()
        evenly = torch.full_like(length, 1 / len(length))
        self._chances = (0.5 * evenly + 0.5 * length / length.sum() if length.any() else evenly).cpu()

    def draw(self, generators: Sequence[torch.Generator], batch_size: int) -> Tensor:
        """Draw segments with replacement, one generator per replica: indices, shape (B,) or (R, B), B = batch_size."""
        drawn = [torch.multinomial(self._chances, batch_size, replacement=True, generator=g) for g in generators]
        return self.replicas.join(drawn).to(self.start.device)

    def forward(self, flow: Flow, segments: Tensor) -> Tensor:
        """Return the loss of a batch of segments, indices of shape (B,); for replicas (R, B), with shape (R,).

        Gradients flow to flow and e.
        """
        start, end = self.start[segments], self.end[segments]
        e = self.replicas.masked(self.e)
        e_start = torch.take_along_dim(e, start[..., None], dim=-2)
        e_end = torch.take_along_dim(e, end[..., None], dim=-2)
        z_start = self.z[start] + self.sigma[start] * e_start
        if self.driven:
            led_on = self._lead_driven(flow, z_start, start, end)
        else:
            led_on = flow.advance(z_start, self.duration[segments])
        miss = (led_on - self.z[end]) / self.sigma[end] - e_end
        of_end = self.known[end] * (e_end.square() + miss.square())
        return (self.known[start] * e_start.square() + of_end).mean(dim=(-2, -1))

    def observed(self) -> Tensor:
        """The observations, shape (M, d), with NaN for missing values."""
        return torch.where(self.known.bool(), self.z, torch.nan)

    @torch.no_grad()
    def start_from(self, rows: Tensor, z: Tensor) -> None:
        """Set the estimates of some observed states to z.

        Args:
            rows: indices of the states, shape (m,).
            z: the estimates, shape (m, d).
        """
        rows = rows.to(self.z.device)
        e = (z.to(self.z) - self.z[rows]) / self.sigma[rows]
        self.e[..., rows, :] = e.clamp(-FAR, FAR)

    def _lead_driven(self, flow: Flow, z: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """Solve from observation to observation. Shorter segments stay at their ends."""
        at = start + torch.arange(int((end - start).max()), device=start.device).view(-1, *[1] * start.dim())
        durations = torch.where((at < end)[..., None], self.dt[at.clamp(max=len(self.dt) - 1)], 0.0)
        pieces = self.pieces[at.clamp(max=len(self.dt) - 1)]
        return flow.advance_driven(z, durations, pieces.movedim(-2, 1))

    def __len__(self) -> int:
        """Number of segments."""
        return len(self.start)


class SingleShooting(nn.Module):
    """The plain loss over whole trajectories, each from its first observation, in the units of the data,

        mean over trajectories, times and dimensions of (flow(y_0, t) - y(t))^2.

    It can learn decaying and oscillating systems. In a growing system every error of the field grows as exp(t). The
    loss serves as a baseline for multiple shooting.

    Args:
        t: the times that all trajectories share, shape (T,).
        z: observed states, shape (T, N, d).
        replicas: the networks that are trained side by side.
        u: inputs, shape (T, N, m).
    """

    t: Tensor
    z: Tensor

    def __init__(self, t: Tensor, z: Tensor, replicas: Replicas | None = None, u: Tensor | None = None) -> None:
        super().__init__()
        self.replicas = replicas or Replicas()
        self.register_buffer("t", t)
        self.register_buffer("z", z)
        self.u = u

    def __len__(self) -> int:
        """Number of trajectories."""
        return self.z.shape[1]

    def draw(self, generators: Sequence[torch.Generator], batch_size: int) -> Tensor:
        """Draw trajectories without replacement: indices, shape (B,) or (R, B) with B = min(batch_size, N)."""
        drawn = [torch.randperm(len(self), generator=g)[:batch_size] for g in generators]
        return self.replicas.join(drawn).to(self.z.device)

    def forward(self, flow: Flow, trajectories: Tensor) -> Tensor:
        """Return the loss of a batch of trajectories, indices of shape (B,); for replicas (R, B), with shape (R,)."""
        observed = self.z[:, trajectories]  # (T, B, d) or (T, R, B, d)
        inputs = {} if self.u is None else {"u": self.u.to(self.z)[:, trajectories]}
        return (flow(observed[0], self.t, **inputs) - observed).square().mean(dim=(0, -2, -1))
