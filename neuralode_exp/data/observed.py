"""What has been observed of a dynamical system, from whatever source."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from neuralode_exp.data.dynamics import Dynamics, Observations


@dataclass(frozen=True, eq=False)
class Trajectories:
    """Trajectories at shared times, to be led on from their first states.

    Args:
        t: times, shape (T,).
        z: states, shape (T, n, d): the truth if it is known, else what was observed.
        observed: what was observed of them, shape (T, n, d).
    """

    t: Tensor
    z: Tensor
    observed: Tensor

    def to(self, device: torch.device) -> Trajectories:
        return Trajectories(self.t.to(device), self.z.to(device), self.observed.to(device))


@dataclass(frozen=True, eq=False)
class Observed:
    """Observations to train on, and others to judge by.

    Args:
        times: of each training trajectory, shape (n,); those of a table in float64, see `cut`.
        states: of each training trajectory, shape (n, d).
        noise: standard deviation of the states' noise; None where nobody knows it.
        validation, test: unseen trajectories, each entry with times of its own.
        long: the test over a longer time.
        known: the system that was observed, and what it was without noise.
        note: what is to be said of them, in words.
    """

    times: list[Tensor]
    states: list[Tensor]
    noise: float | None = None
    validation: list[Trajectories] = field(default_factory=list)
    test: list[Trajectories] = field(default_factory=list)
    long: Trajectories | None = None
    known: Dynamics | None = None
    note: str = ""


def of_system(data: Dynamics) -> Observed:
    """The observations of a known system."""

    def unseen(part: Observations) -> list[Trajectories]:
        return [Trajectories(data.t, part.clean, part.noisy)] if part.clean.shape[1] else []

    states = list(data.train.noisy.unbind(1))
    return Observed(
        [data.t] * len(states),
        states,
        data.noise,
        validation=unseen(data.validation),
        test=unseen(data.test),
        long=Trajectories(data.t_long, data.z_long, data.z_long),
        known=data,
    )
