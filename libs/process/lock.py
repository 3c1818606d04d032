"""Folders that one process at a time owns."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO

from evenkeel.libs.errors import EvenkeelError


class FolderLocked(EvenkeelError):
    """Another process owns the folder; the message is what that process wrote into the lock."""


class FolderLock:
    """An exclusive flock(2) on one file. A child that inherits `fileno()` keeps the lock while it lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def acquire(self, holder: str | None = None) -> None:
        """Own the folder and write who owns it, if given. Raises `FolderLocked` at once if somebody else owns it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip()
            file.close()
            raise FolderLocked(owner) from None
        self._file = file
        if holder is not None:
            self.write(holder)

    def write(self, holder: str) -> None:
        """Replace the text that a refused process is shown."""
        if self._file is None:
            raise ValueError(f"{self.path} is not locked by this object")
        self._file.seek(0)
        self._file.truncate()
        self._file.write(holder)
        self._file.flush()

    def fileno(self) -> int:
        if self._file is None:
            raise ValueError(f"{self.path} is not locked by this object")
        return self._file.fileno()

    @property
    def is_held(self) -> bool:
        return self._file is not None

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
