"""Places where tests may kill the process: `EVENKEEL_FAILPOINTS="loop.committed=kill@3"` dies at the third passing."""

from __future__ import annotations

import os
import signal
from typing import Final

from evenkeel.libs.errors import SettingsError

NAMES: Final = frozenset(
    {
        "loop.fetched",
        "loop.begun",
        "loop.handled",
        "loop.outbox",
        "loop.positions",
        "loop.committed",
        "publish.sent",
        "publish.deleted",
        "merge.released",
        "score.sent",
        "dataset.staged",
        "dataset.left",
        "dataset.committed",
        "job.started",
        "job.finished",
        "promotion.decided",
        "swap.verified",
        "swap.done",
        "checkpoint.signed",
    }
)

_left: dict[str, int] = {}


def arm(text: str) -> None:
    """Read the setting; raises SettingsError for an unknown name."""
    _left.clear()
    for entry in filter(None, text.split(",")):
        name, _, action = entry.partition("=")
        action, _, count = action.partition("@")
        if name not in NAMES or action != "kill" or not (count or "1").isdigit():
            raise SettingsError(f"EVENKEEL_FAILPOINTS: {entry!r} is not `name=kill@n` with a name of {sorted(NAMES)}")
        _left[name] = int(count or "1")


def failpoint(name: str) -> None:
    """Die here with SIGKILL if the setting says so; otherwise cost one dictionary look-up."""
    if _left and name in _left:
        _left[name] -= 1
        if _left[name] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
