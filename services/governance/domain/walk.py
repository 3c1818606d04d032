"""A walk: the steps that it has taken, and what it did not find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from evenkeel.contracts.payload import Fact
from evenkeel.contracts.registry import ModelDeclared
from evenkeel.libs.errors import Refused
from evenkeel.services.governance.domain.facts import LoggedFact
from evenkeel.services.governance.domain.graph import Graph
from evenkeel.services.governance.domain.steps import Step, step_of

F = TypeVar("F", bound=Fact)


@dataclass(slots=True)
class Walk:
    """One walk; `steps` and `missing` grow as it goes. What is not found, or contradicts what it should prove, is said in
    `missing`, and the walk goes on."""

    graph: Graph
    steps: list[Step] = field(default_factory=list)
    missing: list[dict[str, str]] = field(default_factory=list)

    def add(self, *facts: LoggedFact[Fact], what: str | None = None) -> None:
        self.steps += [step_of(fact, what) for fact in facts]

    def first(self, facts: Sequence[LoggedFact[F]], what: str, name: str) -> LoggedFact[F] | None:
        """The first of these, which should be there."""
        if facts:
            return facts[0]
        self.miss(what, name)
        return None

    def event(self, payload: type[F], event_id: str) -> LoggedFact[F] | None:
        """An event of the log, which should be there."""
        found = self.graph.event(payload, event_id)
        if found is None:
            other = self.graph.any_event(event_id)
            if other is None:
                self.miss(payload.what, event_id)
            else:
                self.miss(payload.what, event_id, f"the log has this id on {other.topic}, as something else")
        return found

    def miss(self, what: str, name: str, why: str = "it is not in the log") -> None:
        self.missing.append({"what": what, "id": name, "why": why})


def unknown_model(graph: Graph, model: str) -> Refused:
    """A model of which the log has no declaration."""
    known = ", ".join(graph.subjects(ModelDeclared)) or "none"
    return Refused(
        404,
        "Unknown model",
        f"The log has no declaration of a model {model}.",
        field="model",
        fix=f"Declared models: {known}.",
    )
