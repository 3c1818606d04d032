"""What can be asked of ingest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from evenkeel.contracts.http import ingest
from evenkeel.contracts.http.route import JSON
from evenkeel.libs.client.calls.operations import Operations
from evenkeel.libs.client.exchange import Call, call_of, json_bytes
from evenkeel.libs.client.operation import C_co, operation


class Ingest(Operations[C_co]):
    """Records into streams, and what became of them."""

    service = "ingest"

    @operation
    def streams(self) -> Call[ingest.Streams]:
        """Every declared stream: how far it was read, what was accepted and rejected."""
        return call_of(self.service, ingest.STREAMS)

    @operation
    def stream(self, stream: str) -> Call[ingest.Stream]:
        """One declared stream."""
        return call_of(self.service, ingest.STREAM, stream=stream)

    @operation
    def send_events(self, stream: str, records: Sequence[Mapping[str, Any]]) -> Call[ingest.Taken]:
        """Send events, at most 2,000; all are taken or none. With the same ids a repeat changes nothing."""
        return _records(ingest.SEND_EVENTS, stream, records)

    @operation
    def send_labels(self, stream: str, records: Sequence[Mapping[str, Any]]) -> Call[ingest.Taken]:
        """Send labels, as events."""
        return _records(ingest.SEND_LABELS, stream, records)

    @operation
    def heartbeat(
        self, stream: str, time: str, *, kind: Literal["event", "label"] = "event"
    ) -> Call[ingest.HeartbeatTaken]:
        """Say that nothing earlier than `time` (RFC 3339) will come."""
        body = ingest.HeartbeatRequest(time=time, kind=kind)
        return call_of(self.service, ingest.HEARTBEAT, body=body, stream=stream)

    @operation
    def rejected(
        self, *, stream: str | None = None, rule: str | None = None, before: int | None = None, limit: int = 50
    ) -> Call[ingest.RejectedRecords]:
        """What was rejected, the newest first; `before` goes on from an answer's `before`."""
        query = ingest.RejectedQuery(stream=stream, rule=rule, before=before, limit=limit)
        return call_of(self.service, ingest.REJECTED, query=query)

    @operation
    def rejected_record(self, number: int) -> Call[ingest.RejectedRecord]:
        """One rejected record, as it came."""
        return call_of(self.service, ingest.REJECTED_RECORD, number=number)

    @operation
    def redrive(self, number: int) -> Call[ingest.SentAgain]:
        """Send a rejected record again, byte for byte."""
        return call_of(self.service, ingest.REDRIVE, number=number)


def _records(route: Any, stream: str, records: Sequence[Mapping[str, Any]]) -> Call[ingest.Taken]:
    content = json_bytes(list(records))
    path = {"stream": stream}
    return Call("ingest", route, ingest.Taken.model_validate_json, path, {}, content, {"content-type": JSON})
