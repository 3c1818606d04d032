"""What is wrong with one record, said so that its producer can put it right."""

from __future__ import annotations

from typing import Final

from contracts.ingest import Rule

SHOWN_CHARACTERS: Final = 80


class Fault(Exception):
    """A record that breaks its stream's contract: the rule, what was found, and what to send instead."""

    def __init__(
        self, rule: Rule, reason: str, fix: str, *, field: str | None = None, event_id: str | None = None
    ) -> None:
        super().__init__(reason)
        self.rule, self.reason, self.fix, self.field, self.event_id = rule, reason, fix, field, event_id


def shown(value: object) -> str:
    """A value of a producer, short enough for a message."""
    text = repr(value)
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
