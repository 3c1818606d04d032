"""What a gate says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Verdict:
    """One gate's answer: why, with the value that was looked at and the bar it was held to, where they are numbers."""

    passed: bool
    detail: str
    value: float | None = None
    bar: float | None = None
