"""Our codec against the official CloudEvents SDK, where the SDK keeps to the specification."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary_event, to_binary_event
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from evenkeel.contracts.envelope import (
    EnvelopeError,
    Event,
    attributes_of,
    encode,
    format_us,
    origin_of,
    parse_us,
)
from evenkeel.contracts.runtime import ClockAdvanced

MICROSECONDS = st.integers(min_value=0, max_value=4_102_444_800_000_000)
TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


def encoded(**changes: Any) -> list[tuple[str, bytes]]:
    return encode(
        **(
            {
                "id": "a",
                "source": b"/evenkeel/ingest/1",
                "type": b"io.evenkeel.ingest.event-accepted.v1",
                "time_us": 1_357_000_000_000_001,
                "recorded": b"2026-01-01T00:00:00Z",
                "sequence": 7,
                "shard": b"flights",
                "correlation_id": "c",
            }
            | changes
        )
    )


@given(event_id=TEXT, time_us=MICROSECONDS, correlation=TEXT, causation=TEXT)
def test_the_sdk_reads_what_we_write(event_id: str, time_us: int, correlation: str, causation: str) -> None:
    headers = dict(encoded(id=event_id, time_us=time_us, correlation_id=correlation, causation_id=causation))
    event = from_binary_event(KafkaMessage(headers, b"key", b'{"x":1}'), JSONFormat())
    assert (event.get_id(), event.get_source(), event.get_specversion()) == (event_id, "/evenkeel/ingest/1", "1.0")
    assert event.get_type() == "io.evenkeel.ingest.event-accepted.v1"
    assert event.get_time() == datetime.fromisoformat(format_us(time_us))
    assert event.get_datacontenttype() == "application/json"
    assert event.get_extension("correlationid") == (correlation if correlation != causation else None)
    assert event.get_extension("causationid") == causation
    assert event.get_data() == {"x": 1}


@given(event_id=TEXT)
def test_we_read_what_the_sdk_writes(event_id: str) -> None:
    attributes = {
        "id": event_id,
        "source": "/x",
        "type": "t",
        "specversion": "1.0",
        "time": datetime.fromisoformat("2013-01-01T05:15:00Z"),
    }
    message = to_binary_event(CloudEvent(attributes, json.dumps({"x": 1}).encode()), JSONFormat())
    read = attributes_of(list(message.headers.items()))
    assert read["ce_id"].decode() == event_id
    assert parse_us(read["ce_time"].decode()) == parse_us("2013-01-01T05:15:00Z")


@given(time_us=MICROSECONDS, minutes_east=st.integers(min_value=-14 * 60, max_value=14 * 60))
def test_a_time_is_the_same_in_every_zone(time_us: int, minutes_east: int) -> None:
    utc = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)
    assert format_us(time_us) == utc.isoformat().replace("+00:00", "Z")
    assert parse_us(utc.astimezone(timezone(timedelta(minutes=minutes_east))).isoformat()) == time_us


@given(time_us=MICROSECONDS)
def test_time_survives_its_text(time_us: int) -> None:
    assert parse_us(format_us(time_us)) == time_us


@given(
    st.from_regex(
        r"(2013|2012|1969|0000|9999)-(0[0-3]|1[0-3])-(0[0-2]|[23][0-9])[Tt ]"
        r"(0[0-9]|2[2-5]):(0[0-9]|5[89]|60):(0[0-9]|5[89]|60|6.)([.,][0-9²]{6})?([Zz]|\+00:00)",
        fullmatch=True,
    )
)
def test_a_time_is_what_the_standard_library_reads(text: str) -> None:
    """Also where day, minute and second were each read before; nothing that is no time passes by the tables."""
    parse_us("2013-01-01T00:00:00Z")
    parse_us("2012-02-29T00:00:00Z")
    try:
        assert re.fullmatch(r"[0-9T :.Zt+z-]+", text, re.ASCII)
        assert "," not in text
        wanted = datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, AssertionError):
        with pytest.raises(ValueError):
            parse_us(text)
    else:
        assert parse_us(text) == parse_us(text) == wanted // timedelta(microseconds=1)


@pytest.mark.parametrize("text", ["2013-01-01", "2013-01-01T05:15:00", "yesterday", "", "2013-13-01T00:00:00Z"])
def test_a_time_without_a_zone_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_us(text)


@pytest.mark.parametrize("missing", ["ce_id", "ce_source", "ce_type", "ce_time", "ce_specversion"])
def test_a_missing_attribute_is_named(missing: str) -> None:
    with pytest.raises(EnvelopeError, match=missing):
        attributes_of([header for header in encoded() if header[0] != missing])


def test_sequences_compare_as_text() -> None:
    sequences = [dict(encoded(sequence=n))["ce_sequence"] for n in (9, 10, 123_456_789)]
    assert sequences == sorted(sequences)
    assert origin_of(dict(encoded(sequence=9))) == (b"/evenkeel/ingest/1", b"flights", 9)


UNSAMPLED = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


@pytest.mark.parametrize(
    ("changes", "more"),
    [
        ({}, {"ce_correlationid"}),
        ({"correlation_id": "a"}, set()),
        ({"causation_id": "b"}, {"ce_correlationid", "ce_causationid"}),
        ({"causation_id": "c"}, {"ce_causationid"}),
        ({"causation_id": "b", "correlation_id": "a"}, {"ce_correlationid", "ce_causationid"}),
        ({"correlation_id": "a", "order_us": 1_357_000_000_000_001}, set()),
        ({"correlation_id": "a", "order_us": 1_357_000_000_000_002}, {"ce_ordertime"}),
        ({"correlation_id": "a", "traceparent": UNSAMPLED}, set()),
        ({"correlation_id": "a", "traceparent": UNSAMPLED[:-1] + "1"}, {"traceparent"}),
    ],
)
def test_a_header_says_only_what_no_other_one_says(changes: dict[str, Any], more: set[str]) -> None:
    headers = encoded(**changes)
    names = {name for name, _ in headers}
    always = {"id", "source", "specversion", "type", "time", "recordedtime", "sequence", "shard"}
    assert len(names) == len(headers)
    assert names - {"content-type", *(f"ce_{name}" for name in always)} == more
    event = Event(
        ClockAdvanced(watermarks={"a": "2013-01-01T00:00:00Z"}), "a", 1_357_000_000_000_001, "t", 0, 0, dict(headers)
    )
    assert event.correlation_id == changes.get("correlation_id", "c")
    assert event.causation_id == changes.get("causation_id")
    assert event.order_us == changes.get("order_us", event.time_us)


@given(st.dictionaries(TEXT, MICROSECONDS, min_size=1))
def test_a_clock_record_says_how_far_each_stream_has_come(times_us: dict[str, int]) -> None:
    said = ClockAdvanced(watermarks={stream: format_us(us) for stream, us in times_us.items()})
    assert ClockAdvanced.model_validate_json(said.model_dump_json()).times_us() == times_us


@pytest.mark.parametrize("time", ["noon", "2013-01-01", "1799-12-31T23:59:59Z", "3100-01-01T00:00:01Z", 5, None])
def test_a_clock_that_nobody_could_calculate_with_is_refused(time: Any) -> None:
    with pytest.raises(ValidationError, match="watermarks"):
        ClockAdvanced.model_validate({"watermarks": {"a": time}})
    with pytest.raises(ValidationError, match="watermarks"):
        ClockAdvanced.model_validate({"watermarks": {}})
