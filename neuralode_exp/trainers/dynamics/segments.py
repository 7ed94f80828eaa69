"""Prepare observations for shooting: pairs of observations, their units, and the size of their noise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from neuralode_exp.data.inputs import coefficients
from neuralode_exp.data.observed import filled, steps_to_move
from neuralode_exp.models.fields.scaled import Units

FEW = 8  # fewer initial states are not enough to estimate the scale of the states
LONG = 10  # steps of a window if states never move by their spread
CUBIC = torch.tensor([-1.0, 4.0, 0.0, 4.0, -1.0]) / 6


@dataclass(frozen=True, eq=False)
class Segments:
    """Observations of all trajectories in one row, and pairs of them in the same trajectory.

    Args:
        z: observed states, shape (M, d), with gaps filled.
        start, end: indices in z of the ends of a segment, shape (P,).
        duration: time from start to end, shape (P, 1).
        first: indices of the first observations of the trajectories, shape (N,).
        known: whether a cell was observed, shape (M, d).
        u: inputs at the observations, shape (M, m); None without inputs.
        dt: time from an observation to the next, shape (M, 1), 0 at the end of a trajectory; None without inputs.
        pieces: polynomials of the input from an observation to the next, see `coefficients`, shape (M, degree + 1, m).
    """

    z: Tensor
    start: Tensor
    end: Tensor
    duration: Tensor
    first: Tensor
    known: Tensor
    u: Tensor | None = None
    dt: Tensor | None = None
    pieces: Tensor | None = None


def windows_for(states: Sequence[Tensor]) -> tuple[int, ...]:
    """Return useful numbers of steps for a segment: half, once and twice W.

    W is the smallest number of steps after which states have moved by their spread, in the mean square over all
    columns. Then their autocorrelation has fallen to one half. In shorter segments noise hides the motion, and in
    longer ones errors of the field grow.

    Args:
        states: states of each trajectory, shape (n, d), with NaN for missing values.
    """
    longest = max(len(z) for z in states) - 1
    window = steps_to_move(states, 1.0) or min(LONG, longest)
    return tuple(sorted({max(1, window // 2), window, min(2 * window, longest)}))


def cut(
    times: Sequence[Tensor],
    states: Sequence[Tensor],
    windows: Sequence[int],
    inputs: Sequence[Tensor] = (),
    reading: str = "hold",
) -> Segments:
    """Pair each observation with the ones `windows` steps later, or with the last one of a shorter trajectory.

    Args:
        times: increasing times of each trajectory, shape (n,), n >= 2.
        states: states of each trajectory, shape (n, d), with NaN for missing values.
        windows: numbers of steps, each at least 1.
        inputs: inputs of each trajectory, shape (n, m); empty without inputs.
        reading: how inputs are interpolated, see `coefficients`.

    Raises:
        ValueError: a window is below 1.
    """
    if min(windows) < 1:
        raise ValueError(f"`window` must be at least 1 step from an observation to a later one, got {min(windows)}")
    starts, ends, durations, first = [], [], [], []
    offset = 0
    for t in times:
        for steps in sorted({min(window, len(t) - 1) for window in windows}):
            start = torch.arange(len(t) - steps)
            starts.append(offset + start)
            ends.append(offset + start + steps)
            durations.append(t[steps:] - t[: len(t) - steps])
        first.append(offset)
        offset += len(t)
    known = torch.cat([~z.isnan() for z in states])
    z = torch.cat([filled(t, z) for t, z in zip(times, states, strict=True)])
    duration = torch.cat(durations).to(z)[:, None]
    segments = Segments(z, torch.cat(starts), torch.cat(ends), duration, torch.tensor(first), known)
    if not inputs:
        return segments
    pieces = [coefficients(t.to(u), u, reading) for t, u in zip(times, inputs, strict=True)]
    return replace(
        segments,
        u=torch.cat(list(inputs)).to(z),
        dt=torch.cat([torch.cat((t.diff(), t.new_zeros(1))) for t in times]).to(z)[:, None],
        pieces=torch.cat([torch.cat((c, c[-1:])) for c in pieces]).to(z),
    )


def units(segments: Segments) -> Units:
    """Estimate the units of the states from the data.

    `centre` and `scale` are mean and standard deviation of the initial states, because these are similar for growing
    and decaying systems, but later states are not. With fewer than eight trajectories all states are used. `rate` is
    the root mean square over segments of |dz / dt| / sqrt(1 + |x|^2).
    """
    z = segments.z[segments.first] if len(segments.first) >= FEW else segments.z
    scale = z.std(dim=0)
    scale = torch.where(scale > 0, scale, 1.0)  # for a column that never changes
    found = Units(z.mean(dim=0), scale, scale)
    start, end = segments.z[segments.start], segments.z[segments.end]
    speed = (end - start) / segments.duration / (1 + found.size(start).maximum(found.size(end)).square()).sqrt()
    rate = speed.square().mean(dim=0).sqrt()
    of_states = Units(found.centre, scale, torch.where(rate > 0, rate, 1.0))
    if segments.u is None:
        return of_states
    spread = segments.u.std(dim=0)
    return replace(of_states, u_centre=segments.u.mean(dim=0), u_scale=torch.where(spread > 0, spread, 1.0))


def estimate_noise(states: Sequence[Tensor]) -> Tensor:
    """Estimate the standard deviation of the noise in observations of smooth trajectories, shape (d,).

    In each five neighbours, the distance of the middle one from the cubic through the others is divided by the distance
    that noise of unit size gives. The estimate is the median of these ratios. The times between neighbours are taken as
    equal. If the sampling is too coarse for a cubic, the estimate is too large. Missing values (NaN) are left out.

    Raises:
        ValueError: no trajectory has five observations.
    """
    fives = [z.unfold(0, 5, 1) for z in states if len(z) >= 5]
    if not fives:
        raise ValueError("noise can be estimated from 5 observations of a trajectory, got fewer; add rows")
    around = CUBIC.to(fives[0])
    off = torch.cat([five[..., 2] - five @ around for five in fives])
    normal_median = 0.6745  # the median of |N(0, 1)|
    return off.abs().nanmedian(dim=0).values.nan_to_num() / (
        normal_median * math.sqrt(1 + float(around.square().sum()))
    )
