"""The format of what a data folder holds: stores, topics of its broker, tables, packages.

A number, written before anything else is. A release opens the folders of its own format, and nothing in one of another.
It changes only when a folder can no longer be brought on by migrations: within a format every later release opens what an
earlier one wrote.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from evenkeel.contracts.topics import SERVICES
from evenkeel.libs.errors import Stop

FORMAT: Final = 2
"""1 is what was written before there were numbers."""
FILE: Final = "format"
_WRITTEN: Final = ("kafka", *(f"{service}.db" for service in SERVICES), "serving.lmdb")


def claim_folder(folder: Path) -> None:
    """Mark a new data folder as of this format; raises Stop for one of another. Several processes may do it at once."""
    # In this order: who makes a store has written the number before.
    is_used = any((folder / name).exists() for name in _WRITTEN)
    path = folder / FILE
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        text = "1" if is_used else ""
    if text:
        check_format(f"the data folder {folder}", text, "another folder (EVENKEEL_DATA_DIR, --data-dir)")
        return
    folder.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{FILE}.{os.getpid()}")
    draft.write_text(f"{FORMAT}\n")
    draft.replace(path)


def check_format(what: str, found: str, another: str) -> None:
    """Raises Stop if something is of another format than this release's."""
    if found == str(FORMAT):
        return
    if found.isdecimal() and int(found) > FORMAT:
        raise Stop(
            f"{what} was written by a later release (format {found}; this one reads {FORMAT}): start that one, or {another}"
        )
    raise Stop(
        f"{what} was written by an earlier release (format {found[:20]}; this one reads {FORMAT}) and is left as it is: "
        f"start with {another}, or move it away"
    )
