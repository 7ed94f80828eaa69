"""Use past values of a column as further states, if its present value does not determine how it continues.

An autonomous field of one state cannot oscillate, because it has only one slope at each value. A value together with
an earlier one distinguishes rise from fall (Takens 1981, doi:10.1007/BFb0091924). The delay is the shortest at which a
column is uncorrelated with itself. For an oscillation that is a quarter of its period.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.interpolate import make_smoothing_spline
from torch import Tensor

from neuralode_exp.data.observed import steps_to_move

UNCORRELATED = 2.0  # mean square of the difference of two independent values, in variances
SWINGS = 3  # an oscillation has at least so many changes between high and low values
RECENT = 200  # rows from which the state to start from is estimated


def oscillates(states: Sequence[Tensor]) -> bool:
    """Return whether a single column oscillates by more than half a standard deviation about its mean.

    Args:
        states: the column of each trajectory, shape (n, 1).
    """
    y = torch.cat(list(states)).double()
    middle, half = y.nanmean(), (y - y.nanmean()).square().nanmean().sqrt() / 2
    for z in states:
        off = z.double() - middle
        sides = torch.sign(off[(off.abs() > half) & ~off.isnan()])
        if int((sides.diff() != 0).sum()) >= SWINGS:
            return True
    return False


def delay_of(times: Sequence[Tensor], states: Sequence[Tensor]) -> float:
    """Return the time after which the columns are uncorrelated with themselves."""
    longest = max(len(z) for z in states)
    steps = steps_to_move(states, UNCORRELATED) or max(1, longest // 10)
    return steps * float(torch.cat([t.diff().double() for t in times]).median())


def embed(t: Tensor, z: Tensor, delays: int, delay: float) -> tuple[Tensor, Tensor]:
    """Return the times with a known past, shape (m,), and states with past values, shape (m, (delays + 1) d).

    Args:
        t: times, shape (n,).
        z: states, shape (n, d), with NaN for missing values. Between two rows they are interpolated linearly.
        delays: number of past values.
        delay: time between two of them.
    """
    since = (t - t[0]).double()
    late = since >= delays * delay * (1 - 1e-9)
    past = [[np.interp(since[late] - k * delay, since, x) for x in z.T.numpy()] for k in range(1, delays + 1)]
    columns = [z[late], *(torch.from_numpy(np.stack(part, 1)).to(z) for part in past)]
    return t[late], torch.cat(columns, 1)


def state_to_start_from(t: Tensor, z: Tensor, delays: int, delay: float) -> Tensor:
    """Estimate the last of noisy states with its past from a smooth curve through the rows, shape ((delays + 1) d,).

    Args:
        t, z: times, shape (n,), and states without gaps, shape (n, d).
        delays, delay: as in `embed`.
    """
    since = (t - t[0]).double().numpy()[-RECENT:]
    curves = [make_smoothing_spline(since, x) for x in z.T.double().numpy()[:, -RECENT:]]
    return torch.tensor([float(curve(since[-1] - k * delay)) for k in range(delays + 1) for curve in curves])
