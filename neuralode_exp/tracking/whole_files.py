"""Write files atomically: a reader finds a complete file or none, even if the process is killed."""

from __future__ import annotations

import os
import time
from pathlib import Path

READERS_TAKE = 2.0  # seconds for which a reader may block the exchange on Windows


def write_whole(path: Path, content: bytes | memoryview, *, sync: bool = False) -> None:
    """Write a file, and replace an existing one atomically.

    Args:
        path: the file, in a folder that exists.
        content: the whole content.
        sync: whether to wait until it is on the disk, so that it also survives a crash of the machine.

    Raises:
        OSError: the disk is full or not writable. The old file stays.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        _replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _replace(temporary: Path, path: Path) -> None:
    """Rename a file over another. Windows refuses this while another process reads it, so it is tried again."""
    until = time.monotonic() + READERS_TAKE
    while True:
        try:
            os.replace(temporary, path)
        except PermissionError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
        else:
            return
