"""Draw the regions in which reversible steps are stable.

    python scripts/stability.py docs/reversible-stability.png

On dz/dt = a z, with x = h a and the base method's stability function R(x) = 1 + x b^T (I - x A)^-1 1, a step of
`neuralode_exp/ode/steppers/reversible.py` is the matrix

    y1 = l y + (R(x) - l) z,        z1 = z + (1 - R(-x)) y1,

whose determinant is l. Inside a line no eigenvalue is larger than 1.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from neuralode_exp.ode.tableaus import TABLEAUS

METHODS = ("euler", "midpoint", "rk4", "dopri5")
COUPLINGS = {0.5: "C0", 0.9: "C1", 0.99: "C2"}
Complex = NDArray[np.complex128]


def stability_function(name: str, x: Complex) -> Complex:
    """Return R(x) of an explicit method, the result of a step from z = 1."""
    tableau = TABLEAUS[name]
    k: list[Complex] = []
    for row in tableau.a:
        k.append(x * (1 + sum((a * stage for a, stage in zip(row, k, strict=False)), np.zeros_like(x))))
    return 1 + sum((b * stage for b, stage in zip(tableau.b, k, strict=False)), np.zeros_like(x))


def spectral_radius(name: str, coupling: float, x: Complex) -> NDArray[np.float64]:
    """Return the larger modulus of the two eigenvalues of a reversible step; their product is the coupling."""
    ahead, back = stability_function(name, x) - coupling, 1 - stability_function(name, -x)
    half = (coupling + 1 + back * ahead) / 2
    root = np.sqrt(half**2 - coupling)
    return np.maximum(np.abs(half + root), np.abs(half - root))


def draw() -> Figure:
    """Draw a panel for each method with a line for each coupling; the region of the base method is dashed."""
    re, im = np.meshgrid(np.linspace(-3.5, 1.0, 700), np.linspace(-3.5, 3.5, 700))
    x = re + 1j * im
    figure = Figure(figsize=(11, 5))
    figure.subplots_adjust(left=0.06, right=0.99, bottom=0.15, top=0.88, wspace=0.08)
    axes = figure.subplots(1, len(METHODS), sharey=True)
    for ax, name in zip(axes, METHODS, strict=True):
        ax.contour(re, im, np.abs(stability_function(name, x)), [1.0], colors="0.6", linestyles="dashed")
        for coupling, colour in COUPLINGS.items():
            ax.contour(re, im, spectral_radius(name, coupling, x), [1.0], colors=colour)
        ax.set(title=name, xlabel="Re(h a)", aspect="equal")
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("Im(h a)")
    figure.suptitle("dz/dt = a z: a step of size h is stable inside a line", fontsize="medium")
    lines = [Line2D([], [], color=colour, label=f"coupling {coupling:g}") for coupling, colour in COUPLINGS.items()]
    base = Line2D([], [], color="0.6", linestyle="dashed", label="base method")
    figure.legend(handles=[*lines, base], loc="lower center", ncols=4, fontsize="small")
    return figure


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="file to write the picture to")
    args = parser.parse_args(argv)
    draw().savefig(args.file, dpi=80)
    print(args.file)


if __name__ == "__main__":
    main()
