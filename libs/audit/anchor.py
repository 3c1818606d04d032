"""Checkpoints kept outside the log's database: a file that only grows.

Whoever rewrites the database has to rewrite this file too, and every copy of it. It holds the notes one after another,
each followed by an empty line, so any text tool shows it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from evenkeel.libs.audit.checkpoint import CheckpointError, read_checkpoint

FOLDER: Final = "checkpoints"
_BLANK: Final = b"\n\n"
_SIGNATURE: Final = "\u2014 ".encode()
_TAIL_BYTES: Final = 1 << 17
"""More than two notes of the largest size."""


def anchor_path(data_dir: Path, origin: str) -> Path:
    """Where the checkpoints of a log are kept."""
    return data_dir / FOLDER / (origin.replace("/", "-") + ".txt")


class Anchor:
    """The file as its one writer sees it. Opening it cuts off what a crash left half written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.last_size = 0
        """Leaves under the newest checkpoint in the file."""
        if not path.exists():
            return
        with path.open("r+b") as file:
            length = file.seek(0, os.SEEK_END)
            start = max(0, length - _TAIL_BYTES)
            file.seek(start)
            tail = file.read()
            kept, last = _last_note(tail)
            if kept < len(tail):
                file.truncate(start + kept)
                os.fsync(file.fileno())
        if last is not None:
            self.last_size = read_checkpoint(last).size

    def append(self, notes: Iterable[bytes]) -> None:
        """Add notes; they are on disk on return. Raises OSError; opening the file anew mends it then."""
        added = list(notes)
        if not added:
            return
        is_new = not self._path.exists()
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("ab") as file:
            file.write(b"".join(note + b"\n" for note in added))
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            _sync_folder(self._path.parent)
        self.last_size = read_checkpoint(added[-1]).size


def anchored_notes(data_dir: Path) -> Iterator[bytes]:
    """Every whole checkpoint of every anchor file in a data folder, none of them verified."""
    for path in sorted((data_dir / FOLDER).glob("*.txt")):
        text: list[bytes] = []
        signatures = 0
        with path.open("rb") as file:
            for line in file:
                signatures += line.startswith(_SIGNATURE)
                if line != b"\n" or not signatures:
                    text.append(line)
                    continue
                yield b"".join(text)
                text, signatures = [], 0


def _last_note(tail: bytes) -> tuple[int, bytes | None]:
    """How much of the end of the file is whole, and its last note."""
    *blocks, rest = tail.split(_BLANK)
    kept = len(tail) - len(rest)
    while blocks and not blocks[-1].startswith(_SIGNATURE):
        kept -= len(blocks.pop()) + len(_BLANK)
    if len(blocks) < 2:
        return kept, None
    note = blocks[-2] + _BLANK + blocks[-1] + b"\n"
    try:
        read_checkpoint(note)
    except CheckpointError as error:
        raise OSError(f"the anchor file is damaged ({error}): move it away, it is written anew") from error
    return kept, note


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
