"""Learning dynamics from noisy observations by multiple shooting.

A trajectory is cut into overlapping segments that lead from an observation i to a later one j. Solving over a whole
trajectory would let errors grow without bound where the system is unstable; over a segment they cannot. Starting at
the observation itself would teach its noise as dynamics: where states have decayed, noise is all there is to see. So
the states z_i at all observed times are estimated together with the field, each in units of its own uncertainty,

    z_i = y_i + sigma_i e_i,    sigma_i^2 = noise^2 + (relative * scale * |x_i|)^2,    x_i = (y_i - centre) / scale,

and the loss is the mean over a batch of segments of

    |e_i|^2 + |e_j|^2 + |(flow(z_i, t_j - t_i) - z_j) / sigma_j|^2,

how far the estimates are from the observations and how far the flow is from leading from one to the next (weak
constraint, as in data assimilation). `relative` asks for the same relative precision at all sizes, without which the
few largest states of a growing system would be all that counts. A missing cell has no term: its estimate starts on a
straight line between its neighbours, in units of the spread, and is held by where the flow leads on from it. Half of
a batch is drawn evenly in time and half evenly in path length, |x_j - x_i|: slow states are many, and a fast passage
is not lost among them.

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
    """What a loss needs of a flow: z0 (..., d) led on by the durations (..., 1), or to the times t (T,)."""

    def advance(self, z0: Tensor, duration: Tensor) -> Tensor: ...

    def advance_driven(self, z0: Tensor, durations: Tensor, pieces: Tensor) -> Tensor: ...

    def __call__(self, z0: Tensor, t: Tensor, **inputs: Tensor) -> Tensor: ...


class MultipleShooting(nn.Module):
    """The loss above, with the estimate of the states; each replica has its own.

    Args:
        segments: from `cut`.
        units: from `units`.
        noise: standard deviation of the observations, a number or shape (d,).
        replicas: the networks that are trained side by side, R of them.
        relative: precision that is asked for beside the noise, relative to the state.

    Attributes:
        e: the estimates' distance from the observations, shape (M, d), of replicas (R, M, d); a parameter, 0 at first.
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
        # A state at the centre, observed without noise, would have no uncertainty at all.
        size = units.size(z).clamp(min=0.01)
        self.register_buffer("z", z)
        sigma = torch.hypot(torch.as_tensor(noise).to(z), relative * units.scale * size)
        self.register_buffer("sigma", torch.where(segments.known, sigma, units.scale))
        # Not stored: old runs have none, and the data give it back.
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
        """Draw segments with replacement, replica k's from the k-th generator: places, (batch_size,) or (R, ...)."""
        drawn = [torch.multinomial(self._chances, batch_size, replacement=True, generator=g) for g in generators]
        return self.replicas.join(drawn).to(self.start.device)

    def forward(self, flow: Flow, segments: Tensor) -> Tensor:
        """Evaluate the loss over a batch of segments, shape (B,); of replicas (R,), over (R, B).

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
        """The observations, shape (M, d), NaN where a cell is missing."""
        return torch.where(self.known.bool(), self.z, torch.nan)

    @torch.no_grad()
    def start_from(self, rows: Tensor, z: Tensor) -> None:
        """Let the estimates of some observed states start from z, not from the observations.

        Args:
            rows: places, shape (m,).
            z: shape (m, d).
        """
        rows = rows.to(self.z.device)
        e = (z.to(self.z) - self.z[rows]) / self.sigma[rows]
        self.e[..., rows, :] = e.clamp(-FAR, FAR)

    def _lead_driven(self, flow: Flow, z: Tensor, start: Tensor, end: Tensor) -> Tensor:
        """Lead states on, observation by observation; shorter segments rest at their ends."""
        at = start + torch.arange(int((end - start).max()), device=start.device).view(-1, *[1] * start.dim())
        durations = torch.where((at < end)[..., None], self.dt[at.clamp(max=len(self.dt) - 1)], 0.0)
        pieces = self.pieces[at.clamp(max=len(self.dt) - 1)]
        return flow.advance_driven(z, durations, pieces.movedim(-2, 1))

    def __len__(self) -> int:
        """Number of segments."""
        return len(self.start)


class SingleShooting(nn.Module):
    """The plain loss: whole trajectories, each from its first observation, in the units of the data,

        mean over trajectories, times and dimensions of (flow(y_0, t) - y(t))^2.

    It restores what decays or turns. Where the system grows, so does every error of the field, as exp(t): this is the
    loss that multiple shooting is to be compared with.

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
        """Draw trajectories without replacement, at most all: places, shape (min(batch_size, N),) or (R, ...)."""
        drawn = [torch.randperm(len(self), generator=g)[:batch_size] for g in generators]
        return self.replicas.join(drawn).to(self.z.device)

    def forward(self, flow: Flow, trajectories: Tensor) -> Tensor:
        """Evaluate the loss over a batch of trajectories, shape (B,); of replicas (R,), over (R, B)."""
        observed = self.z[:, trajectories]  # (T, B, d) or (T, R, B, d)
        inputs = {} if self.u is None else {"u": self.u.to(self.z)[:, trajectories]}
        return (flow(observed[0], self.t, **inputs) - observed).square().mean(dim=(0, -2, -1))
