"""Draw a fit to measured data, in the units and names of the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from neuralode_exp.tracking.figures.style import GREEN, LEARNED, LOOKS, OBSERVED, label, limits_with, new_figure

PANELS = 3  # columns of the table in one picture


@dataclass(frozen=True)
class Forecast:
    """A held-out trajectory and its forecasts.

    Args:
        names: names of the d columns.
        t: time from the first held-out row, shape (T,).
        observed: observations, shape (T, d), with NaN for missing values.
        learned: forecast of each replica, shape (R, T, d).
        spread: standard deviation of each column, shape (d,).
    """

    names: Sequence[str]
    t: np.ndarray
    observed: np.ndarray
    learned: np.ndarray
    spread: np.ndarray


def draw_forecast(forecast: Forecast) -> Figure:
    """Draw each column from the first held-out row on, with persistence (a constant forecast), and all residuals.

    With several replicas the line is the median and the band goes from the 10th to the 90th percentile.
    """
    n = min(PANELS, len(forecast.names))
    figure, axes = new_figure(n + 1)
    median = np.median(forecast.learned, axis=0)
    for k, ax in enumerate(axes[:n]):
        seen = forecast.observed[:, k]
        ax.plot(forecast.t, seen, "o", color=OBSERVED, ms=3, label="held out")
        ax.axhline(median[0, k], color=GREEN, lw=1.2, ls=":", label="persistence")
        ax.plot(forecast.t, median[:, k], color=LEARNED, lw=1.4, label="forecast")
        if len(forecast.learned) > 1:
            low, high = np.percentile(forecast.learned[:, :, k], (10, 90), axis=0)
            ax.fill_between(forecast.t, low, high, color=LEARNED, alpha=0.2, lw=0)
        ax.set_ylim(*limits_with(np.append(seen, median[0, k]), median[:, k]))
        label(ax, forecast.names[k], "time from the first held-out row", "")
        ax.legend(fontsize=7, loc="best", framealpha=0.7)
    residuals = (median - forecast.observed) / forecast.spread
    for k, (colour, look) in enumerate(LOOKS[1 : n + 1]):
        axes[n].plot(forecast.t, residuals[:, k], look, color=colour, ms=3, lw=1, label=forecast.names[k])
    axes[n].axhline(0, color=OBSERVED, lw=0.6)
    label(axes[n], "forecast - held out, in standard deviations", "time from the first held-out row", "")
    axes[n].legend(fontsize=7, loc="best", framealpha=0.7)
    return figure


def draw_learned_field(
    names: Sequence[str], x: np.ndarray, y: np.ndarray, field: np.ndarray, observed: Sequence[np.ndarray]
) -> Figure:
    """Draw streamlines of the learned field of two columns, with the observations that it was learned from.

    Args:
        names: names of the two columns.
        x, y: even coordinates of the grid, shapes (n,) and (m,).
        field: dz/dt at the grid points, shape (m, n, 2).
        observed: states to train on, each shape (T, 2).
    """
    figure, (ax,) = new_figure(1, width=4.4, height=3.8)
    finite = np.where(np.isfinite(field), field, 0.0)
    ax.streamplot(x, y, finite[..., 0], finite[..., 1], color=LEARNED, density=0.9, linewidth=0.8, arrowsize=0.7)
    for k, z in enumerate(observed):
        ax.plot(*z.T, ".", color=OBSERVED, ms=4, label=None if k else "observed")
    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(y[0], y[-1])
    label(ax, "learned field", *names)
    ax.legend(fontsize=7, loc="best", framealpha=0.7)
    return figure
