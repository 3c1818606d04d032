"""Monitor's store made again: all of it follows from its inputs, read again from their beginnings."""

from __future__ import annotations

from typing import Any, Final

from evenkeel.libs.service import Rebuild

REBUILD: Final[Rebuild[Any]] = Rebuild()
