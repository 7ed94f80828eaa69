"""Draw the mistakes of an image classifier."""

from __future__ import annotations

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from neuralode_exp.tracking.figures.style import DPI, LEARNED

COLUMNS, ROWS = 8, 4
SHOWN = COLUMNS * ROWS


def draw_mistakes(images: np.ndarray, labels: np.ndarray, predicted: np.ndarray, wrong: int, tested: int) -> Figure:
    """Draw the first wrongly classified test images, each with the title `label > prediction`.

    Args:
        images: shape (n, h, w, c), n up to `SHOWN`; c is 3 for colours, or 1.
        labels, predicted: shape (n,).
        wrong, tested: number of all mistakes, and number of all test images.
    """
    figure = Figure(figsize=(0.85 * COLUMNS, 1.0 * ROWS + 0.4), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.01, top=0.86, wspace=0.1, hspace=0.3)
    axes = figure.subplots(ROWS, COLUMNS).ravel()
    for ax in axes:
        ax.axis("off")
    for ax, image, label, prediction in zip(axes, images, labels, predicted, strict=False):
        low, high = image.min(), image.max()
        ax.imshow((image - low) / max(high - low, 1e-30), cmap="gray_r")  # in [0, 1], as colours must be
        ax.set_title(f"{label} > {prediction}", fontsize=8, color=LEARNED, pad=2)
    shown = f", the first {len(images)}" if len(images) < wrong else ""
    figure.suptitle(f"{wrong} of {tested} test images are taken for another class{shown}", fontsize=10)
    return figure
