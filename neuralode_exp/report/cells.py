"""Cells of a grid that have no folder: skipped ones, and those that never started."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neuralode_exp.config import ConfigError
from neuralode_exp.config.compose import CONF
from neuralode_exp.report.runs import Run, settings_of
from neuralode_exp.sweep import table


def cells_without_run(folder: Path) -> Iterator[Run]:
    """Yield such cells, as the sweep.csv of each grid in and under a folder lists them."""
    for path_of_table in sorted(folder.absolute().rglob(table.FILE_NAME)):
        for row in table.read_csv(path_of_table):
            path = path_of_table.parent / (row["run"] or f"cell {row['cell']}")
            if not row["same_as"] and not path.is_dir():
                yield Run(path, row["status"], row["reason"] or None, _settings(row["overrides"].split(" ")))


def _settings(words: list[str]) -> dict[str, Any]:
    """Return the settings that the cell asked for; if its arguments are no longer valid, those arguments."""
    from neuralode_exp.config.compose import Composer  # this imports Hydra, and few grids have such cells
    from neuralode_exp.config.hydra_internals import make_loader

    composer = Composer(make_loader(CONF))
    try:
        return settings_of(composer.config(composer.parse(words, [])))
    except ConfigError:
        return {key.removesuffix(".name"): value for key, _, value in (word.partition("=") for word in words)}
