"""What can be asked of governance."""

from __future__ import annotations

from typing import Literal

from evenkeel.contracts.http import governance
from evenkeel.libs.client.calls.operations import Operations
from evenkeel.libs.client.exchange import Call, call_of
from evenkeel.libs.client.operation import C_co, operation


class Governance(Operations[C_co]):
    """Lineage, and proofs of what was logged."""

    service = "governance"

    @operation
    def prediction(
        self, id: str, *, model: str | None = None, proof: bool = False
    ) -> Call[governance.PredictionLineage]:
        """Why a prediction is as it is, by its id, or by an event's outside id together with `model`."""
        query = governance.PredictionQuery(model=model, proof=proof)
        return call_of(self.service, governance.PREDICTION, query=query, id=id)

    @operation
    def trace(self, id: str, *, model: str | None = None) -> Call[governance.Trace]:
        """Follow whatever an id names."""
        return call_of(self.service, governance.TRACE, query=governance.TraceQuery(model=model), id=id)

    @operation
    def champion(
        self, model: str, *, at: str | None = None, clock: Literal["event", "wall"] = "event"
    ) -> Call[governance.ChampionThen]:
        """Who was champion at a time (RFC 3339), and why."""
        query = governance.ChampionQuery(at=at, clock=clock)
        return call_of(self.service, governance.CHAMPION, query=query, model=model)

    @operation
    def history(self, model: str, *, after: int = -1, limit: int = 200) -> Call[governance.History]:
        """A model's facts in the order of the log; `after` goes on from an answer's `after`."""
        query = governance.HistoryQuery(after=after, limit=limit)
        return call_of(self.service, governance.HISTORY, query=query, model=model)

    @operation
    def event(self, id: str) -> Call[governance.LoggedEvent]:
        """Every logged record with this CloudEvents id."""
        return call_of(self.service, governance.EVENT, id=id)

    @operation
    def checkpoint(self) -> Call[governance.Checkpoint]:
        """The newest checkpoint of the log."""
        return call_of(self.service, governance.CHECKPOINT)

    @operation
    def leaf(self, leaf: int) -> Call[governance.Leaf]:
        """One leaf of the log."""
        return call_of(self.service, governance.LEAF, leaf=leaf)

    @operation
    def inclusion(self, *, leaf: int | None = None, event_id: str | None = None) -> Call[governance.Inclusion]:
        """That a record is under the newest checkpoint, by its leaf or its CloudEvents id."""
        query = governance.InclusionQuery(leaf=leaf, event_id=event_id)
        return call_of(self.service, governance.INCLUSION, query=query)

    @operation
    def consistency(self, old: int, new: int | None = None) -> Call[governance.Consistency]:
        """That the log has only grown between two sizes."""
        query = governance.ConsistencyQuery(old=old, new=new)
        return call_of(self.service, governance.CONSISTENCY, query=query)
