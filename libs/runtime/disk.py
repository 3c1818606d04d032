"""Consuming stops before the disk is full: what is committed can still be published, and the store closed."""

from __future__ import annotations

import shutil
from pathlib import Path

from prometheus_client import Gauge


class DiskRoom:
    """Belongs to the event loop."""

    def __init__(self, folder: Path, wanted_bytes: int, free: Gauge) -> None:
        self._folder, self._wanted_bytes, self._free = folder, wanted_bytes, free
        self.shortage: str | None = None
        """What to do about it; None: there is room."""

    def look(self) -> None:
        try:
            free = shutil.disk_usage(self._folder).free
        except OSError:
            return  # a data folder that is away shows in the store
        wanted = self._wanted_bytes
        self._free.set(free)
        self.shortage = (
            f"disk: {free} bytes are free, consuming goes on with {wanted} (EVENKEEL_MIN_FREE_BYTES): make room"
            if free < wanted
            else None
        )
