"""Locks of run folders: only the process that holds the lock of a folder writes there."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

import psutil

from neuralode_exp.outcome import RunFailed

FILE_NAME = ".lock"
TOUCH_SECONDS = 30.0
LOST_SECONDS = 300.0  # a lock of another host counts as lost if it was not touched for so long


class Process(TypedDict):
    """The process of a run. `started`, seconds since 1970, distinguishes it from a later process with the same pid."""

    pid: int
    host: str
    started: float


class Held(RunFailed):
    """Another process holds the folder."""


def this_process() -> Process:
    return Process(pid=os.getpid(), host=socket.gethostname(), started=psutil.Process().create_time())


def is_alive(process: Process) -> bool:
    """Return whether a process of this host is running."""
    try:
        found = psutil.Process(process["pid"])
        # The start is computed from the boot time, which may shift by a second when the clock is set.
        same = abs(found.create_time() - process["started"]) < 2
        return same and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def held_by(folder: Path | str) -> str | None:
    """Return who holds a folder, as `process 12 on host`, or None if the folder is free."""
    text, age = _read(Path(folder) / FILE_NAME)
    return None if text is None or _is_lost(text, age) else _name(text)


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[Lock]:
    """Hold a folder until the block ends. A missing folder is made.

    The lock is a file that only one process can create, also on a network file system. If its process was on this host
    and has died, the lock is taken over. If it was on another host, that happens after five minutes without a touch.

    Raises:
        Held: another process holds the folder; the message names it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    taken = Lock(folder / FILE_NAME)
    try:
        yield taken
    finally:
        taken.release()


class Lock:
    """A lock that this process holds, and touches at intervals.

    Args:
        path: the lock's file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._text = json.dumps({**this_process(), "token": uuid.uuid4().hex})
        self._take()
        self._lost = False
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._touch, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise Held if another process has taken over the folder, for example while this machine was asleep."""
        if self._lost:
            raise Held(f"{self._path.parent} was taken over while this process did not touch its lock")

    def release(self) -> None:
        self._released.set()
        self._thread.join()
        if _read(self._path)[0] == self._text:
            self._path.unlink(missing_ok=True)

    def _take(self) -> None:
        while not _create(self._path, self._text):
            text, age = _read(self._path)
            if text is None:
                continue  # released since
            if not _is_lost(text, age) or not self._take_over(text):
                who = held_by(self._path.parent) or "a process that takes it over"
                raise Held(f"{self._path.parent} is held by {who}; wait for it or end it first")
            return

    def _take_over(self, lost: str) -> bool:
        """Replace a lost lock by this one. Return False if another process is doing so.

        Only the process that creates the claim file may replace the lock. The claim's name belongs to this lost lock.
        """
        claim = self._path.with_name(f"{FILE_NAME}-{_token(lost)}")
        if not _create(claim, self._text):
            if _read(claim)[1] > LOST_SECONDS:  # the claiming process died before it removed its claim
                claim.unlink(missing_ok=True)
            return False
        if _read(self._path)[0] != lost:
            claim.unlink()
            return False
        os.replace(claim, self._path)
        return True

    def _touch(self) -> None:
        while not self._released.wait(TOUCH_SECONDS):
            with contextlib.suppress(OSError):  # a network file system may be unavailable for a moment
                self._lost = _read(self._path)[0] != self._text
                if not self._lost:
                    os.utime(self._path)


def _create(path: Path, text: str) -> bool:
    try:
        number = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
    except FileExistsError:
        return False
    with open(number, "w") as file:
        file.write(text)
    return True


def _read(path: Path) -> tuple[str | None, float]:
    """Return a file's content and the seconds since its last touch. The content is None if there is no such file."""
    try:
        return path.read_text(), time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None, 0.0


def _owner(text: str) -> Process | None:
    """Return the owner, or None if the lock was just created and is still empty."""
    try:
        owner: Process = json.loads(text)
        return owner
    except ValueError:
        return None


def _is_lost(text: str, age: float) -> bool:
    owner = _owner(text)
    if owner is not None and owner["host"] == socket.gethostname():
        return not is_alive(owner)
    return age > LOST_SECONDS


def _name(text: str) -> str:
    owner = _owner(text)
    return f"process {owner['pid']} on {owner['host']}" if owner else "a process that starts"


def _token(text: str) -> str:
    return str(json.loads(text)["token"]) if _owner(text) else "empty"
