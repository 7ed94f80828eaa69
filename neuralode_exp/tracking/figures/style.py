"""The common style of pictures: sizes that are readable in TensorBoard, and colours that everybody can distinguish."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

# Okabe & Ito, Color universal design, 2008.
TRUE, LEARNED, OBSERVED = "#0072B2", "#D55E00", "#999999"
PURPLE, GREEN, SKY = "#CC79A7", "#009E73", "#56B4E9"
# Colours of lines in one plot.
LOOKS = ((OBSERVED, "o-"), (LEARNED, "s-"), (TRUE, "D-"), (PURPLE, "^-"), (GREEN, "v-"), (SKY, "P-"))
ERROR_MAP = "cividis"
DPI = 100
# Room for labels around and between axes, in inches. It is fixed, because a layout engine that measures every label
# takes as long as the rest of a picture.
LEFT, RIGHT, BOTTOM, TOP, BETWEEN = 0.68, 0.12, 0.48, 0.28, 0.75


def new_figure(columns: int, *, width: float = 3.4, height: float = 3.1) -> tuple[Figure, list[Axes]]:
    """Return a figure with one row of axes, drawn by Agg."""
    figure = Figure(figsize=(width * columns, height), dpi=DPI)
    FigureCanvasAgg(figure)
    total = width * columns
    ax_width = (total - LEFT - RIGHT - (columns - 1) * BETWEEN) / columns
    figure.subplots_adjust(
        left=LEFT / total,
        right=1 - RIGHT / total,
        bottom=BOTTOM / height,
        top=1 - TOP / height,
        wspace=BETWEEN / ax_width,
    )
    axes = list(np.atleast_1d(figure.subplots(1, columns)))
    for ax in axes:
        ax.tick_params(labelsize=8)
    return figure, axes


def label(ax: Axes, title: str, x: str, y: str) -> None:
    ax.set_title(title, fontsize=9)
    ax.set_xlabel(x, fontsize=9)
    ax.set_ylabel(y, fontsize=9, labelpad=2)


def limits(*arrays: np.ndarray, margin: float = 0.05) -> tuple[float, float]:
    """Return the lowest and highest finite value of all arrays, with a margin."""
    values = np.concatenate([a.ravel() for a in arrays])
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (-1.0, 1.0)
    pad = margin * (high - low) or 1.0
    return low - pad, high + pad


def limits_with(seen: np.ndarray, learned: np.ndarray) -> tuple[float, float]:
    """Return the limits of both. What is learned may diverge, and is cut off one range of `seen` beyond it."""
    low, high = limits(seen, margin=1.0)
    return limits(seen, learned.clip(low, high))


def frames_of(figure: Figure, ax: Axes, artists: Sequence, updates: Sequence) -> list[np.ndarray]:
    """Return one RGB frame for each update, a function that changes the artists. The rest is drawn only once."""
    for artist in artists:
        artist.set_animated(True)
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    canvas.draw()
    background = canvas.copy_from_bbox(figure.bbox)
    frames = []
    for update in updates:
        canvas.restore_region(background)
        update()
        for artist in artists:
            (artist.axes or ax).draw_artist(artist)
        frames.append(np.asarray(canvas.buffer_rgba())[..., :3].copy())
    return frames
