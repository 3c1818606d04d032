"""Every rule of a stream's contract, by the name, the field and the fix that a producer is given."""

from __future__ import annotations

import base64
from typing import Any

import orjson
import pytest

from evenkeel.contracts.declaration import StreamSpec
from evenkeel.libs.fields import Fault
from evenkeel.services.ingest.domain.contract import Contract
from tests.record_ids import RECORD_IDS

SPEC = StreamSpec.model_validate(
    {
        "topic": "shop.orders",
        "id": "order_id",
        "time": "ordered_at",
        "fields": {
            "order_id": {"type": "string", "required": True},
            "channel": {"type": "category", "values": ["web", "store"], "required": True},
            "amount": {"type": "number", "min": 0, "max": 1000},
            "items": {"type": "integer", "min": 1},
            "gift": {"type": "boolean"},
            "note": {"type": "string"},
            "promised_at": {"type": "time"},
            "points": {"type": "integer"},
            "weight": {"type": "number"},
        },
        "label": {
            "topic": "shop.returns",
            "id": "return_id",
            "joins": "order_id",
            "time": "decided_at",
            "horizon": "3d",
            "fields": {"returned": {"type": "boolean", "required": True}},
        },
    }
)
EVENTS = Contract(SPEC)
GOOD = {"order_id": "o-1", "ordered_at": "2013-01-01T05:15:00Z", "channel": "web"}


def fault_of(value: bytes | dict[str, Any] | None, headers: Any = (), contract: Contract = EVENTS) -> Fault:
    with pytest.raises(Fault) as caught:
        contract.check(orjson.dumps(value) if isinstance(value, dict) else value, headers)
    fault = caught.value
    assert fault.reason.endswith((".", "?"))
    assert fault.fix.endswith(".")
    return fault


def with_(**changes: Any) -> dict[str, Any]:
    return {name: value for name, value in (GOOD | changes).items() if value is not ...}


def test_declared_fields_are_taken_over_exactly_and_others_left_out() -> None:
    sent = with_(amount=5, items=3.0, gift=False, note="ü", promised_at="2013-01-02T00:00:00+01:00", unknown=[1, {}])
    checked = EVENTS.check(orjson.dumps(sent))
    assert checked.record_id == checked.event_id == "o-1"
    assert checked.time_us == 1_357_017_300_000_000
    expected = GOOD | {
        "amount": 5.0,
        "items": 3,
        "gift": False,
        "note": "ü",
        "promised_at": "2013-01-02T00:00:00+01:00",
    }
    assert checked.fields == expected
    assert {name: type(value) for name, value in checked.fields.items()} == {n: type(v) for n, v in expected.items()}


def test_null_is_the_same_as_absent() -> None:
    absent, null = EVENTS.check(orjson.dumps(GOOD)), EVENTS.check(orjson.dumps(with_(amount=None, note=None)))
    assert absent == null
    assert absent.digest() == null.digest()
    assert "amount" not in null.fields


def test_the_digest_is_of_the_content_not_of_its_spelling() -> None:
    one = EVENTS.check(b'{"order_id":"o","ordered_at":"2013-01-01T05:15:00Z","channel":"web","amount":5}')
    same = EVENTS.check(
        b'{ "amount": 5.0, "channel":"web", "ordered_at":"2013-01-01T05:15:00Z", "order_id":"o", "x":1}'
    )
    other = EVENTS.check(b'{"order_id":"o","ordered_at":"2013-01-01T05:15:00Z","channel":"web","amount":6}')
    assert one.digest() == same.digest() != other.digest()


def test_id_and_time_need_not_be_listed_as_fields() -> None:
    labels = Contract(SPEC.label)  # type: ignore[arg-type]
    sent = {"return_id": "r-1", "order_id": "o-1", "decided_at": "2013-01-03T00:00:00Z", "returned": True}
    checked = labels.check(orjson.dumps(sent))
    assert (checked.record_id, checked.event_id, checked.fields) == ("r-1", "o-1", sent)


@pytest.mark.parametrize("given", RECORD_IDS)
def test_an_id_is_any_text_of_the_producer(given: str) -> None:
    checked = EVENTS.check(orjson.dumps(with_(order_id=given)))
    assert (checked.record_id, checked.event_id, checked.fields["order_id"]) == (given, given, given)
    labels = Contract(SPEC.label)  # type: ignore[arg-type]
    sent = {"return_id": given, "order_id": given[::-1], "decided_at": "2013-01-03T00:00:00Z", "returned": True}
    checked = labels.check(orjson.dumps(sent))
    assert (checked.record_id, checked.event_id) == (given, given[::-1])


@pytest.mark.parametrize(
    ("changes", "rule", "field", "fix"),
    [
        ({"order_id": ...}, "identity", "order_id", "Send order_id as text"),
        ({"order_id": 17}, "identity", "order_id", "Send order_id as text"),
        ({"order_id": ""}, "identity", "order_id", "1 to 256 bytes"),
        ({"order_id": "a" * 257}, "identity", "order_id", "1 to 256 bytes"),
        ({"order_id": "é" * 129}, "identity", "order_id", "1 to 256 bytes"),
        ({"order_id": "a\n"}, "identity", "order_id", "without control characters"),
        ({"order_id": "a\x85b"}, "identity", "order_id", "without control characters"),
        ({"channel": ...}, "missing", "channel", "declare it as not required"),
        ({"channel": None}, "missing", "channel", "Send channel"),
        ({"ordered_at": ...}, "missing", "ordered_at", "Send ordered_at"),
        ({"amount": "5"}, "type", "amount", "a JSON number"),
        ({"amount": True}, "type", "amount", "a JSON number"),
        ({"weight": 2**53 + 1}, "type", "weight", "holds exactly"),
        ({"items": 2.5}, "type", "items", "a whole JSON number"),
        ({"items": True}, "type", "items", "a whole JSON number"),
        ({"points": 1e19}, "type", "points", "a whole JSON number"),
        ({"gift": 1}, "type", "gift", "true or false"),
        ({"note": 5}, "type", "note", "text"),
        ({"note": {"a": 1}}, "type", "note", "text"),
        ({"promised_at": "tomorrow"}, "type", "promised_at", "2013-01-01T05:15:00Z"),
        ({"promised_at": 1}, "type", "promised_at", "RFC 3339"),
        ({"channel": 1}, "type", "channel", "text"),
        ({"amount": -0.01}, "range", "amount", "between 0 and 1000"),
        ({"amount": 1001}, "range", "amount", "between 0 and 1000"),
        ({"items": 0}, "range", "items", "at least 1"),
        ({"points": 2**63}, "range", "points", "within 64 bits"),
        ({"channel": "wep"}, "category", "channel", "Send one of web, store"),
        ({"ordered_at": "2013-01-01T05:15:00"}, "event_time", "ordered_at", "with a zone"),
        ({"ordered_at": "2013-02-30T05:15:00Z"}, "event_time", "ordered_at", "RFC 3339"),
        ({"ordered_at": 1_357_017_300}, "event_time", "ordered_at", "RFC 3339"),
        ({"ordered_at": []}, "event_time", "ordered_at", "RFC 3339"),
        ({"ordered_at": "0001-01-01T00:00:00+14:00"}, "event_time", "ordered_at", "happened"),
        ({"ordered_at": "9999-12-31T23:59:59-14:00"}, "event_time", "ordered_at", "happened"),
    ],
)
def test_a_field_that_breaks_the_contract_is_named(changes: dict[str, Any], rule: str, field: str, fix: str) -> None:
    fault = fault_of(with_(**changes))
    assert (fault.rule, fault.field) == (rule, field), fault.reason
    assert field in fault.reason
    assert fix in fault.fix
    assert fault.event_id == (None if rule == "identity" else "o-1")


def test_a_misspelt_category_gets_the_near_one() -> None:
    assert "Did you mean web?" in fault_of(with_(channel="wep")).reason


@pytest.mark.parametrize(
    ("value", "rule", "field"),
    [
        (None, "shape", None),
        (b"[]", "shape", None),
        (b"5", "shape", None),
        (b'"text"', "shape", None),
        (b"", "json", None),
        (b"{", "json", None),
        (b'{"order_id": "o-1",}', "json", None),
        (b"\xef\xbb\xbf{}", "json", None),
        (b'{"order_id": "\xff"}', "encoding", None),
        (b'{"order_id": "\x00"}', "encoding", None),
        (b'{"note": "a\\u0000b"}', "encoding", None),
        (b'{"a\\u0000b": 1}', "encoding", None),
        (b'{"note": "\\ud800"}', "encoding", None),
        (b'{"amount": NaN}', "finite", "amount"),
        (b'{"a": {"b": [-Infinity]}}', "finite", "a"),
        (b'{"amount": 1e999}', "finite", "amount"),
        (b"[NaN]", "finite", None),
        (b"[" * 33 + b"]" * 33, "json", None),
        (b"[" * 100_000, "size", None),
        (b"[" * 60_000, "json", None),
        (b'{"a":' * 1_500 + b"1" + b"}" * 1_500, "json", None),
        (b'{"note": "' + b"x" * 65_536 + b'"}', "size", None),
    ],
)
def test_what_is_no_record_at_all_is_named(value: bytes | None, rule: str, field: str | None) -> None:
    fault = fault_of(value)
    assert (fault.rule, fault.field, fault.event_id) == (rule, field, None), fault.reason


def test_brackets_in_texts_and_escaped_backslashes_are_no_depth_and_no_nul() -> None:
    value = orjson.dumps(with_(note="[{" * 100 + "\\u0000"))
    assert EVENTS.check(value).fields["note"] == "[{" * 100 + "\\u0000"
    assert fault_of(b'{"note": "' + b"[" * 100 + b'\\"[", "amount": NaN}').rule == "finite"


@pytest.mark.parametrize("amount", [0, 1000, 0.0, 1000.0, 0.5])
def test_bounds_belong_to_the_range(amount: float) -> None:
    assert EVENTS.check(orjson.dumps(with_(amount=amount, items=1))).fields["amount"] == amount


def test_nesting_is_named_also_where_the_parser_gave_up() -> None:
    for depth in (33, 1_500, 30_000):
        assert "nested deeper" in fault_of(b"[" * depth + b"]" * depth).reason


def test_hostile_values_do_not_fill_the_message() -> None:
    assert len(fault_of(with_(channel="x" * 60_000)).reason) < 300


# -- CloudEvents ---------------------------------------------------------------------------------------------------------

STRUCTURED = [("content-type", b"application/cloudevents+json; charset=utf-8")]


def cloud_event(**changes: Any) -> bytes:
    event = {
        "specversion": "1.0",
        "id": "o-9",
        "source": "/shop",
        "type": "order",
        "time": "2013-01-01T05:15:00Z",
        "data": {"channel": "web"},
    }
    return orjson.dumps({name: value for name, value in (event | changes).items() if value is not ...})


def test_structured_cloud_event_gives_id_and_time() -> None:
    expected = {"order_id": "o-9", "ordered_at": "2013-01-01T05:15:00Z", "channel": "web"}
    assert EVENTS.check(cloud_event(), STRUCTURED).fields == expected
    in_base64 = cloud_event(data=..., data_base64=base64.b64encode(b'{"channel":"web"}').decode())
    assert EVENTS.check(in_base64, STRUCTURED).fields == expected


def test_the_data_comes_before_the_envelope() -> None:
    assert EVENTS.check(cloud_event(data=GOOD), STRUCTURED).record_id == "o-1"


def test_binary_cloud_event_gives_id_and_time() -> None:
    headers = [("ce_specversion", b"1.0"), ("ce_id", b"o-9"), ("ce_time", b"2013-01-01T05:15:00Z"), ("other", None)]
    assert EVENTS.check(b'{"channel":"web"}', headers).record_id == "o-9"  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("value", "rule", "field"),
    [
        (cloud_event(specversion="0.3"), "shape", "specversion"),
        (cloud_event(data=...), "shape", "data"),
        (cloud_event(data=[1]), "shape", "data"),
        (cloud_event(data=..., data_base64="ä"), "encoding", "data_base64"),
        (cloud_event(data=..., data_base64=5), "encoding", "data_base64"),
        (cloud_event(id=5), "identity", "order_id"),
        (cloud_event(time=...), "missing", "ordered_at"),
        (b"[]", "shape", None),
        (b"{", "json", None),
    ],
)
def test_a_broken_cloud_event_is_named(value: bytes, rule: str, field: str | None) -> None:
    fault = fault_of(value, STRUCTURED)
    assert (fault.rule, fault.field) == (rule, field)


def test_a_header_that_is_not_text_is_named() -> None:
    fault = fault_of(b"{}", [("ce_id", b"\xff")])
    assert (fault.rule, fault.field) == ("encoding", "ce_id")
