"""Time: event time and wall time are microseconds since the epoch, UTC."""

from __future__ import annotations

import time
from typing import Final, Protocol

from evenkeel.contracts.envelope import format_us, parse_us

__all__ = ["DAY_US", "HOUR_US", "MINUTE_US", "SECOND_US", "Clock", "SystemClock", "format_us", "parse_us"]

SECOND_US: Final = 1_000_000
MINUTE_US: Final = 60 * SECOND_US
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US


class Clock(Protocol):
    """Wall time; tests hand in their own."""

    def now_us(self) -> int: ...


class SystemClock:
    def now_us(self) -> int:
        return time.time_ns() // 1000
