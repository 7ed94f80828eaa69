"""A grid: plan its cells, run those that are missing, show how each of them ended."""

from __future__ import annotations

import logging
import shlex
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig, OmegaConf

from neuralode_exp.config.answer import steps
from neuralode_exp.config.errors import typed
from neuralode_exp.interruption import StopLater, stop_if_heard
from neuralode_exp.outcome import Interrupted, command
from neuralode_exp.sweep import STEPS_AFTER, conclusions, table, telling
from neuralode_exp.sweep.cells import Cell, Outcome, Planner, outcome
from neuralode_exp.sweep.launching import Jobs
from neuralode_exp.sweep.processes import at_a_time, jobs_at_once
from neuralode_exp.tracking.summary import read_summary

log = logging.getLogger(__name__)


def run_grid(
    config: DictConfig,
    loader: ConfigLoader,
    launcher: Launcher,
    axes: Iterable[str],
    *,
    max_batch_size: int | None,
    stop_after: int | None,
    detach: bool,
) -> None:
    """Run every cell that is not completed, print the table of all cells and write sweep.csv.

    Several calls may share a grid: a cell that another process holds is waited for at the end.

    Args:
        config: the composed config, of which Hydra's part is read.
        loader: Hydra's loader of the config files.
        launcher: Hydra's launcher, after its setup.
        axes: the arguments of the grid, such as `model=resnet,odenet`.
        max_batch_size: most cells that the launcher gets at a time; None for no limit.
        stop_after: number of failures after which the grid ends; None for no limit.
        detach: whether to return once Slurm has the jobs. Failed cells are then not tried again, so that the same call
            can be repeated to see how the cells stand.

    Raises:
        SystemExit: with 1, if a cell failed.
        Interrupted: on Ctrl-C, with the command that goes on.
    """
    folder = open_sweep(config)
    cells = Planner(loader, config.hydra.overrides.hydra, folder).cells(axes)
    jobs = Jobs(launcher, max_batch_size or jobs_at_once(launcher), stop_after)
    missing = [cell for cell in cells if cell.is_run and outcome(cell).status != "completed"]
    log.info("%d cells, %d to run in %s", len(cells), len(missing), folder)
    with stopping(folder, lambda: show(folder, cells, jobs.outcomes(cells))):
        if detach:
            again = [cell for cell in missing if not jobs.is_busy(cell) and outcome(cell).status != "failed"]
            jobs.run(with_steps_after(again, at_a_time(launcher)))
        else:
            jobs.run_all(with_steps_after(missing, at_a_time(launcher)))
        if jobs.stopped:
            log.warning("stopped after hydra.sweeper.stop_after=%d failures; the same command goes on", stop_after)
    if any(end.is_bad for end in jobs.outcomes(cells)):
        sys.exit(1)


def with_steps_after(cells: Sequence[Cell], at_once: int) -> list[Cell]:
    """Tell each job how many training steps come after it, so that it can estimate when the grid ends.

    Args:
        cells: cells to run, in their order.
        at_once: number of jobs that run side by side.
    """
    told: list[Cell] = []
    after = 0
    for cell in reversed(cells):
        if (n := steps(cell.config)) is None:
            return list(cells)
        told.append(replace(cell, of_job=(*cell.of_job, telling(STEPS_AFTER, after // at_once))))
        after += n
    return told[::-1]


def open_sweep(config: DictConfig) -> Path:
    """Make the grid's folder, write Hydra's config of the grid into it, and return it."""
    folder = Path(config.hydra.sweep.dir)
    folder.mkdir(parents=True, exist_ok=True)
    table.write_if_changed(folder / "multirun.yaml", OmegaConf.to_yaml(config))
    return folder


def show(folder: Path, cells: Sequence[Cell], ends: Sequence[Outcome]) -> None:
    table.write_csv(folder, cells, ends)
    print(table.text(cells, ends))
    done = [cell for cell, end in zip(cells, ends, strict=True) if cell.is_run and end.status == "completed"]
    metrics = {cell.number: summary["metrics"] for cell in done if (summary := read_summary(cell.folder))}
    for line in (*conclusions.best(cells, ends), *conclusions.without_effect(cells, metrics)):
        print(line)
    print(f"{table.counts(cells, ends)}; {folder / table.FILE_NAME}; tensorboard --logdir {shlex.quote(str(folder))}")


@contextmanager
def stopping(folder: Path, show: Callable[[], object]) -> Iterator[None]:
    """Show how the cells stand when the block ends or is interrupted.

    An interrupt of the block, or one that arrives while the table is shown, ends the grid.

    Raises:
        Interrupted: with the command that goes on.
    """
    number: int | None = None
    try:
        yield
        stop_if_heard()
    except KeyboardInterrupt as interrupt:
        number = interrupt.signal if isinstance(interrupt, Interrupted) else signal.SIGINT
    with StopLater("stopping after the table") as later:
        show()
    number = number or later.received
    if number is None:
        return
    words = [word for word in sys.argv[1:] if not word.startswith("hydra.sweep.dir=")]
    arguments = f"{shlex.join(words)} {typed('hydra.sweep.dir', str(folder))}"
    raise Interrupted(f"interrupted; go on with: {command()} {arguments}", number)
