"""Each raw record has one outcome: an event, a label, a rejection, or a heartbeat that moves time."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from evenkeel.contracts.declaration import StreamSpec
from evenkeel.contracts.envelope import HEARTBEAT_HEADER, Record, format_us, parse_us
from evenkeel.contracts.ids import accepted_event_id, accepted_label_id
from evenkeel.contracts.ingest import EventAccepted, EventRejected, LabelAccepted
from evenkeel.contracts.registry import StreamDeclared
from evenkeel.libs.runtime.originals import KEPT_BYTES
from evenkeel.libs.service import Derived, Output, Reply, Watermark
from evenkeel.services.ingest.context import IngestContext
from evenkeel.services.ingest.handlers import on_raw_records
from evenkeel.services.ingest.service import service
from tests.harness import NOW_US, Harness
from tests.model_life import Consumed

SPEC = StreamSpec.model_validate(
    {
        "topic": "shop.orders",
        "id": "id",
        "time": "at",
        "disorder": "1h",
        "lateness": "2h",
        "fields": {"x": {"type": "number"}},
        "label": {
            "topic": "shop.labels",
            "id": "label_id",
            "joins": "id",
            "time": "at",
            "horizon": "2d",
            "fields": {"y": {"type": "number"}},
        },
    }
)


class Ingest:
    def __init__(self, data_dir: Path) -> None:
        self.harness: Harness[IngestContext] = Harness(service, data_dir)
        self.offsets: dict[tuple[str, int], int] = {}
        self.harness.context.assigned({"shop.orders": 1, "shop.labels": 1})

    def declare(self, spec: StreamSpec = SPEC) -> None:
        self.harness.hear(StreamDeclared.of("orders", spec), "2026-01-01T00:00:00Z")

    def record(
        self,
        value: Any,
        topic: str = "shop.orders",
        partition: int = 0,
        headers: Sequence[tuple[str, bytes]] = (),
        stamp_ms: int = 1_700_000_000_000,
    ) -> Record:
        offset = self.offsets.get((topic, partition), 0)
        self.offsets[topic, partition] = offset + 1
        raw = value if isinstance(value, bytes) or value is None else orjson.dumps(value)
        return Consumed(topic, partition, offset, stamp_ms, b"key", raw, headers)

    def take(self, *records: Record) -> list[Output]:
        return self.harness.command(lambda ctx: Reply(list(on_raw_records(records, ctx))))

    def orders(self, *values: dict[str, Any], topic: str = "shop.orders") -> list[Output]:
        return self.take(*(self.record(value, topic) for value in values))


@pytest.fixture
def ingest(tmp_path: Path) -> Iterator[Ingest]:
    made = Ingest(tmp_path)
    made.declare()
    yield made
    made.harness.close()


def order(record_id: str, time: str, x: float = 1.0) -> dict[str, Any]:
    return {"id": record_id, "at": f"2026-01-01T{time}:00Z", "x": x}


def said(outputs: Sequence[Output]) -> list[tuple[str, str]]:
    """Kind and event id, or kind and time, of each output."""
    words = []
    for output in outputs:
        if isinstance(output, Watermark):
            words.append(("watermark", format_us(output.time_us)[11:16]))
            continue
        assert isinstance(output, Derived)
        data: Any = output.payload
        words.append((data.rule if isinstance(data, EventRejected) else type(data).__name__, data.event_id))
    return words


def test_a_record_becomes_the_event_that_it_always_becomes(ingest: Ingest) -> None:
    (first, mark) = ingest.orders(order("o-1", "10:00"))
    assert isinstance(first, Derived)
    data = first.payload
    assert isinstance(data, EventAccepted)
    assert (data.stream, data.event_id, data.fields, data.late) == ("orders", "o-1", order("o-1", "10:00"), False)
    assert data.raw.model_dump(exclude={"sha256"}) == {"topic": "shop.orders", "partition": 0, "offset": 0}
    assert (first.id, first.stream) == (accepted_event_id("orders", "o-1"), "orders")
    assert first.time_us == first.order_us == parse_us("2026-01-01T10:00:00Z")
    assert mark == Watermark(EventAccepted, "orders", parse_us("2026-01-01T09:00:00Z"))


@pytest.mark.parametrize(
    ("stamp_ms", "arrived"),
    [
        (1_700_000_000_001, "2023-11-14T22:13:20.001000Z"),
        (0, "1970-01-01T00:00:00Z"),
        (2**62, None),
        (-1, None),
        (-(2**62), None),
    ],
)
def test_an_accepted_record_says_when_its_raw_record_was_stamped(
    ingest: Ingest, stamp_ms: int, arrived: str | None
) -> None:
    """A producer may stamp what it likes: what nobody can calculate with is left out, and stops nothing."""
    label = {"label_id": "l-1", "id": "o-1", "at": "2026-01-01T10:00:00Z", "y": 2}
    (event, _) = ingest.take(ingest.record(order("o-1", "10:00"), stamp_ms=stamp_ms))
    (known, _) = ingest.take(ingest.record(label, "shop.labels", stamp_ms=stamp_ms))
    for output in (event, known):
        assert isinstance(output, Derived)
        assert isinstance(output.payload, EventAccepted | LabelAccepted)
        assert (output.payload.arrived, output.payload.generation) == (arrived, 1)


def test_a_label_becomes_a_label_with_an_id_of_its_own(ingest: Ingest) -> None:
    label = {"label_id": "l-1", "id": "o-1", "at": "2026-01-01T10:00:00Z", "y": 2}
    (first, _) = ingest.orders(label, topic="shop.labels")
    assert isinstance(first, Derived)
    data = first.payload
    assert isinstance(data, LabelAccepted)
    assert (data.event_id, data.label_id, data.stream) == ("o-1", "l-1", "orders")
    assert (first.id, first.stream) == (accepted_label_id("orders", "l-1"), "orders#label")


def test_each_record_has_its_outcome_in_order_and_the_watermark_comes_last(ingest: Ingest) -> None:
    outputs = ingest.orders(
        order("a", "10:00"),
        order("a", "10:00"),
        order("a", "10:00", x=2.0),
        order("b", "12:00"),
        order("c", "10:30"),
        order("d", "08:59"),
        {"id": "e"},
    )
    assert said(outputs) == [
        ("EventAccepted", "a"),
        ("duplicate", "a"),
        ("id_conflict", "a"),
        ("EventAccepted", "b"),
        ("EventAccepted", "c"),
        ("too_late", "d"),
        ("missing", "e"),
        ("watermark", "11:00"),
    ]
    lates = [
        output.payload.late for output in outputs if isinstance(output, Derived) and hasattr(output.payload, "late")
    ]
    assert lates == [False, False, True]
    assert ingest.harness.context.streams["orders"].counts == {"accepted": 3, "late": 1}
    assert sum(ingest.harness.context.streams["orders"].rejected.values()) == 4


def test_a_rejection_keeps_the_record_and_happens_at_the_streams_time(ingest: Ingest) -> None:
    ingest.orders(order("a", "10:00"))
    (output,) = ingest.take(ingest.record(b"{", headers=[("h", b"v")]))
    assert isinstance(output, Derived)
    data = output.payload
    assert isinstance(data, EventRejected)
    assert (data.rule, data.event_id, b64decode(data.original_value or "")) == ("json", None, b"{")
    assert [(name, b64decode(value)) for name, value in data.original_headers] == [("h", b"v")]
    assert output.cause.time_us == parse_us("2026-01-01T09:00:00Z")


def test_before_there_is_any_time_a_rejection_happens_now(ingest: Ingest) -> None:
    (output,) = ingest.take(ingest.record(b"{"))
    assert isinstance(output, Derived)
    assert output.cause.time_us == NOW_US


def test_a_record_that_is_too_large_to_keep_stays_where_it_is(ingest: Ingest) -> None:
    (output,) = ingest.take(ingest.record(b"x" * (KEPT_BYTES + 1)))
    assert isinstance(output, Derived)
    data = output.payload
    assert isinstance(data, EventRejected)
    assert (data.rule, data.original_value) == ("size", None)
    assert "stays in the raw topic" in data.reason


def test_a_heartbeat_moves_time_in_full_and_is_no_event(ingest: Ingest) -> None:
    beat = ingest.record(None, headers=[(HEARTBEAT_HEADER, b"2026-01-01T10:00:00Z")])
    assert said(ingest.take(beat)) == [("watermark", "10:00")]
    assert said(ingest.take(ingest.record(None, headers=[(HEARTBEAT_HEADER, b"soon")]))) == [("event_time", None)]
    assert ingest.harness.context.streams["orders"].counts == {"heartbeats": 1}


def test_a_repeat_moves_time_like_the_first_one(ingest: Ingest) -> None:
    ingest.harness.context.assigned({"shop.orders": 2, "shop.labels": 1})
    at_ten = order("a", "10:00")
    assert said(ingest.take(ingest.record(at_ten, partition=0))) == [("EventAccepted", "a")]
    assert said(ingest.take(ingest.record(at_ten, partition=1))) == [("duplicate", "a"), ("watermark", "09:00")]


def test_a_topic_that_the_stream_no_longer_names_is_read_but_does_not_move_time(ingest: Ingest) -> None:
    ingest.orders(order("a", "10:00"))
    moved = SPEC.model_copy(update={"topic": "shop.orders-2"})
    ingest.declare(moved)
    ingest.harness.context.assigned({"shop.orders": 1, "shop.orders-2": 1, "shop.labels": 1})
    assert said(ingest.orders(order("b", "20:00"))) == [("EventAccepted", "b")]
    assert ingest.harness.context.streams["orders"].positions == {}
    assert said(ingest.orders(order("c", "20:00"), topic="shop.orders-2")) == [
        ("EventAccepted", "c"),
        ("watermark", "19:00"),
    ]


def test_what_was_taken_is_known_after_a_restart(ingest: Ingest, tmp_path: Path) -> None:
    ingest.orders(order("a", "10:00"))
    again = Ingest(tmp_path)
    again.offsets = dict(ingest.offsets)
    assert said(again.orders(order("a", "10:00"), order("b", "07:00"))) == [("duplicate", "a"), ("EventAccepted", "b")]
    stream = again.harness.context.streams["orders"]
    assert (stream.positions, stream.counts["accepted"], stream.rejected["duplicate"]) == ({0: 3}, 2, 1)
    again.harness.close()
