"""Pictures for the experiments that measure a claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from neuralode_exp.tracking.figures.style import LOOKS, label, new_figure


def draw_powers(curves: Mapping[str, Mapping[float, float]], x: str, y: str) -> Figure:
    """Draw at most six curves on log-log axes, where a power law is a straight line; each curve maps x to y.

    Later curves have smaller marks, so that equal ones are all seen.
    """
    figure, (ax,) = new_figure(1, width=5.0, height=3.6)
    for i, ((name, points), (colour, look)) in enumerate(zip(curves.items(), LOOKS, strict=False)):
        ax.loglog(list(points), list(points.values()), look, color=colour, ms=9 - 1.5 * i, lw=1.4, label=name)
    ticks = sorted({place for points in curves.values() for place in points})
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    _round_ticks(ax)
    label(ax, "", x, y)
    ax.legend(fontsize=8, framealpha=0.7)
    return figure


def draw_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str, *, log: bool = False
) -> Figure:
    """Draw lines, each a pair (x, y) of sequences; `log` makes the y axis logarithmic. Later lines are thinner."""
    figure, (ax,) = new_figure(1, width=5.0, height=3.6)
    for i, ((name, points), (colour, look)) in enumerate(zip(curves.items(), LOOKS, strict=False)):
        ax.plot(*points, look[1:], color=colour, lw=max(2.4 - 0.5 * i, 1.0), label=name)
    if log:
        ax.set_yscale("log")
        _round_ticks(ax)
    label(ax, "", x, y)
    ax.legend(fontsize=8, framealpha=0.7)
    return figure


def _round_ticks(ax: Axes) -> None:
    """Write 0.5 on a logarithmic y axis, where 5 x 10^-1 would push the label out of the picture."""
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_locator(NullLocator())
