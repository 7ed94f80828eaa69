"""Draw a density: the truth, the learned density, samples, and their paths from the base to the data."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from neuralode_exp.tracking.figures.style import LEARNED, TRUE, frames_of, label, new_figure

Box = np.ndarray  # (2, d): lowest and highest coordinates


def draw_densities(
    box: Box, true: np.ndarray | None, learned: np.ndarray, data: np.ndarray, drawn: np.ndarray
) -> Figure:
    """Draw the true density (or data points if it is not known), the learned one and its samples, in 2-D.

    Args:
        box: the region that is shown.
        true, learned: densities on a grid over the box, shape (n, n), the first axis is x; `true` may be None.
        data, drawn: points of the data and of the model, shape (m, 2).
    """
    figure, (left, middle, right) = new_figure(3, width=3.0)
    top = float(learned.max() if true is None else true.max())
    if true is None:
        _points(left, data, box, TRUE, "data")
    else:
        _grid(left, true, box, top, "true density")
    _grid(middle, learned, box, top, "learned density")
    _points(right, drawn, box, LEARNED, "samples of the model")
    return figure


def draw_clouds(box: Box, data: np.ndarray, drawn: np.ndarray) -> Figure:
    """Draw data and samples in 3-D, each from two sides. Of more dimensions the first three are drawn."""
    figure, axes = new_figure(4, width=2.6)
    for ax in axes:
        ax.remove()
    for i, (points, colour, name) in enumerate(((data, TRUE, "data"), (drawn, LEARNED, "model"))):
        for j, (elevation, azimuth) in enumerate(((25, -60), (60, 30))):
            ax = figure.add_subplot(1, 4, 2 * i + j + 1, projection="3d")
            ax.scatter(*points[:, :3].T, s=4, c=colour, alpha=0.5, lw=0)
            ax.view_init(elevation, azimuth)
            ax.set_box_aspect((box[1] - box[0])[:3], zoom=1.05)  # a unit is as long on every axis
            ax.set(xlim=box[:, 0], ylim=box[:, 1], zlim=box[:, 2])
            ax.tick_params(labelsize=6, pad=-3)
            ax.set_title(f"{name}, view {j + 1}", fontsize=9)
    return figure


def flow_frames(box: Box, times: np.ndarray, path: np.ndarray) -> list[np.ndarray]:
    """Return frames of the paths of samples, shape (len(times), m, d), in their first two coordinates."""
    figure, (ax,) = new_figure(1, width=3.6, height=3.6)
    label(ax, "from the base to the data", "x₁", "x₂")
    reach = np.array([np.minimum(box[0, :2], -3.0), np.maximum(box[1, :2], 3.0)])  # the base is a standard normal
    ax.set(xlim=reach[:, 0], ylim=reach[:, 1])
    (points,) = ax.plot([], [], ".", color=LEARNED, ms=2, alpha=0.5)
    text = ax.text(0.02, 0.96, "", transform=ax.transAxes, fontsize=9, va="top")

    def update(t: float, z: np.ndarray) -> None:
        points.set_data(z[:, 0], z[:, 1])
        text.set_text(f"t = {t:.2f}")

    updates = [lambda t=t, z=z: update(t, z) for t, z in zip(times, path, strict=True)]
    return frames_of(figure, ax, [points, text], updates)


def _grid(ax: Axes, density: np.ndarray, box: Box, top: float, title: str) -> None:
    extent = (*box[:, 0], *box[:, 1])
    ax.imshow(density.T, origin="lower", extent=extent, vmin=0, vmax=top, cmap="cividis", aspect="auto")
    label(ax, title, "x₁", "x₂")


def _points(ax: Axes, points: np.ndarray, box: Box, colour: str, title: str) -> None:
    ax.plot(points[:, 0], points[:, 1], ".", color=colour, ms=1.5, alpha=0.4)
    ax.set(xlim=box[:, 0], ylim=box[:, 1])
    label(ax, title, "x₁", "x₂")
