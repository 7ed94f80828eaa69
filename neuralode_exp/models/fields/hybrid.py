"""A known equation whose constants are learned, plus a network for what the equation lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from neuralode_exp.data.observed import Scale
from neuralode_exp.models.fields.scaled import Units

SPREAD = 0.5  # relative spread of the initial constants, so that agreement of seeds at the end means something


class Hybrid(nn.Module):
    """dz/dt = f(t, z, u; c) + g(z, u), where f is known except for some constants c, and g is a network or 0.

    Like other fields it gets x = (z - centre) / scale and returns dz/dt over `rate`; f itself is evaluated at z and u
    in the units of the user's table. Its t is that of the solve, which counts steps of the table from the start of the
    solve. So f must not depend on t with a table, nor where windows of trajectories are learned.

    A constant is c = start (1 + theta), or theta if start is 0, with an initial theta uniform in +-1/2. So a step of
    the optimiser changes large and small constants by the same relative amount.

    References: Rackauckas et al. 2020, arXiv 2001.04385 (universal differential equations).

    Args:
        known: f, called with t, z, u if there are inputs, and the constants by keyword.
        constants: value of each constant; for the free ones, where the search starts.
        free: names of the learned constants.
        units: units of the data.
        scale: scale of a table, if the states are not in the table's units.
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
        """Return the learned constants; in a stack of replicas each has one value for every replica."""
        starts = {name: float(self.constants[name]) for name in self.theta}
        return {name: start + (abs(start) or 1.0) * self.theta[name] for name, start in starts.items()}

    def forward(self, t: Tensor, x: Tensor, v: Tensor | None = None) -> Tensor:
        inputs = [self.u_offset + self.u_size * v] if self.driven and v is not None else []
        y = self.offset + self.size * x  # in the units of the table, or the logarithm of that
        # Backward multiplies the branch that is not taken by 0, so that branch must be finite too.
        z = torch.where(self.log, torch.where(self.log, y, 0.0).exp(), y)
        dz = self.known(t, z, *inputs, **{**self.constants, **self.learned()})
        dx: Tensor = torch.where(self.log, dz / torch.where(self.log, z, 1.0), dz) * self.pace
        if self.rest is None:
            return dx
        return dx + (self.rest(t, x) if v is None else self.rest(t, x, v))
