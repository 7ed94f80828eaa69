"""The cells of a grid, and how each of them stands by what its run wrote."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.config_loader import ConfigLoader

from neuralode_exp.config import Config, identity, label, without_meaning
from neuralode_exp.config.axes import expand
from neuralode_exp.config.compose import Composer, open_options
from neuralode_exp.config.errors import quoted
from neuralode_exp.config.label import joined
from neuralode_exp.tracking.summary import DamagedSummary, Summary, read_summary


@dataclass(frozen=True)
class Cell:
    """One cell of a grid.

    Args:
        number: its place in the grid.
        overrides: its arguments, such as `model=resnet`.
        config: the config that these arguments give.
        identity: identity of the run.
        label: label of the run.
        folder: folder of the run; a new one is named by label and identity.
        gap: why the combination is impossible; None for a cell that can run.
        same_as: number of an earlier cell that is the same run; None for the first of them.
        of_job: further arguments of its job, which do not change the run.
    """

    number: int
    overrides: tuple[str, ...]
    config: Config
    identity: str
    label: str
    folder: Path
    gap: str | None
    same_as: int | None
    of_job: tuple[str, ...] = ()

    @property
    def is_run(self) -> bool:
        """Whether the cell has a run of its own: it is possible, and no earlier cell is the same run."""
        return self.gap is None and self.same_as is None

    @property
    def name(self) -> str:
        """The folder's name, with the label before it if somebody renamed the folder."""
        return self.folder.name if self.label in self.folder.name else f"{self.label} in {self.folder.name}"

    @property
    def arguments(self) -> list[str]:
        """The arguments of its job, with the folder where its name is not the one that Hydra would give."""
        words = [*(open_options(word) for word in self.overrides), *self.of_job]
        if self.folder.name == joined(self.label, self.identity):
            return words
        return [*words, f"hydra.sweep.subdir={quoted(self.folder.name)}"]


class Planner:
    """Makes cells from arguments. It composes their configs as Hydra will do in each job.

    Args:
        loader: Hydra's loader of the config files.
        of_hydra: arguments for Hydra itself, which all jobs share.
        sweep_dir: the grid's folder.
    """

    def __init__(self, loader: ConfigLoader, of_hydra: Iterable[str], sweep_dir: Path) -> None:
        self._composer = Composer(loader)
        self._of_hydra = list(of_hydra)
        self._sweep_dir = sweep_dir
        self._folders = folders_by_identity(sweep_dir)
        self._first: dict[str, int] = {}

    def cells(self, axes: Iterable[str]) -> list[Cell]:
        """Return all cells of a grid with these axes, such as `model=resnet,odenet`."""
        return [self.cell(number, words) for number, words in enumerate(expand(self._composer.parse(axes, [])))]

    def cell(self, number: int, overrides: Sequence[str], of_job: Sequence[str] = ()) -> Cell:
        """Return the cell with these arguments."""
        config = self._composer.config(self._composer.parse([*self._of_hydra, *overrides], []))
        run, gap = identity(config), without_meaning(config)
        first = number if gap else self._first.setdefault(run, number)
        same_as = first if first != number else None
        name = label(config)
        folder = self._folders.get(run, self._sweep_dir / joined(name, run))
        words = tuple(word.removeprefix("++") for word in overrides)
        why = str(gap) if gap else None
        return Cell(number, words, config, run, name, folder, why, same_as, tuple(of_job))


def folders_by_identity(sweep_dir: Path) -> dict[str, Path]:
    """Return the folder of each identity in a grid's folder, whatever the folder is called.

    Where two folders hold the same run, a completed one is preferred.
    """
    found: dict[str, tuple[bool, Path]] = {}
    for path in sorted(sweep_dir.glob("*/summary.json")):
        with contextlib.suppress(ValueError, KeyError, TypeError):  # a damaged summary: its cell runs again
            summary = json.loads(path.read_text(encoding="utf-8"))
            entry = (summary["status"] == "completed", path.parent)
            found[summary["identity"]] = max(found.get(summary["identity"], entry), entry)
    return {identity: folder for identity, (_, folder) in found.items()}


@dataclass(frozen=True)
class Outcome:
    """How a cell stands: `status` is a status of a summary, `not started` or `queued`."""

    status: str
    objective: float | None = None
    seconds: float | None = None
    reason: str = ""

    @property
    def is_bad(self) -> bool:
        return self.status in ("failed", "killed", "not started")


def outcome(cell: Cell, said: Outcome | None = None) -> Outcome:
    """Return how a cell stands by its folder, or as the launcher `said` if the folder has no summary."""
    if cell.gap is not None:
        return Outcome("skipped", reason=cell.gap)
    try:
        summary = read_summary(cell.folder)
    except DamagedSummary as error:
        return Outcome("failed", reason=str(error))
    if summary is None:
        return said or Outcome("not started")
    return Outcome(summary["status"], summary["objective"], summary["seconds"], _reason(cell, summary))


def _reason(cell: Cell, summary: Summary) -> str:
    if summary["status"] == "failed" and summary["error"] is not None:
        return f"{summary['error']['type']}: {summary['error']['message']}"
    if summary["status"] == "killed":
        return "its process ended without a message, for example by SIGKILL or for lack of memory"
    if summary["status"] == "running":
        process = summary["process"]
        return (
            f"process {process['pid']} on {process['host']} runs it; if that is gone, remove {cell.folder}/summary.json"
        )
    return ""
