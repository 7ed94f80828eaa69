"""Autocast of a solve, which its backward keeps."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch


class Autocast:
    """The autocast that was on when a solve began. All evaluations use it, also those of backward outside of it."""

    def __init__(self, device_type: str) -> None:
        self.enabled = torch.is_autocast_enabled(device_type)
        self.device_type = device_type
        self.dtype = torch.get_autocast_dtype(device_type) if self.enabled else None

    def again(self) -> AbstractContextManager[object]:
        """Return that autocast without its cache, which would carry cast weights into the next evaluation's graph."""
        return torch.autocast(self.device_type, self.dtype, cache_enabled=False)
