"""Past values of a column as further states, where one column alone cannot tell how it goes on.

An autonomous field of one state cannot oscillate: at each value it has one slope. The value and an earlier one
together can tell rise from fall (Takens 1981, doi:10.1007/BFb0091924). The delay is the first at which a column is no
longer correlated with itself, a quarter of a period.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.interpolate import make_smoothing_spline
from torch import Tensor

from neuralode_exp.data.observed import steps_to_move

UNCORRELATED = 2.0  # variances: the mean square of a difference of independent values
SWINGS = 3  # between high and low values that make an oscillation
RECENT = 200  # rows that tell the state to start from


def oscillates(states: Sequence[Tensor]) -> bool:
    """Whether a single column, shape (n, 1) of each trajectory, swings between above and below half a deviation."""
    y = torch.cat(list(states)).double()
    middle, half = y.nanmean(), (y - y.nanmean()).square().nanmean().sqrt() / 2
    for z in states:
        off = z.double() - middle
        sides = torch.sign(off[(off.abs() > half) & ~off.isnan()])
        if int((sides.diff() != 0).sum()) >= SWINGS:
            return True
    return False


def delay_of(times: Sequence[Tensor], states: Sequence[Tensor]) -> float:
    """The time after which the columns are uncorrelated with themselves."""
    longest = max(len(z) for z in states)
    steps = steps_to_move(states, UNCORRELATED) or max(1, longest // 10)
    return steps * float(torch.cat([t.diff().double() for t in times]).median())


def embed(t: Tensor, z: Tensor, delays: int, delay: float) -> tuple[Tensor, Tensor]:
    """Times from which on the past is known, shape (m,), and states with their past values, shape (m, (delays + 1) d).

    Args:
        t: times, shape (n,).
        z: states, shape (n, d), NaN where a cell is missing; what lies between two rows is on a straight line.
        delays: number of past values.
        delay: time from each to the next.
    """
    since = (t - t[0]).double()
    late = since >= delays * delay * (1 - 1e-9)
    past = [[np.interp(since[late] - k * delay, since, x) for x in z.T.numpy()] for k in range(1, delays + 1)]
    columns = [z[late], *(torch.from_numpy(np.stack(part, 1)).to(z) for part in past)]
    return t[late], torch.cat(columns, 1)


def state_to_start_from(t: Tensor, z: Tensor, delays: int, delay: float) -> Tensor:
    """The last of noisy states and their past, from a curve through the rows until then, shape ((delays + 1) d,).

    Args:
        t, z: times, shape (n,), and states without gaps, shape (n, d).
        delays, delay: as of `embed`.
    """
    since = (t - t[0]).double().numpy()[-RECENT:]
    curves = [make_smoothing_spline(since, x) for x in z.T.double().numpy()[:, -RECENT:]]
    return torch.tensor([float(curve(since[-1] - k * delay)) for k in range(delays + 1) for curve in curves])
