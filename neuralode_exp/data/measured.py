"""Split measured trajectories into training and held-out parts, and convert them to the units of learning."""

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

LARGEST = 1e150  # its square is within float64
NOISE_FROM = 5  # consecutive rows that an estimate of the noise needs
DECADE = 10
FORECASTS = 20  # the most forecasts of one held-out trajectory
FEWEST = 5  # rows that a smooth curve needs
FEW = 5  # with fewer trajectories, a single held-out one says little


@dataclass(frozen=True, eq=False)
class Part:
    """A held-out trajectory. `past` is the earlier part of the same trajectory, which is trained on."""

    held_out: Trajectory
    past: Trajectory | None = None


@dataclass(frozen=True, eq=False)
class Split:
    """Trajectories for training and held-out ones. `note` says which were held out."""

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
    """Read a file, split its trajectories and convert their units. States get the given dtype.

    Args:
        path: file for `read_trajectories`.
        validation, seed, hold_out: arguments of `split`.
        dtype: dtype of the states.
        units: with `spread`, each state is in standard deviations of its training part about its mean, and times count
            from their own start in median steps between observations. With `file`, both are as in the file.
        log: with units=spread, whether states are learned as their logarithm: `true`, `false`, or `auto`, which takes
            all positive states if one of them spans more than a decade.
        delays: number of past values of each column that become states too; `auto`: 1 for a single oscillating column.
        forecast: length in rows of each forecast of a held-out trajectory. Forecasts start that many rows apart, and a
            long trajectory has at most 20. None: one forecast of the whole trajectory.
        input: how the field reads inputs between their times. The observations do not depend on it.
        columns: further arguments of `read_trajectories`.

    Raises:
        ValueError: `read_trajectories` or `split` fails, no training trajectory is long enough to estimate the noise,
            or the states leave the range of `dtype`.
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
    # The square of a state must be finite too, as for systems.
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
    """Return the number of past values, and warnings, one of them if no field of one state can fit the column."""
    alone = len(measured.states) == 1 and measured.trajectories[0].z.shape[1] == 1  # without inputs that could drive it
    swings = alone and oscillates(states)
    if delays == 0 and swings:
        cannot = f'"{measured.states[0]}" oscillates, but a field of one state cannot; add dataset.delays=auto'
        return 0, [*measured.warnings, cannot]
    return (int(swings) if delays == "auto" else int(delays)), measured.warnings


def split(trajectories: Sequence[Trajectory], validation: float = 0.2, seed: int = 0, hold_out: str = "auto") -> Split:
    """Hold out a fraction of the trajectories, at least one, or the last part in time of each.

    Args:
        trajectories: from `read_trajectories`.
        validation: fraction of trajectories, or of the observations of each; 0 holds out nothing.
        seed: seed of the choice among trajectories.
        hold_out: `trajectories` holds out whole ones, or the end of a single one. `ends` holds out the end of each.
            `both` holds out some whole ones and the ends of the others. `auto` is `both` for two to four trajectories,
            and else `trajectories`.

    Raises:
        ValueError: `validation` is not in [0, 1), or no trajectory has enough observations for two parts of at least
            two.
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
            others = f" other{'s' * (len(ends) > 1)}" if whole else ""
            notes.append(f"the last part of {len(ends)}{others}")
    if not whole and not ends:
        longest = max(trajectories, key=lambda x: len(x.t))
        raise ValueError(
            f"a {'single ' if n == 1 else ''}trajectory must have at least 4 observations to hold out its last part, "
            f"{longest.name!r} has {len(longest.t)}; add rows, or use dataset.validation=0"
        )
    return Split(train, [*map(Part, whole), *ends], f"held out: {' and '.join(notes)}")


def _cut(trajectory: Trajectory, validation: float, fewest: int) -> tuple[Trajectory, Part | None]:
    """Return a trajectory without its last part, and that part, or None if it is shorter than `fewest` or 4."""
    n = len(trajectory.t)
    if n < fewest:
        return trajectory, None
    cut = n - min(max(round(validation * n), 2), n - 2)
    past, end = (replace(trajectory, t=trajectory.t[x], z=trajectory.z[x]) for x in (slice(cut), slice(cut, n)))
    return past, Part(end, past)


def _as_held_out(
    part: Part, d: int, delays: int, delay: float, scale: Scale | None, forecast: int | None
) -> list[Trajectories]:
    """Return the forecasts of a held-out trajectory: states without gaps, shape (T, 1, d), and what was observed.

    With delays, the past of a held-out end is in the training part, and a forecast starts from a smoothed state, so
    that the noise of one row matters little. Past values do not count as observations.
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
    early = len(t) - len(times)  # number of rows without a known past
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
    """Return a mask of the columns that are learned as their logarithm, shape (d,), or None if there are none."""
    z = torch.cat([x.z[:, : len(measured.states)] for x in measured.trajectories])
    low, high = z.nan_to_num(nan=torch.inf).amin(0), z.nan_to_num(nan=-torch.inf).amax(0)
    positive = low > 0
    if log == "true" and not positive.all():
        k = int((~positive).nonzero()[0, 0])
        raise ValueError(f"`log` must be false if a state is not positive, got {low[k]:g} in {measured.states[k]}")
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
