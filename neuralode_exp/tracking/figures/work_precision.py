"""Draw the work-precision diagram: two errors against two costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from neuralode_exp.tracking.figures.style import LOOKS, label, new_figure


class Point(Protocol):
    """A solve of the test data: its errors and its costs."""

    @property
    def error(self) -> float: ...
    @property
    def difference(self) -> float: ...
    @property
    def nfe(self) -> float: ...
    @property
    def seconds(self) -> float: ...


def draw(curves: Mapping[str, Sequence[Point]], error: str) -> Figure:
    """Draw each error against evaluations and against seconds, in four axes with one line per solver.

    Args:
        curves: points by name.
        error: name of the error against the truth or the data.
    """
    figure, axes = new_figure(4, width=3.6, height=3.6)
    panels = [(y, x) for y in ("error", "difference") for x in ("nfe", "seconds")]
    titles = {"error": error, "difference": "against a tight solve", "nfe": "evaluations", "seconds": "seconds"}
    for ax, (y, x) in zip(axes, panels, strict=True):
        for i, (name, points) in enumerate(curves.items()):
            colour, look = LOOKS[i % len(LOOKS)]
            places = [(getattr(p, x), getattr(p, y)) for p in points if math.isfinite(getattr(p, y))]
            ax.plot([a for a, _ in places], [b for _, b in places], look, color=colour, ms=4, lw=1.2, label=name)
        _scale(ax, "x")
        _scale(ax, "y")
        label(ax, "", titles[x], titles[y])
        ax.grid(alpha=0.3)
    axes[0].legend(fontsize=7, framealpha=0.7)
    return figure


def _scale(ax: Axes, name: str) -> None:
    """Make an axis logarithmic if its values are positive and span more than a factor of three."""
    axis: Axis = getattr(ax, f"{name}axis")
    low, high = axis.get_data_interval()
    if not 0 < 3 * low < high:
        return
    ax.set(**{f"{name}scale": "log"})
    decades = math.log10(high / low)
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2 else (1.0,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
