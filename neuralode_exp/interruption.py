"""Ctrl-C and SIGTERM stop the program at once, or wait for a moment at which nothing is lost."""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType
from typing import Any, ClassVar, Self

from neuralode_exp.outcome import Interrupted

log = logging.getLogger(__name__)

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class StopAtOnce:
    """In this context Ctrl-C and SIGTERM raise `Interrupted` wherever the program is.

    Subclasses handle a signal differently; the innermost context receives it. Signals that already have another handler
    are left alone, as a launcher's in its jobs, and so are all signals outside the main thread.
    """

    # The last signal that any context received. Python drops an exception that a handler raises in a finaliser, so the
    # signal is also checked later.
    heard: ClassVar[signal.Signals | None] = None

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._outermost = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in NUMBERS:
                if _is_free(signal.getsignal(number)):
                    self._before[number] = signal.signal(number, self._hear)
        self._outermost = bool(self._before) and not any(map(_is_ours, self._before.values()))
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
        if self._outermost:
            StopAtOnce.heard = None

    def receive(self, number: signal.Signals) -> None:
        """Handle a signal."""
        raise Interrupted("interrupted", number)

    def _hear(self, number: int, _frame: FrameType | None) -> None:
        StopAtOnce.heard = signal.Signals(number)
        self.receive(StopAtOnce.heard)


class StopLater(StopAtOnce):
    """In this context the first signal is only stored; a second one raises `Interrupted`.

    Args:
        saying: message that is logged at the first signal.

    Attributes:
        received: the first signal; None before it.
    """

    def __init__(self, saying: str) -> None:
        super().__init__()
        self.saying = saying
        self.received: signal.Signals | None = None

    def __call__(self) -> bool:
        return self.received is not None

    def receive(self, number: signal.Signals) -> None:
        if self.received is not None:
            super().receive(number)
        self.received = number
        log.warning("%s: %s (again: at once)", number.name, self.saying)

    def stop(self, message: str) -> None:
        """Raise `Interrupted` if a signal was received."""
        if self.received is not None:
            raise Interrupted(message, self.received)


def stop_if_heard() -> None:
    """Raise `Interrupted` if a signal came and has not stopped the program."""
    if StopAtOnce.heard is not None:
        raise Interrupted("interrupted", StopAtOnce.heard)


def _is_free(handler: Any) -> bool:
    return handler in (signal.SIG_DFL, signal.default_int_handler) or _is_ours(handler)


def _is_ours(handler: Any) -> bool:
    return isinstance(getattr(handler, "__self__", None), StopAtOnce)
