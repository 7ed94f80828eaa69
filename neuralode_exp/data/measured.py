"""Measured trajectories as what is trained on and what is held out, in the units in which they are learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuralode_exp.data.csv_trajectories import Measured, Trajectory, read_trajectories
from neuralode_exp.data.delays import delay_of, embed, oscillates, state_to_start_from
from neuralode_exp.data.dynamics import largest_state
from neuralode_exp.data.observed import Observed, Scale, Trajectories, filled, scale_of

LARGEST = 1e150  # whose square is a float64
NOISE_FROM = 5  # rows in a row, from which the noise is estimated
DECADE = 10
FORECASTS = 20  # of a held-out trajectory at most
FEWEST = 5  # rows for a curve through them
FEW = 5  # trajectories: of fewer, one of them says little


@dataclass(frozen=True, eq=False)
class Part:
    """A trajectory that is held out; `past` is what was trained on of the same trajectory before it."""

    held_out: Trajectory
    past: Trajectory | None = None


@dataclass(frozen=True, eq=False)
class Split:
    """Trajectories to train on and trajectories held out; `note` says in words which were."""

    train: list[Trajectory]
    held_out: list[Part]
    note: str


def observe(
    path: str | Path,
    validation: float,
    seed: int,
    dtype: torch.dtype,
    *,
    hold_out: str = "auto",
    units: str = "file",
    log: str = "false",
    delays: int | str = 0,
    forecast: int | None = None,
    input: str = "hold",
    **columns: Any,
) -> Observed:
    """Read a file and split it, with states of `dtype`.

    Args:
        path: for `read_trajectories`.
        validation, seed, hold_out: for `split`.
        dtype: of the states.
        units: `spread`: each state in standard deviations of its training part about its mean, and times from their
            own start in the usual step between observations; `file`: both as they are.
        log: in units of the spread, whether states are learned as their logarithm: `true`, `false`, or `auto`, those
            that are positive where one of them spans more than a decade.
        delays: how many past values of each column are states too; `auto`: 1 of a single column that oscillates.
        forecast: rows that are led on from a held-out state, from each that many rows apart, of a long trajectory from
            20 of them; None: the whole of it.
        input: how inputs will be read between their times.
        columns: further arguments of `read_trajectories`.

    Raises:
        ValueError: from `read_trajectories` and `split`; no trajectory to train on is long enough to estimate the
            noise, or the states leave the range of `dtype`.
    """
    measured = read_trajectories(path, **columns)
    parts = split(measured.trajectories, validation, seed, hold_out)
    longest = max(len(x.t) for x in parts.train)
    if longest < NOISE_FROM:
        raise ValueError(
            f"a trajectory to train on must have at least {NOISE_FROM} observations, from which the noise is "
            f"estimated, the longest has {longest}; add rows"
        )
    d, logs = len(measured.states), _logs(measured, log)
    scale = None
    if units == "spread":
        _in_range(path, [x.z[:, :d] for x in measured.trajectories], LARGEST, "float64")
        scale = scale_of([x.t for x in parts.train], [x.z[:, :d] for x in parts.train], measured.states, logs)
    as_learned = scale.scaled if scale else lambda t, z: (t, z)
    scaled = [as_learned(x.t, x.z[:, :d]) for x in parts.train]
    n, warnings = _delays(measured, [z for _, z in scaled], delays)
    delay = delay_of(*zip(*scaled, strict=True)) if n else 0.0
    train = [embed(t, z, n, delay) for t, z in scaled]
    longest = max(len(t) for t, _ in train)
    if n and longest < NOISE_FROM:
        raise ValueError(
            f"`delays` must leave {NOISE_FROM} observations with a past, got {n}, which leave {longest}; add "
            "dataset.delays=0"
        )
    driven = measured.trajectories[0].z.shape[1] > d
    inputs = [filled(x.t, x.z[:, d:])[-len(t) :] for x, (t, _) in zip(parts.train, train, strict=True) if len(t) > 1]
    train = [(t, z) for t, z in train if len(t) > 1]
    held_out = [x for part in parts.held_out for x in _as_held_out(part, d, n, delay, scale, forecast)]
    # As for systems: the square of a state must be finite too.
    states = [*(z for _, z in train), *(x.z for x in held_out)]
    _in_range(path, states, largest_state(dtype), str(dtype).removeprefix("torch."))
    past = [f"{k * delay * (scale.step if scale else 1):.3g}" for k in range(1, n + 1)]
    note = f"{measured.note}; {parts.note}" + (f"; states are also the values {', '.join(past)} before" if n else "")
    return Observed(
        [t for t, _ in train],
        [z.to(dtype) for _, z in train],
        inputs=[u.to(dtype) for u in inputs] if driven else [],
        validation=[x.to_dtype(dtype) for x in held_out],
        scale=scale.with_past(past) if scale else None,
        note=note,
        warnings=warnings,
    )


def _delays(measured: Measured, states: Sequence[Tensor], delays: int | str) -> tuple[int, list[str]]:
    """How many past values are states too, and the warnings with one of a column that no field of one state can fit."""
    alone = len(measured.states) == 1 and measured.trajectories[0].z.shape[1] == 1  # inputs may drive it
    swings = alone and oscillates(states)
    if delays == 0 and swings:
        cannot = f'"{measured.states[0]}" oscillates, which no field of one state can; add dataset.delays=auto'
        return 0, [*measured.warnings, cannot]
    return (int(swings) if delays == "auto" else int(delays)), measured.warnings


def split(trajectories: Sequence[Trajectory], validation: float = 0.2, seed: int = 0, hold_out: str = "auto") -> Split:
    """Hold out a fraction of the trajectories, at least one, or the last part in time of each.

    Args:
        trajectories: from `read_trajectories`.
        validation: the fraction, of trajectories or of each one's observations; 0 holds out nothing.
        seed: of the choice among trajectories.
        hold_out: `trajectories`, of a single one its end; `ends`; `both`, some whole and the ends of the others;
            `auto`: both where there are two to four.

    Raises:
        ValueError: `validation` is not in [0, 1), or no trajectory is long enough to give two observations to either
            part.
    """
    if not 0 <= validation < 1:
        raise ValueError(f"`validation` must be a fraction in [0, 1), got {validation}")
    n = len(trajectories)
    if validation == 0:
        return Split(list(trajectories), [], "nothing is held out")
    if hold_out == "auto":
        hold_out = "both" if 1 < n < FEW else "trajectories"
    whole: list[Trajectory] = []
    train = list(trajectories)
    if n > 1 and hold_out != "ends":
        size = min(max(round(validation * n), 1), n - 1)
        chosen = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).tolist()[:size]
        whole = [trajectories[i] for i in sorted(chosen)]
        train = [x for i, x in enumerate(trajectories) if i not in chosen]
    notes = [f"{len(whole)} of {n} trajectories"] if whole else []
    ends: list[Part] = []
    if n == 1 or hold_out != "trajectories":
        cut = [_cut(x, validation, 4 if n == 1 else 2 * NOISE_FROM) for x in train]
        ends = [part for _, part in cut if part]
        train = [x for x, _ in cut]
        if n == 1 and ends:
            last = ends[0].held_out
            notes.append(
                f"the last {len(last.t)} of {len(trajectories[0].t)} observations, from t = {last.t[0]:g} on, of the "
                "only trajectory"
            )
        elif ends:
            notes.append(f"the last part of {len(ends)} others" if whole else f"the last part of {len(ends)}")
    if not whole and not ends:
        longest = max(trajectories, key=lambda x: len(x.t))
        raise ValueError(
            f"a {'single ' if n == 1 else ''}trajectory must have at least 4 observations to hold out its last part, "
            f"{longest.name!r} has {len(longest.t)}; add rows, or use validation=0"
        )
    return Split(train, [*map(Part, whole), *ends], f"held out: {' and '.join(notes)}")


def _cut(trajectory: Trajectory, validation: float, fewest: int) -> tuple[Trajectory, Part | None]:
    """A trajectory without its last part, and that part; None of fewer observations than `fewest`, at least 4."""
    n = len(trajectory.t)
    if n < fewest:
        return trajectory, None
    cut = n - min(max(round(validation * n), 2), n - 2)
    past, end = (replace(trajectory, t=trajectory.t[x], z=trajectory.z[x]) for x in (slice(cut), slice(cut, n)))
    return past, Part(end, past)


def _as_held_out(
    part: Part, d: int, delays: int, delay: float, scale: Scale | None, forecast: int | None
) -> list[Trajectories]:
    """Forecasts of a held-out trajectory: without gaps, shape (T, 1, d), and what was observed.

    With delays, the end of a trajectory has its past in what was trained on, and a forecast begins with a state that
    the noise of one row does not decide. Past values are no observations of their own.
    """
    x = part.held_out
    past = part.past if delays else None
    n = len(past.t) if past else 0
    t, columns = (torch.cat([past.t, x.t]), torch.cat([past.z, x.z])) if past else (x.t, x.z)
    observed, u = columns[:, :d], filled(t, columns[:, d:])
    if scale:
        t, observed = scale.scaled(t, observed)
    z = filled(t, observed)
    times, states = embed(t, z, delays, delay)
    early = len(t) - len(times)  # rows without a past
    first, last = max(n, early), len(t) - 1
    rows = [first]
    if forecast is not None:
        rows = list(range(first, max(first + 1, last), forecast))
        rows = [rows[i] for i in np.unique(np.linspace(0, len(rows) - 1, FORECASTS).round().astype(int))]
    found = []
    for row in rows:
        end = len(t) if forecast is None else min(row + forecast + 1, len(t))
        if end - row < 2:
            continue
        led_on = states[row - early : end - early].clone()
        seen = torch.full_like(led_on, torch.nan)
        if delays and row >= FEWEST:
            led_on[0] = state_to_start_from(t[: row + 1], z[: row + 1], delays, delay)
        seen[:, : z.shape[1]] = observed[row:end]
        own = t[row:end] - t[row] if scale else t[row:end]
        driving = u[row:end, None] if u.shape[1] else None
        found.append(Trajectories(own, led_on[:, None], seen[:, None], driving))
    return found


def _logs(measured: Measured, log: str) -> Tensor | None:
    """The columns that are learned as their logarithm, shape (d,); None: no column."""
    z = torch.cat([x.z[:, : len(measured.states)] for x in measured.trajectories])
    low, high = z.nan_to_num(nan=torch.inf).amin(0), z.nan_to_num(nan=-torch.inf).amax(0)
    positive = low > 0
    if log == "true" and not positive.all():
        k = int((~positive).nonzero()[0, 0])
        raise ValueError(f"`log` must be false where a state is not positive, got {low[k]:g} in {measured.states[k]}")
    wide = positive & (high > DECADE * low)
    return positive if log == "true" or (log == "auto" and bool(wide.any())) else None


def _in_range(path: str | Path, states: Sequence[Tensor], limit: float, precision: str) -> None:
    largest = max((float(x.abs().nan_to_num().max()) for x in states), default=0.0)
    if largest > limit:
        fix = "use other units" + ("" if precision == "float64" else " or precision=float64")
        raise ValueError(
            f"`path` must have states below {limit:.1e}, whose squares {precision} can hold, got {path} with "
            f"{largest:.1e}; {fix}"
        )
