"""Progress of a run for whoever watches: a bar on a terminal, plain log lines in a file or pipe."""

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
    """A display of the steps done; as a context manager it closes itself."""

    every: float  # seconds between two times that it shows something

    def __init__(self, total: int | None, start: int, steps_after: int = 0) -> None:
        self._total, self._pace = total, Pace(total, start, steps_after)
        self._step = self._shown_step = start
        self._values: dict[str, float] = {}
        self._shown = time.perf_counter()

    def update(self, step: int, values: Mapping[str, float] | None = None) -> None:
        """Show that `step` steps are done. Values (loss, error, nfe) replace earlier ones of their name.

        Made to be called at every step: what it is given is shown now or with a later call.
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
    """Return the display that fits: a bar where stderr is a terminal, log lines otherwise.

    Args:
        total: number of steps at the end, None where it is not known.
        start: number of steps done before, of a resumed run.
        terminal: True chooses the bar, False log lines, as workers that share a terminal need.
        steps_after: of a grid's further runs; the time that they take at the pace of this one is shown.
    """
    if sys.stderr.isatty() if terminal is None else terminal:
        return Bar(total, start, steps_after)
    return Lines(total, start, steps_after)


class Pace:
    """How long it will take, at the pace so far."""

    def __init__(self, total: int | None, start: int, steps_after: int) -> None:
        self._total, self._start, self._after = total, start, steps_after
        self._began = time.perf_counter()

    def left(self, step: int) -> str | None:
        """The time left of the run; None where it is not known, and at its end."""
        done, remaining = step - self._start, (self._total or step) - step
        return f"{self._clock(step, remaining)} left" if done > 0 and remaining > 0 else None

    def of_grid(self, step: int) -> str | None:
        """The time left of the run and of those that come after it; None where there are none."""
        if self._total is None or not self._after or step <= self._start:
            return None
        return f"grid {self._clock(step, self._total - step + self._after)} left"

    def _clock(self, step: int, remaining: int) -> str:
        return _clock((time.perf_counter() - self._began) / (step - self._start) * remaining)


class Lines(Progress):
    """Log lines: at most one every few seconds, and one at the end."""

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
    """A rich bar, drawn by `update` itself: no thread that competes with training."""

    every = 0.2

    def __init__(self, total: int | None, start: int, steps_after: int = 0) -> None:
        super().__init__(total, start, steps_after)
        # Imported here: only a terminal needs rich.
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
    """Four digits, and no exponent where a whole number is easier to read."""
    if isinstance(value, str | int):
        return str(value)
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
