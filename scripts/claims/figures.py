"""Pictures for the experiments that measure a claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from neuralode_exp.tracking.figures.style import LOOKS, label, new_figure


def draw_powers(curves: Mapping[str, Mapping[float, float]], x: str, y: str) -> Figure:
    """Draw at most six curves on log-log axes, where a power law is a straight line; each curve maps x to y."""
    figure, (ax,) = new_figure(1, width=5.0, height=3.6)
    for (name, points), (colour, look) in zip(curves.items(), LOOKS, strict=False):
        ax.loglog(list(points), list(points.values()), look, color=colour, ms=4, lw=1.4, label=name)
    ticks = sorted({place for points in curves.values() for place in points})
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.xaxis.set_minor_locator(NullLocator())
    label(ax, "", x, y)
    ax.legend(fontsize=8, framealpha=0.7)
    return figure


def draw_curves(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]], x: str, y: str, *, log: bool = False
) -> Figure:
    """Draw lines, each a pair (x, y) of sequences; `log` makes the y axis logarithmic."""
    figure, (ax,) = new_figure(1, width=5.0, height=3.6)
    for (name, points), (colour, look) in zip(curves.items(), LOOKS, strict=False):
        ax.plot(*points, look[1:], color=colour, lw=1.4, label=name)
    if log:
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter("{x:g}")  # 0.5, where 5 x 10^-1 would push the label out of the picture
        ax.yaxis.set_minor_locator(NullLocator())
    label(ax, "", x, y)
    ax.legend(fontsize=8, framealpha=0.7)
    return figure
