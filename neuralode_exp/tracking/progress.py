"""Show the progress of a run: a bar on a terminal, plain log lines in a file or pipe."""

import logging
import shlex
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Self

log = logging.getLogger(__name__)


class Progress(ABC):
    """A display of the finished steps. As a context manager it closes itself."""

    every: float  # seconds between two updates of the display

    def __init__(self, total: int | None, start: int, steps_after: int = 0) -> None:
        self._total, self._pace = total, Pace(total, start, steps_after)
        self._step = self._shown_step = start
        self._values: dict[str, float] = {}
        self._shown = time.perf_counter()

    def update(self, step: int, values: Mapping[str, float] | None = None) -> None:
        """Record that `step` steps are done. Values (loss, error, nfe) replace earlier values of the same name.

        It may be called at every step. What it is given is shown now or with a later call.
        """
        self._step = step
        self._values.update(values or {})
        if time.perf_counter() - self._shown >= self.every:
            self._shown = time.perf_counter()
            self._show()

    @abstractmethod
    def close(self) -> None:
        """Show the last step and end the display."""

    @abstractmethod
    def _show(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def progress(total: int | None, *, start: int = 0, terminal: bool | None = None, steps_after: int = 0) -> Progress:
    """Return a bar if stderr is a terminal, and log lines otherwise.

    Args:
        total: number of steps at the end; None: it is not known.
        start: number of steps that a resumed run has done before.
        terminal: True chooses the bar, False log lines, which workers that share a terminal need.
        steps_after: number of steps in the grid's later runs. Their time at the pace of this run is shown.
    """
    if sys.stderr.isatty() if terminal is None else terminal:
        return Bar(total, start, steps_after)
    return Lines(total, start, steps_after)


class Pace:
    """Estimate the time left from the pace so far."""

    def __init__(self, total: int | None, start: int, steps_after: int) -> None:
        self._total, self._start, self._after = total, start, steps_after
        self._began = time.perf_counter()

    def left(self, step: int) -> str | None:
        """Return the time left in this run as text, or None if it is not known or 0."""
        done, remaining = step - self._start, (self._total or step) - step
        return f"{self._clock(step, remaining)} left" if done > 0 and remaining > 0 else None

    def of_grid(self, step: int) -> str | None:
        """Return the time left in this run and the grid's later runs as text, or None if there are none."""
        if self._total is None or not self._after or step <= self._start:
            return None
        return f"grid {self._clock(step, self._total - step + self._after)} left"

    def _clock(self, step: int, remaining: int) -> str:
        return _clock((time.perf_counter() - self._began) / (step - self._start) * remaining)


class Lines(Progress):
    """Write log lines: at most one every few seconds, and one at the end."""

    every = 5.0

    def close(self) -> None:
        if self._step != self._shown_step:
            self._show()

    def _show(self) -> None:
        self._shown_step = self._step
        of_all = "" if self._total is None else f"/{self._total}"
        parts = [f"step {self._step}{of_all}", *_named(self._values)]
        parts += filter(None, (self._pace.left(self._step), self._pace.of_grid(self._step)))
        log.info("  ".join(parts))


class Bar(Progress):
    """A bar by rich. `update` draws it, so that no thread competes with training."""

    every = 0.2

    def __init__(self, total: int | None, start: int, steps_after: int = 0) -> None:
        super().__init__(total, start, steps_after)
        # rich is imported here, because only a terminal needs it.
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[values]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            auto_refresh=False,
        )
        self._task = self._bar.add_task("", total=total, completed=start, values="")
        self._bar.start()

    def close(self) -> None:
        self._show()
        self._bar.stop()

    def _show(self) -> None:
        shown = "  ".join([*_named(self._values), *filter(None, [self._pace.of_grid(self._step)])])
        self._bar.update(self._task, completed=self._step, values=shown, refresh=True)


def final_table(rows: Mapping[str, float | str], folder: Path | str) -> str:
    """Return the end of a run as text: its results, its folder and the command that shows its curves."""
    width = max(map(len, rows), default=0)
    results = [f"  {name:<{width}}  {_plain(value)}" for name, value in rows.items()]
    return "\n".join([*results, f"run folder: {folder}", f"tensorboard --logdir {shlex.quote(str(folder))}"])


def _named(values: Mapping[str, float]) -> list[str]:
    return [f"{name} {_plain(value)}" for name, value in values.items()]


def _plain(value: float | str) -> str:
    """Write a number with four digits, and without an exponent if it is a whole number."""
    if isinstance(value, str | int):
        return str(value)
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
