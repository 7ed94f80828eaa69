"""The peer of `benchmark.py density`: the recipe of torchdiffeq's continuous normalizing flow.

It follows https://github.com/rtqichen/torchdiffeq/blob/master/examples/cnf.py: one layer of 64 tanh units whose weights
a hypernetwork (two layers of 32) makes from t, the trace by one call of autograd for each dimension, log p as a second
state, `odeint_adjoint` or `odeint` with dopri5 at rtol = atol = 1e-5 from t = 10 to t = 0, and Adam. The base is a
standard normal here, and has a covariance of 0.1 I there.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torchdiffeq
from torch import Tensor, nn

WIDTH, HIDDEN, END = 64, 32, 10.0


class HyperNetwork(nn.Module):
    """The weights of the layer at time t: inputs (width, d, 1), biases (width, 1, 1), gated outputs (width, 1, d)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.fc1, self.fc2 = nn.Linear(1, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
        self.fc3 = nn.Linear(HIDDEN, 3 * WIDTH * dim + WIDTH)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        made = self.fc3(torch.tanh(self.fc2(torch.tanh(self.fc1(t.reshape(1, 1)))))).reshape(-1)
        inputs, outputs, gates, biases = made.split([WIDTH * self.dim] * 3 + [WIDTH])
        gated = outputs.reshape(WIDTH, 1, self.dim) * torch.sigmoid(gates.reshape(WIDTH, 1, self.dim))
        return inputs.reshape(WIDTH, self.dim, 1), biases.reshape(WIDTH, 1, 1), gated


class CNF(nn.Module):
    """(dz/dt, dlog p/dt); `nfe` counts its calls."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.hyper_net, self.nfe = HyperNetwork(dim), 0

    def forward(self, t: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        self.nfe += 1
        z = state[0]
        with torch.enable_grad():  # the trace needs derivatives, even if the solve needs no graph
            z.requires_grad_(True)
            inputs, biases, outputs = self.hyper_net(t)
            copies = z[None].repeat(WIDTH, 1, 1)
            dz = (torch.tanh(copies @ inputs + biases) @ outputs).mean(0)
            trace = torch.zeros(len(z))
            for i in range(z.shape[1]):
                trace = trace + torch.autograd.grad(dz[:, i].sum(), z, create_graph=True)[0][:, i]
        return dz, -trace[:, None]


class PeerFlow(nn.Module):
    """Args: dim; adjoint, whether gradients come from `odeint_adjoint`; solver, options of torchdiffeq's solve."""

    def __init__(self, dim: int, adjoint: bool, **solver: Any) -> None:
        super().__init__()
        self.field, self.solver = CNF(dim), solver
        self.odeint = torchdiffeq.odeint_adjoint if adjoint else torchdiffeq.odeint

    def log_prob(self, x: Tensor) -> Tensor:
        start = (x, torch.zeros(len(x), 1))
        z, change = self.odeint(self.field, start, torch.tensor([END, 0.0]), **self.solver)
        log_base = -z[-1].square().sum(1) / 2 - x.shape[1] / 2 * math.log(2 * math.pi)
        return log_base - change[-1][:, 0]
