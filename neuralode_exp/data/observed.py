"""Observations of a dynamical system, from a simulation or a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from neuralode_exp.data.dynamics import Dynamics, Observations


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Trajectories at shared times, which a model has to predict from their first states.

    Args:
        t: times, shape (T,).
        z: states, shape (T, n, d): the truth if it is known, else the observations with gaps filled.
        observed: observations, shape (T, n, d), with NaN for missing values.
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
        """Return the same trajectories with states of `dtype`. Times are unchanged."""
        u = None if self.u is None else self.u.to(dtype)
        return Trajectories(self.t, self.z.to(dtype), self.observed.to(dtype), u)

    def rescaled(self, ours: Scale, theirs: Scale) -> Trajectories:
        """Convert trajectories from the units of `ours` to those of `theirs`."""
        z, observed = (theirs.inward(ours.outward(x)).to(x) for x in (self.z, self.observed))
        return Trajectories(self.t * (ours.step / theirs.step), z, observed, self.u)

    @property
    def judged(self) -> Tensor:
        """The states that errors compare with: z, but NaN where nothing was observed, shape (T, n, d)."""
        return torch.where(self.observed.isnan(), torch.nan, self.z)


@dataclass(frozen=True, eq=False)
class Scale:
    """The units in which a table is learned: (z - offset) / unit of a state, (t - t0) / step of a time.

    Args:
        names: names of the d columns.
        offset, unit: mean and standard deviation of each column, or of its logarithm by `log`, shape (d,), float64.
        step: the median time between observations.
        log: mask of the columns that are learned as log z, shape (d,); None: no column.
        spread: standard deviation of each column without logarithm, shape (d,); None: it equals `unit`.
    """

    names: list[str]
    offset: Tensor
    unit: Tensor
    step: float
    log: Tensor | None = None
    spread: Tensor | None = None

    def scaled(self, t: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        """Convert times, which then start at 0, and states of shape (..., d) to the scale, both float64."""
        return (t - t[0]).double() / self.step, self.inward(z)

    def inward(self, z: Tensor) -> Tensor:
        """Convert states from the units of the table to those of the scale, float64."""
        z = z.double()
        if self.log is not None:
            log = self.log.to(z.device)
            # Backward multiplies the branch that is not taken by 0, so that branch must be finite too.
            z = torch.where(log, torch.where(log, z, 1.0).log(), z)
        return (z - self.offset.to(z)) / self.unit.to(z)

    def outward(self, x: Tensor) -> Tensor:
        """Convert states from the units of the scale to those of the table, float64."""
        z = self.offset.to(x.device) + self.unit.to(x.device) * x.double()
        if self.log is None:
            return z
        log = self.log.to(z.device)
        return torch.where(log, torch.where(log, z, 0.0).exp(), z)

    def slopes(self, z: Tensor, dx: Tensor) -> Tensor:
        """Convert dx/dt in units of the scale to dz/dt in units of the table, at states z of the table."""
        dz = dx * self.unit / self.step
        return dz if self.log is None else torch.where(self.log, z * dz, dz)

    def with_past(self, past: Sequence[str]) -> Scale:
        """Return the scale of states with past values. `past` has the delays as text, for the names."""

        def again(x: Tensor) -> Tensor:
            return x.repeat(len(past) + 1)

        names = [*self.names, *(f"{name} {ago} before" for ago in past for name in self.names)]
        log, spread = (None if x is None else again(x) for x in (self.log, self.spread))
        return Scale(names, again(self.offset), again(self.unit), self.step, log, spread)

    def spreads(self, x: Tensor) -> Tensor:
        """Convert states from the units of the scale to standard deviations of the table's columns."""
        if self.log is None or self.spread is None:
            return x
        return torch.where(self.log.to(x.device), self.outward(x) / self.spread.to(x.device), x.double())


def scale_of(
    times: Sequence[Tensor], states: Sequence[Tensor], names: Sequence[str], log: Tensor | None = None
) -> Scale:
    """Compute the scale of trajectories. A column that never changes has the unit 1."""
    z = torch.cat(list(states)).double()
    offset, unit = _mean_and_spread(z if log is None else torch.where(log, z.log(), z))
    steps = torch.cat([t.diff().double() for t in times])
    spread = None if log is None else _mean_and_spread(z)[1]
    return Scale(list(names), offset, unit, float(steps.median()), log, spread)


def _mean_and_spread(z: Tensor) -> tuple[Tensor, Tensor]:
    offset = z.nanmean(dim=0).nan_to_num()  # 0 for a column without values
    unit = (z - offset).square().nanmean(dim=0).sqrt().nan_to_num()
    floor = 1e-12 * offset.abs()  # rounding error of the mean
    return offset, torch.where(unit > floor, unit, 1.0)


def steps_to_move(states: Sequence[Tensor], amount: float) -> int | None:
    """Return the smallest number of steps after which states have moved by `amount`, or None if they never do.

    The movement is the mean square of state differences, in units of the variance, over all columns that ever change.
    It is 1 if the autocorrelation has fallen to one half, and 2 if it has fallen to 0. Numbers of steps are tried a
    fifth apart.

    Args:
        states: states of each trajectory, shape (n, d), with NaN for missing values.
        amount: a positive movement.
    """
    longest = max(len(z) for z in states) - 1
    z = torch.cat(list(states)).double()
    variance = (z - z.nanmean(0)).square().nanmean(0)
    # Of a column that never changes, rounding of the mean may leave a variance above 0.
    changes = z.nan_to_num(nan=torch.inf).amin(0) < z.nan_to_num(nan=-torch.inf).amax(0)
    variance = torch.where(changes & (variance > 0), variance, torch.nan)
    for steps in sorted({round(1.2**k) for k in range(100) if round(1.2**k) <= longest}):
        off = torch.cat([z[steps:] - z[:-steps] for z in states if len(z) > steps]).double()
        if float((off.square() / variance).nanmean()) >= amount:
            return steps
    return None


def filled(t: Tensor, z: Tensor) -> Tensor:
    """Fill gaps in states of shape (n, d) by linear interpolation in time, and columns without values by 0."""
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
    """Observations for training, validation and test.

    Args:
        times: times of each training trajectory, shape (n,); those of a table are float64, see `cut`.
        states: states of each training trajectory, shape (n, d), with NaN for missing values.
        noise: standard deviation of the noise of the states; None: it is not known.
        inputs: inputs of each training trajectory, shape (n, m), in the user's units; empty without inputs.
        validation, test: unseen trajectories. Each entry has its own times.
        long: the test trajectories over a longer time.
        known: the observed system with its states without noise, if it is known.
        scale: the units of the states; None: those of the user.
        note: a note to the user on how the data were read.
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
    """Return the observations of a known system."""

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
