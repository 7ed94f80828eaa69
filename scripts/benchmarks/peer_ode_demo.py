"""A peer of `benchmark.py dynamics`: the recipe of torchdiffeq's ODE demo on this project's data.

    python peer_ode_demo.py PROBLEM.npz METRICS.csv

It follows https://github.com/rtqichen/torchdiffeq/blob/master/examples/ode_demo.py: a network 2-50-2 with tanh, weights
drawn with standard deviation 0.1; batches of 20 windows of 10 observations, each window solved from its first
observation by `odeint` (backpropagation, dopri5 at its default tolerances); mean absolute error; RMSprop with
learning rate 1e-3. The demo gives its network y^3, because its true system is cubic; the system here is linear, so the
network gets y. The demo has one trajectory; here windows are drawn from all trajectories.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torchdiffeq
from torch import Tensor, nn

WINDOWS, POINTS = 20, 10


class ODEFunc(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 50), nn.Tanh(), nn.Linear(50, 2))
        for layer in self.net:
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, mean=0, std=0.1)
                nn.init.constant_(layer.bias, val=0)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        dy: Tensor = self.net(y)
        return dy


class Demo:
    """Args: t, the times of all trajectories, shape (T,); observed, shape (T, n, 2)."""

    def __init__(self, t: Tensor, observed: Tensor) -> None:
        self.t, self.observed = t[:POINTS], observed
        self.func = ODEFunc()
        self.optimizer = torch.optim.RMSprop(self.func.parameters(), lr=1e-3)

    def step(self) -> float:
        """Train on one batch and return its loss."""
        self.optimizer.zero_grad()
        batch = self._batch()
        predicted = torchdiffeq.odeint(self.func, batch[0], self.t)
        loss = (predicted - batch).abs().mean()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def _batch(self) -> Tensor:
        """Windows of the trajectories, shape (POINTS, WINDOWS, 2)."""
        times, trajectories = self.observed.shape[:2]
        start = torch.randint(times - POINTS, (WINDOWS,))
        trajectory = torch.randint(trajectories, (WINDOWS,))
        return torch.stack([self.observed[start + i, trajectory] for i in range(POINTS)])

    @torch.no_grad()
    def field_error(self, states: Tensor, field: Tensor) -> float:
        off = self.func(self.t[0], states) - field
        return float(torch.linalg.vector_norm(off) / torch.linalg.vector_norm(field))


def main(problem: Path, metrics: Path, seed: int) -> None:
    """Train until the process is stopped."""
    with np.load(problem) as arrays:
        t, observed, states, field = (
            torch.from_numpy(arrays[name]).float() for name in ("t", "observed", "states", "field")
        )
        evaluate_every = int(arrays["evaluate_every"])
    torch.manual_seed(seed)
    demo = Demo(t, observed)
    with open(metrics, "w", buffering=1) as file:
        file.write("step,tag,value\n")
        step = 0
        while True:
            step += 1
            demo.step()
            if step % evaluate_every == 0:
                file.write(f"{step},dynamics/field_error,{demo.field_error(states, field)!r}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
