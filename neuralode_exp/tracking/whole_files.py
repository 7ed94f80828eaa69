"""Write files that a reader finds whole or not at all, whenever the process ends."""

from __future__ import annotations

import os
import time
from pathlib import Path

READERS_TAKE = 2.0  # seconds at most


def write_whole(path: Path, content: bytes | memoryview, *, sync: bool = False) -> None:
    """Put a file in the place of the one that is there, in one exchange.

    Args:
        path: the file, in a folder that exists.
        content: all of it.
        sync: wait until it is on the disk, so that it outlives the machine too.

    Raises:
        OSError: the disk is full or not writable; the file that was there stays.
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
    """Rename over a file; on Windows this is refused while somebody reads it, which takes a moment."""
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
