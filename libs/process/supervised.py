"""What is known of a running system from outside: its supervisor writes it into the data folder's lock."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from evenkeel.libs.process.lock import FolderLock, FolderLocked


def running_supervisor(data_dir: Path) -> dict[str, object] | None:
    """What the supervisor that owns this data folder wrote of itself (pid, ready, broker, urls), None if none runs."""
    path = Path(data_dir).absolute() / "supervisor.json"
    if not path.exists():
        return None
    lock = FolderLock(path)
    for _ in range(100):
        try:
            lock.acquire()
        except FolderLocked as locked:
            with suppress(ValueError):  # caught in the middle of being written
                state: dict[str, object] = json.loads(str(locked))
                return state
            continue
        lock.release()
        return None
    return {}
