"""What lies below a folder of a running system, whose files come and go while they are counted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def stats_below(folder: Path) -> Iterator[os.stat_result]:
    """Of every file below; what a service removes meanwhile is left out."""
    for root, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                yield (Path(root) / name).stat()


def bytes_below(path: Path) -> int:
    """Bytes on the disk, which for a sparse file is less than its size."""
    stats = stats_below(path) if path.is_dir() else iter([path.stat()])
    return sum(stat.st_blocks * 512 for stat in stats)
