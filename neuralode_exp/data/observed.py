"""What has been observed of a dynamical system, from whatever source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from neuralode_exp.data.dynamics import Dynamics, Observations


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Trajectories at shared times, to be led on from their first states.

    Args:
        t: times, shape (T,).
        z: states, shape (T, n, d): the truth if it is known, else what was observed, without gaps.
        observed: what was observed of them, shape (T, n, d), NaN where a cell is missing.
        u: inputs, shape (T, n, m).
    """

    t: Tensor
    z: Tensor
    observed: Tensor
    u: Tensor | None = None

    def to(self, device: torch.device) -> Trajectories:
        u = None if self.u is None else self.u.to(device)
        return Trajectories(self.t.to(device), self.z.to(device), self.observed.to(device), u)

    def to_dtype(self, dtype: torch.dtype) -> Trajectories:
        """The same with states of `dtype`; times stay as they are."""
        u = None if self.u is None else self.u.to(dtype)
        return Trajectories(self.t, self.z.to(dtype), self.observed.to(dtype), u)

    def rescaled(self, ours: Scale, theirs: Scale) -> Trajectories:
        """Trajectories in the units of one scale in those of another."""
        z, observed = (theirs.inward(ours.outward(x)).to(x) for x in (self.z, self.observed))
        return Trajectories(self.t * (ours.step / theirs.step), z, observed, self.u)

    @property
    def judged(self) -> Tensor:
        """What errors are measured against: z, NaN where nothing was observed, shape (T, n, d)."""
        return torch.where(self.observed.isnan(), torch.nan, self.z)


@dataclass(frozen=True, eq=False)
class Scale:
    """The units in which a table is learned: (z - offset) / unit of a state, (t - t0) / step of a time.

    Args:
        names: of the columns, d of them.
        offset, unit: mean and standard deviation of each column, of its logarithm where `log` says so, shape (d,),
            float64.
        step: the median time between observations.
        log: columns that are learned as log z, shape (d,); None: no column.
        spread: standard deviation of each column itself, shape (d,); None: that is `unit`.
    """

    names: list[str]
    offset: Tensor
    unit: Tensor
    step: float
    log: Tensor | None = None
    spread: Tensor | None = None

    def scaled(self, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Times from their own start and states (..., d), both float64."""
        return (t - t[0]).double() / self.step, self.inward(z)

    def inward(self, z: Tensor) -> Tensor:
        """States of the table in units of the scale, float64."""
        z = z.double()
        if self.log is not None:
            z = torch.where(self.log.to(z.device), z.log(), z)
        return (z - self.offset.to(z)) / self.unit.to(z)

    def outward(self, x: Tensor) -> Tensor:
        """States in units of the scale as the table has them, float64."""
        z = self.offset.to(x.device) + self.unit.to(x.device) * x.double()
        return z if self.log is None else torch.where(self.log.to(z.device), z.exp(), z)

    def slopes(self, z: Tensor, dx: Tensor) -> Tensor:
        """dz/dt of the table at its states z, of a field dx/dt of the scale."""
        dz = dx * self.unit / self.step
        return dz if self.log is None else torch.where(self.log, z * dz, dz)

    def with_past(self, past: Sequence[str]) -> Scale:
        """The scale of states that also have values of the past, each set `past` (times, in words) before."""

        def again(x: Tensor) -> Tensor:
            return x.repeat(len(past) + 1)

        names = [*self.names, *(f"{name} {ago} before" for ago in past for name in self.names)]
        log, spread = (None if x is None else again(x) for x in (self.log, self.spread))
        return Scale(names, again(self.offset), again(self.unit), self.step, log, spread)

    def spreads(self, x: Tensor) -> Tensor:
        """States in units of the scale in standard deviations of the columns as the table has them."""
        if self.log is None or self.spread is None:
            return x
        return torch.where(self.log.to(x.device), self.outward(x) / self.spread.to(x.device), x.double())


def scale_of(
    times: Sequence[Tensor], states: Sequence[Tensor], names: Sequence[str], log: Tensor | None = None
) -> Scale:
    """Measure the scale of trajectories; a column that never changes has the unit 1."""
    z = torch.cat(list(states)).double()
    offset, unit = _mean_and_spread(z if log is None else torch.where(log, z.log(), z))
    steps = torch.cat([t.diff().double() for t in times])
    spread = None if log is None else _mean_and_spread(z)[1]
    return Scale(list(names), offset, unit, float(steps.median()), log, spread)


def _mean_and_spread(z: Tensor) -> tuple[Tensor, Tensor]:
    offset = z.nanmean(dim=0).nan_to_num()  # a column without a value
    unit = (z - offset).square().nanmean(dim=0).sqrt().nan_to_num()
    floor = 1e-12 * offset.abs()  # rounding of a mean
    return offset, torch.where(unit > floor, unit, 1.0)


def steps_to_move(states: Sequence[Tensor], amount: float) -> int | None:
    """The fewest steps after which states have moved by `amount`; None if they never do.

    It is the mean square of their differences over all columns, in variances: 1 where their autocorrelation has fallen
    to one half, 2 where it has fallen to 0. Steps are tried a fifth apart.

    Args:
        states: of each trajectory, shape (n, d), NaN where a cell is missing.
        amount: positive.
    """
    longest = max(len(z) for z in states) - 1
    z = torch.cat(list(states)).double()
    variance = (z - z.nanmean(0)).square().nanmean(0)
    variance = torch.where(variance > 0, variance, torch.inf)  # of a column that never changes
    for steps in sorted({round(1.2**k) for k in range(100) if round(1.2**k) <= longest}):
        off = torch.cat([z[steps:] - z[:-steps] for z in states if len(z) > steps]).double()
        if float((off.square() / variance).nanmean()) >= amount:
            return steps
    return None


def filled(t: Tensor, z: Tensor) -> Tensor:
    """States (n, d) with each gap bridged by a straight line in time; 0 where a column has no value at all."""
    if not z.isnan().any():
        return z
    columns = []
    for x in z.double().unbind(1):
        known = ~x.isnan()
        line = np.interp(t.numpy(), t[known].numpy(), x[known].numpy()) if known.any() else np.zeros(len(x))
        columns.append(torch.from_numpy(line))
    return torch.stack(columns, 1).to(z)


@dataclass(frozen=True, eq=False)
class Observed:
    """Observations to train on, and others to judge by.

    Args:
        times: of each training trajectory, shape (n,); those of a table in float64, see `cut`.
        states: of each training trajectory, shape (n, d), NaN where a cell is missing.
        noise: standard deviation of the states' noise; None where nobody knows it.
        inputs: of each training trajectory, shape (n, m), in the user's units; empty without inputs.
        validation, test: unseen trajectories, each entry with times of its own.
        long: the test over a longer time.
        known: the system that was observed, and what it was without noise.
        scale: the units of the states, where they are not those of the user.
        note: what is to be said of them, in words.
        warnings: what looks like a mistake.
    """

    times: list[Tensor]
    states: list[Tensor]
    noise: float | None = None
    inputs: list[Tensor] = field(default_factory=list)
    validation: list[Trajectories] = field(default_factory=list)
    test: list[Trajectories] = field(default_factory=list)
    long: Trajectories | None = None
    known: Dynamics | None = None
    scale: Scale | None = None
    note: str = ""
    warnings: Sequence[str] = ()


def of_system(data: Dynamics) -> Observed:
    """The observations of a known system."""

    def unseen(part: Observations) -> list[Trajectories]:
        return [Trajectories(data.t, part.clean, part.noisy, part.u)] if part.clean.shape[1] else []

    states = list(data.train.noisy.unbind(1))
    return Observed(
        [data.t] * len(states),
        states,
        data.noise,
        [] if data.train.u is None else list(data.train.u.unbind(1)),
        validation=unseen(data.validation),
        test=unseen(data.test),
        long=Trajectories(data.t_long, data.z_long, data.z_long, data.u_long),
        known=data,
    )
