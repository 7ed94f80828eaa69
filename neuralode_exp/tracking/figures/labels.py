"""Draw labelled points before and after the blocks of a classifier."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from neuralode_exp.tracking.figures.style import LEARNED, TRUE, label, new_figure


def draw_states(x: np.ndarray, z: np.ndarray, labels: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> Figure:
    """Draw points of two classes before and after the blocks, with the decision line of the classifier.

    Args:
        x: points, shape (n, 2).
        z: their states after the blocks, shape (n, d).
        labels: 0 or 1, shape (n,).
        weight, bias: of the final linear layer, shapes (2, d) and (2,).
    """
    figure, (left, right) = new_figure(2)
    across = weight[1] - weight[0]
    for ax, points in ((left, x), (right, seen_along(z, across))):
        for which, colour in enumerate((TRUE, LEARNED)):
            ax.plot(*points[labels == which].T, ".", color=colour, ms=2, alpha=0.5)
    right.axvline((bias[0] - bias[1]) / np.linalg.norm(across), color="black", lw=1)
    label(left, "points", "x₁", "x₂")
    label(right, "after the blocks", "towards class 1", "the widest other direction")
    return figure


def seen_along(z: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Project states, shape (n, d), on a direction and on the widest orthogonal one. Return shape (n, 2)."""
    unit = direction / np.linalg.norm(direction)
    along = z @ unit
    rest = z - along[:, None] * unit
    widest = np.linalg.svd(rest - rest.mean(0), full_matrices=False)[2][0]
    return np.stack((along, rest @ widest), 1)
