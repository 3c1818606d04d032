"""Dead letters: a record that nobody here can use, told with its original bytes."""

from __future__ import annotations

from evenkeel.contracts.envelope import Record
from evenkeel.contracts.ids import dead_letter_cause_id, record_place
from evenkeel.contracts.runtime import RecordDeadLettered
from evenkeel.libs.runtime.originals import KEPT_BYTES, base64_of, size_of
from evenkeel.libs.service import Cause, Derived


def dead_letter(service: str, record: Record, reason: str) -> Derived:
    """The record as something to publish; one that would be too large for that is named."""
    place = record_place(record.topic, record.partition, record.offset)
    key, value, headers = record.key, record.value, list(record.headers)
    size = size_of(record)
    if size > KEPT_BYTES:
        key, value, headers = None, None, []
        reason += f" (its {size} bytes are too many to be kept here; they stay at {place} as long as that topic does)"
    cause_id = dead_letter_cause_id(service, place)
    payload = RecordDeadLettered(
        service=service,
        reason=reason,
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        key=base64_of(key),
        value=base64_of(value),
        headers=[(name, base64_of(text) or "") for name, text in headers],
    )
    return Derived(payload, Cause(cause_id, record.timestamp * 1000, cause_id))
