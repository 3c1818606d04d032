"""CloudEvents from producers: structured mode by content type, binary mode by `ce_` headers (CloudEvents 1.0.2, Kafka
protocol binding). The event's id and time stand in where its data does not carry the stream's id and time fields.
"""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

from evenkeel.contracts.envelope import Headers
from evenkeel.contracts.http.ingest import STRUCTURED
from evenkeel.libs.fields import Fault, shown
from evenkeel.services.ingest.domain.json_record import read_json


class Wrapped(NamedTuple):
    """The data of a CloudEvent, with what its attributes say."""

    data: Any
    id: str | None
    time: str | None


def is_cloud_event(headers: Headers) -> bool:
    """Whether the headers wrap the record, or say an id or a time that may stand in for its own."""
    for name, found in headers:
        match name.lower():
            case "ce_id" | "ce_time":
                return True
            case "content-type" if found is not None and _is_structured(found):
                return True
    return False


def unwrap(value: bytes, headers: Headers) -> Wrapped:
    """The record's JSON, out of its CloudEvent if it is one; raises Fault."""
    attributes = {name.lower(): found for name, found in headers if found is not None}
    if _is_structured(attributes.get("content-type", b"")):
        return _structured(read_json(value))
    return Wrapped(read_json(value), _text(attributes, "ce_id"), _text(attributes, "ce_time"))


def _is_structured(content_type: bytes) -> bool:
    return content_type.decode("ascii", "replace").partition(";")[0].strip().lower() == STRUCTURED


def _structured(event: Any) -> Wrapped:
    fix = 'Send a CloudEvent such as {"specversion": "1.0", "id": …, "source": …, "type": …, "data": {…}}.'
    if not isinstance(event, dict):
        raise Fault("shape", f"A CloudEvent in structured mode is an object, this is {shown(event)}.", fix)
    if event.get("specversion") != "1.0":
        found = shown(event.get("specversion"))
        raise Fault("shape", f"specversion is {found}, only 1.0 is read.", fix, field="specversion")
    data = event.get("data")
    if "data_base64" in event:
        try:
            data = read_json(base64.b64decode(event["data_base64"], validate=True))
        except (ValueError, TypeError):
            raise Fault("encoding", "data_base64 is not Base64.", fix, field="data_base64") from None
    if not isinstance(data, dict):
        raise Fault("shape", f"The data of a CloudEvent is an object, this is {shown(data)}.", fix, field="data")
    return Wrapped(data, _if_text(event.get("id")), _if_text(event.get("time")))


def _if_text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _text(attributes: dict[str, bytes], name: str) -> str | None:
    value = attributes.get(name)
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Fault("encoding", f"Header {name} is not UTF-8.", "Send headers in UTF-8.", field=name) from None
