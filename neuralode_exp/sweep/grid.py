"""A whole grid: plan the cells, run what is missing, show how each ended."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from hydra.core.config_loader import ConfigLoader
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from neuralode_exp.outcome import Interrupted
from neuralode_exp.sweep import table
from neuralode_exp.sweep.cells import Cell, Outcome, Planner, outcome
from neuralode_exp.sweep.launching import Jobs
from neuralode_exp.sweep.processes import jobs_at_once

log = logging.getLogger(__name__)


def run_grid(
    config: DictConfig, loader: ConfigLoader, launcher: Launcher, axes: Iterable[str], max_batch_size: int | None
) -> None:
    """Run every cell that is not completed, print the table of all and write sweep.csv.

    Args:
        config: the composed config, for Hydra's part.
        loader: Hydra's, of the config files.
        launcher: Hydra's, set up.
        axes: the arguments of the grid, as `model=resnet,odenet`.
        max_batch_size: cells handed to the launcher at a time; None for as many as it likes.

    Raises:
        SystemExit: with 1, if a cell failed.
        Interrupted: on Ctrl-C, with the command that goes on.
    """
    folder = open_sweep(config)
    cells = Planner(loader, config.hydra.overrides.hydra, folder).cells(axes)
    jobs = Jobs(launcher, max_batch_size or jobs_at_once(launcher))
    missing = [cell for cell in cells if cell.is_run and outcome(cell).status not in ("completed", "running")]
    log.info("%d cells, %d to run in %s", len(cells), len(missing), folder)
    try:
        jobs.run(missing)
    except KeyboardInterrupt as interrupt:
        show(folder, cells, outcomes(cells, jobs))
        stop(folder, interrupt)
    ends = outcomes(cells, jobs)
    show(folder, cells, ends)
    if any(end.is_bad for end in ends):
        sys.exit(1)


def open_sweep(config: DictConfig) -> Path:
    """Make the grid's folder, with the config that Hydra has of it, and return it."""
    folder = Path(config.hydra.sweep.dir)
    folder.mkdir(parents=True, exist_ok=True)
    table.write_if_changed(folder / "multirun.yaml", OmegaConf.to_yaml(config))
    return folder


def outcomes(cells: Sequence[Cell], jobs: Jobs) -> list[Outcome]:
    """Return how each cell stands; one that is the same run as another stands as that one."""
    return [outcome(cell, jobs.said.get(cell.folder)) for cell in cells]


def show(folder: Path, cells: Sequence[Cell], ends: Sequence[Outcome]) -> None:
    table.write_csv(folder, cells, ends)
    print(table.text(cells, ends))
    print(f"{table.counts(cells, ends)}; {folder / table.FILE_NAME}; tensorboard --logdir {shlex.quote(str(folder))}")


def stop(folder: Path, interrupt: KeyboardInterrupt) -> NoReturn:
    """End an interrupted grid with the command that goes on with it."""
    words = [word for word in sys.argv[1:] if not word.startswith("hydra.sweep.dir=")]
    command = shlex.join([*words, f"hydra.sweep.dir={folder}"])
    number = interrupt.signal if isinstance(interrupt, Interrupted) else signal.SIGINT
    raise Interrupted(f"interrupted; go on with: python train.py {command}", number) from None
