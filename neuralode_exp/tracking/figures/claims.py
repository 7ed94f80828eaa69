"""Pictures of what a claim says of a grid of runs."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from neuralode_exp.tracking.figures.style import LEARNED, OBSERVED, TRUE, label, new_figure

PURPLE = "#CC79A7"  # a fourth colour of Okabe & Ito
LOOKS = ((OBSERVED, "o-"), (LEARNED, "s-"), (TRUE, "D-"), (PURPLE, "^-"))


def draw_powers(curves: Mapping[str, Mapping[float, float]], x: str, y: str) -> Figure:
    """Log-log lines, where a power law is straight; at most four, each with its y by x."""
    figure, (ax,) = new_figure(1, width=5.0, height=3.6)
    for (name, points), (colour, look) in zip(curves.items(), LOOKS, strict=False):
        ax.loglog(list(points), list(points.values()), look, color=colour, ms=4, lw=1.4, label=name)
    ticks = sorted({place for points in curves.values() for place in points})
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    label(ax, "", x, y)
    ax.legend(fontsize=8, framealpha=0.7)
    return figure
