"""Lines below the final table of a grid: the best run of each dataset, and axes that changed nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from neuralode_exp.report.columns import objective_tag, with_unit
from neuralode_exp.sweep.cells import Cell, Outcome

# Metrics that differ between equal runs, because they depend on the process and on what ran in it before.
CLOCKS = ("time/", "memory/peak")


def best(cells: Sequence[Cell], outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield a line for the run with the lowest objective on each dataset that has several completed runs."""
    by_dataset: dict[tuple[str, str], list[tuple[float, Cell]]] = {}
    for cell, end in zip(cells, outcomes, strict=True):
        if cell.is_run and end.status == "completed" and end.objective is not None:
            held_out = getattr(cell.config.dataset, "validation", None)
            tag = objective_tag(cell.config.trainer.name, cell.config.objective, held_out)
            by_dataset.setdefault((cell.config.dataset.name, tag), []).append((end.objective, cell))
    for (dataset, tag), found in by_dataset.items():
        if len(found) > 1:
            value, cell = min(found, key=lambda one: one[0])
            yield f"best on {dataset}: {with_unit(tag, value)}, cell {cell.number}, {cell.folder}"


def without_effect(cells: Sequence[Cell], metrics: Mapping[int, Mapping[str, float]]) -> Iterator[str]:
    """Yield a line for each key of the grid whose values changed nothing.

    Args:
        cells: all cells of the grid.
        metrics: metrics of the completed runs, by the number of their cell.
    """
    words = {cell.number: dict(word.partition("=")[::2] for word in cell.overrides) for cell in cells if cell.is_run}
    for key in dict.fromkeys(key for of_cell in words.values() for key in of_cell):
        alike: dict[str, list[dict[str, str]]] = {}
        for number, of_cell in words.items():
            if number in metrics:
                others = repr({other: value for other, value in of_cell.items() if other != key})
                alike.setdefault(others, []).append(_without_clocks(metrics[number]))
        compared = [rows for rows in alike.values() if len(rows) > 1]
        if compared and all(row == rows[0] for rows in compared for row in rows):
            yield f"{key} changed nothing: runs that differ in it alone are equal in every metric"


def _without_clocks(metrics: Mapping[str, float]) -> dict[str, str]:
    kept = {tag.removeprefix("final/"): value for tag, value in metrics.items()}
    # Values are compared as text, so that NaN equals NaN.
    return {tag: repr(value) for tag, value in kept.items() if not tag.startswith(CLOCKS)}
