"""Draw hidden dynamics: trajectories, vector fields, eigenvalues, and an animation of the training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from neuralode_exp.tracking.figures.style import (
    ERROR_MAP,
    LEARNED,
    OBSERVED,
    TRUE,
    frames_of,
    label,
    limits,
    limits_with,
    new_figure,
)

SHOWN = 4  # trajectories in one picture
NAMES = ("z₁", "z₂", "z₃", "z₄")  # plain characters, because rendering mathematics takes as long as a picture


@dataclass(frozen=True)
class Trajectories:
    """Observations and truth, shape (T, N, d), and learned states, shape (R, T, N, d).

    `names` has the names of the d coordinates.
    """

    t: np.ndarray
    observed: np.ndarray
    true: np.ndarray | None
    learned: np.ndarray
    names: Sequence[str] = NAMES

    @property
    def median(self) -> np.ndarray:
        """Return the median over the replicas, shape (T, N, d)."""
        return np.median(self.learned, axis=0)


def draw_trajectories(data: Trajectories) -> Figure:
    """Draw the phase plane of the first two coordinates, and each coordinate against time.

    With several replicas the lines are medians and the band goes from the 10th to the 90th percentile.
    """
    figure, (plane, series) = new_figure(2)
    n = min(SHOWN, data.observed.shape[1])
    for i in range(n):
        plane.plot(
            *data.observed[:, i, :2].T, ".", color=OBSERVED, ms=2.5, zorder=1, label="observed" if i == 0 else None
        )
        if data.true is not None:
            plane.plot(*data.true[:, i, :2].T, color=TRUE, lw=1.8, label="true" if i == 0 else None)
        plane.plot(*data.median[:, i, :2].T, "--", color=LEARNED, lw=1.4, label="learned" if i == 0 else None)
    shown = data.observed if data.true is None else data.true
    plane.set_xlim(*limits_with(shown[:, :n, 0], data.median[:, :n, 0]))
    plane.set_ylim(*limits_with(*(z[:, :n, 1 % shown.shape[-1]] for z in (shown, data.median))))
    label(plane, "phase plane", *data.names[:2])
    plane.legend(fontsize=7, loc="best", framealpha=0.7)
    for k, name in zip(range(data.observed.shape[-1]), data.names, strict=False):
        series.plot(data.t, data.observed[:, 0, k], ".", color=OBSERVED, ms=2.5, zorder=1)
        if data.true is not None:
            series.plot(data.t, data.true[:, 0, k], color=TRUE, lw=1.8)
        series.plot(data.t, data.median[:, 0, k], "--", color=LEARNED, lw=1.4)
        if len(data.learned) > 1:
            low, high = np.percentile(data.learned[:, :, 0, k], (10, 90), axis=0)
            series.fill_between(data.t, low, high, color=LEARNED, alpha=0.2, lw=0)
        at = _where_apart(shown[:, 0], k)
        series.annotate(name, (data.t[at], shown[at, 0, k]), (5, 0), textcoords="offset points", fontsize=9)
    series.set_ylim(*limits_with(shown[:, 0], data.median[:, 0]))
    label(series, "one trajectory against time", "t", "z" if data.names is NAMES else "")
    return figure


def _where_apart(z: np.ndarray, k: int) -> int:
    """Return the index of the time when coordinate k of z, shape (T, d), is farthest from the others.

    The last sixth of the times is left out, so that a name to the right of this point stays in the picture.
    """
    z = z[: max(1, 5 * len(z) // 6)]
    others = np.delete(z, k, axis=1)
    if not others.size:
        return 0
    distances = np.abs(others - z[:, k : k + 1]).min(1)
    return int(np.argmax(np.where(np.isfinite(distances), distances, -1.0)))


def draw_fields(x: np.ndarray, y: np.ndarray, true: np.ndarray, learned: np.ndarray) -> Figure:
    """Draw streamlines of the true and the learned field, and the error between them as colour.

    Args:
        x, y: coordinates of the grid, shapes (n,) and (m,).
        true, learned: dz/dt at the grid points, shape (m, n, 2).
    """
    figure, axes = new_figure(3, width=3.0)
    for ax, field, colour, title in zip(axes, (true, learned), (TRUE, LEARNED), ("true", "learned"), strict=False):
        finite = np.where(np.isfinite(field), field, 0.0)
        ax.streamplot(x, y, finite[..., 0], finite[..., 1], color=colour, density=0.6, linewidth=0.8, arrowsize=0.7)
        label(ax, f"{title} field", "z₁", "z₂")
    error = np.linalg.norm(learned - true, axis=-1) / np.sqrt((true**2).sum(-1).mean())
    image = axes[2].pcolormesh(x, y, error, cmap=ERROR_MAP, shading="nearest", rasterized=True)
    label(axes[2], "error, relative to the rms field", "z₁", "z₂")
    figure.colorbar(image, ax=axes[2]).ax.tick_params(labelsize=7)
    return figure


def draw_eigenvalues(steps: Sequence[int], learned: np.ndarray, true: np.ndarray) -> Figure:
    """Draw the eigenvalues of the learned field in the complex plane, coloured by the training step.

    Args:
        steps: training steps, n of them.
        learned: shape (n, R, d), complex.
        true: shape (d,), complex.
    """
    figure, (ax,) = new_figure(1, width=4.2)
    finite = learned[np.isfinite(learned)]
    colours = np.broadcast_to(np.asarray(steps)[:, None, None], learned.shape)[np.isfinite(learned)]
    points = ax.scatter(finite.real, finite.imag, c=colours, cmap=ERROR_MAP, s=12, label="learned")
    ax.plot(true.real, true.imag, "o", color=LEARNED, ms=11, mew=1.6, mfc="none", label="true")
    # Early eigenvalues may be far off, so that only the surroundings of the truth are shown.
    reach = 1.5 * max(1e-3, float(np.abs(true).max()))
    centre = complex(true.mean())
    ax.set_xlim(centre.real - reach, centre.real + reach)
    ax.set_ylim(centre.imag - reach, centre.imag + reach)
    ax.axvline(0, color=OBSERVED, lw=0.6)
    label(ax, "eigenvalues at the fixed point", "real part", "imaginary part")
    ax.legend(fontsize=7, loc="upper right", framealpha=0.7)
    bar = figure.colorbar(points, ax=ax)
    bar.set_label("training step", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    return figure


def learning_frames(steps: Sequence[int], snapshots: Sequence[Trajectories]) -> list[np.ndarray]:
    """Return frames of the phase plane, one for each snapshot of the training."""
    figure, (ax,) = new_figure(1, width=4.0, height=3.6)
    first = snapshots[0]
    n = min(SHOWN, first.observed.shape[1])
    shown = first.observed if first.true is None else first.true
    for i in range(n):
        ax.plot(*first.observed[:, i, :2].T, ".", color=OBSERVED, ms=2.5)
        if first.true is not None:
            ax.plot(*first.true[:, i, :2].T, color=TRUE, lw=1.6)
    ax.set_xlim(*limits(shown[:, :n, 0]))
    ax.set_ylim(*limits(shown[:, :n, 1 % shown.shape[-1]]))
    label(ax, "learning", *first.names[:2])
    lines = [ax.plot([], [], "--", color=LEARNED, lw=1.4)[0] for _ in range(n)]
    text = ax.text(0.02, 0.96, "", transform=ax.transAxes, fontsize=9, va="top")

    def update(step: int, snapshot: Trajectories) -> None:
        for i, line in enumerate(lines):
            line.set_data(*snapshot.median[:, i, :2].T)
        text.set_text(f"step {step}")

    updates = [lambda s=s, x=x: update(s, x) for s, x in zip(steps, snapshots, strict=True)]
    return frames_of(figure, ax, [*lines, text], updates)
