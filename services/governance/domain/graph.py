"""What the walks ask: facts of the control plane by what they are about, and any event of the log by its id."""

from __future__ import annotations

from typing import Protocol, TypeVar

from evenkeel.contracts.payload import Fact
from evenkeel.services.governance.domain.facts import LoggedFact

F = TypeVar("F", bound=Fact)


class Graph(Protocol):
    """Facts come in the order of the log; of a repeated event the first record counts."""

    def facts(self, payload: type[F], subject: str, number: int | None = None) -> list[LoggedFact[F]]:
        """Those of one kind about a model or stream, or the ones with a number (`Fact.number`)."""

    def of_run(self, payload: type[F], run_id: str) -> list[LoggedFact[F]]:
        """Those of one kind that name a run."""

    def part_of_run(self, run_id: str) -> list[LoggedFact[Fact]]:
        """All that name a run."""

    def caused_by(self, payload: type[F], cause_id: str) -> list[LoggedFact[F]]:
        """Those of one kind that follow from an event or a command."""

    def with_id(self, event_id: str) -> LoggedFact[Fact] | None:
        """A fact of the control plane."""

    def subjects(self, payload: type[Fact]) -> list[str]:
        """The names that facts of one kind are about."""

    def event(self, payload: type[F], event_id: str) -> LoggedFact[F] | None:
        """An event of either plane that carries the payload."""

    def any_event(self, event_id: str) -> LoggedFact[Fact] | None:
        """An event of either plane, whatever it carries."""
