"""A known equation with constants that are learned, and a network for what it lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neuralode_exp.data.observed import Scale
from neuralode_exp.models.fields.scaled import Units

SPREAD = 0.5  # of the constants at the start, relative: seeds that agree at the end have not started there


class Hybrid(nn.Module):
    """dz/dt = f(t, z, u; c) + g(z, u), f known but for some constants c, g a network, or 0.

    As other fields it sees x = (z - centre) / scale and gives dz/dt over `rate`; f itself is evaluated in the units of
    the user's table. A constant is c = start (1 + theta), or theta where start is 0, with theta uniform in +-1/2 at
    first: a step of an optimiser changes constants of all sizes alike.

    References: Rackauckas et al. 2020, arXiv 2001.04385 (universal differential equations).

    Args:
        known: f, called with t, z, u where there are inputs, and constants by keyword.
        constants: the value of each, for the free ones where the search starts.
        free: names of those that are learned.
        units: of the data.
        scale: of a table, where the states are not in its units.
        driven: whether f takes u.
        rest: g, or None.
    """

    offset: Tensor
    size: Tensor
    pace: Tensor
    log: Tensor
    u_offset: Tensor
    u_size: Tensor

    def __init__(
        self,
        known: Callable[..., Tensor],
        constants: Mapping[str, Any],
        free: Sequence[str],
        units: Units,
        scale: Scale | None = None,
        *,
        driven: bool = False,
        rest: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.known, self.constants, self.driven, self.rest = known, dict(constants), driven, rest
        unit, offset, step = (scale.unit, scale.offset, scale.step) if scale else (1.0, 0.0, 1.0)
        self.register_buffer("offset", (offset + unit * units.centre.double()).to(units.centre))
        self.register_buffer("size", (unit * units.scale.double()).to(units.centre))
        self.register_buffer("pace", (step / (unit * units.rate.double())).to(units.centre))
        log = scale.log if scale and scale.log is not None else torch.zeros(len(units.centre), dtype=torch.bool)
        self.register_buffer("log", log.clone())
        if units.u_centre is not None and units.u_scale is not None:
            self.register_buffer("u_offset", units.u_centre.clone())
            self.register_buffer("u_size", units.u_scale.clone())
        self.theta = nn.ParameterDict({name: torch.empty(()).uniform_(-SPREAD, SPREAD) for name in free})

    def learned(self) -> dict[str, Tensor]:
        """The free constants; of a stack of replicas one for each."""
        starts = {name: float(self.constants[name]) for name in self.theta}
        return {name: start + (abs(start) or 1.0) * self.theta[name] for name, start in starts.items()}

    def forward(self, t: Tensor, x: Tensor, v: Tensor | None = None) -> Tensor:
        inputs = [self.u_offset + self.u_size * v] if self.driven and v is not None else []
        y = self.offset + self.size * x  # in units of the table, or their logarithm
        z = torch.where(self.log, y.exp(), y)
        dz = self.known(t, z, *inputs, **{**self.constants, **self.learned()})
        dx: Tensor = torch.where(self.log, dz / z, dz) * self.pace
        if self.rest is None:
            return dx
        return dx + (self.rest(t, x) if v is None else self.rest(t, x, v))
