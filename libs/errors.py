"""Errors, named by what the runtime does with them.

EvenkeelError
├── Retry            infrastructure is away: roll back, wait, do it again, for ever
│   └── NotYet       a fact that this record names has not been folded yet: read the control topics to their end,
│                    and if it is not there either, nobody ever said it: dead letter
├── Undecodable      a record of our own topics that cannot be used: dead letter with its original bytes
├── Fenced           somebody else moved on: roll back, reload positions, resume
├── Stop             going on would do harm: stop and say why
│   ├── DataLoss     the log's start has passed a stored position
│   └── Storm        too many of our own records cannot be used: a bad deploy, not bad data
├── Refused          a command that breaks a rule: the caller is told, nothing changes
└── SettingsError    the process cannot start with these settings
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class EvenkeelError(Exception):
    """Base of all our errors. The message says what, which id, and what to do next."""


class Retry(EvenkeelError):
    """Infrastructure is away."""


class NotYet(Retry):
    """The record names a fact that has not been folded yet; raised before anything is changed on its account."""

    where: tuple[str, int, int] | None = None
    """Topic, partition and offset of the record, once the runtime knows which it is."""


class Undecodable(EvenkeelError):
    """A record of one of our own topics that cannot be used."""


class Fenced(EvenkeelError):
    """Another instance moved the position or took the lease."""


class Stop(EvenkeelError):
    """Going on would do harm."""


class DataLoss(Stop):
    """Records between the stored position and the log's start are gone."""


class Storm(Stop):
    """More than the allowed share of our own records could not be used."""


class SettingsError(EvenkeelError):
    """The process cannot start with these settings."""


class Refused(EvenkeelError):
    """A command that breaks a rule; becomes problem+json with `status`."""

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        *,
        field: str | None = None,
        fix: str | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.title, self.detail, self.field, self.fix = status, title, detail, field, fix
        self.more = more or {}
        """Further members of the problem document."""
