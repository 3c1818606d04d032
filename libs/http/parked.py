"""Records that an ordered handler could not take: what is parked under a key, and its release."""

from __future__ import annotations

from typing import Any

from evenkeel.contracts.envelope import format_us
from evenkeel.contracts.http.operations import (
    PARKED,
    RELEASE,
    ParkedKey,
    ParkedKeys,
    ParkedRecord,
    Released,
    ReleaseRequest,
)
from evenkeel.libs.errors import Refused
from evenkeel.libs.routes import Routes
from evenkeel.libs.runtime.merge import Group, name_of
from evenkeel.libs.runtime.parking import Parked
from evenkeel.libs.runtime.runtime import Runtime


def parked_routes(runtime: Runtime[Any]) -> Routes:
    """`/v1/parked` and `/v1/parked/release`."""
    routes = Routes()

    @routes.answer(PARKED)
    async def parked() -> ParkedKeys:
        queues = await runtime.parked()
        return ParkedKeys(service=runtime.service.name, parked=[_parked_key(g, queue) for g, queue in queues])

    @routes.answer(RELEASE)
    async def release(body: ReleaseRequest) -> Released:
        known = {_text(queue[0].key): queue[0].key for _, queue in await runtime.parked()}
        if body.key not in known:
            named = ", ".join(list(known)[:20]) or "none"
            raise Refused(
                404, "Not parked", f"Nothing is parked under {body.key}.", field="key", fix=f"Parked keys: {named}."
            )
        return Released(key=body.key, released=await runtime.release_parked(known[body.key]))

    return routes


def _parked_key(group: Group | None, queue: list[Parked]) -> ParkedKey:
    first = queue[0]
    return ParkedKey(
        key=_text(first.key),
        merge=None if group is None else name_of(group),
        reason=first.reason,
        since=format_us(first.since_us),
        records=[_parked_record(one) for one in queue],
    )


def _parked_record(parked: Parked) -> ParkedRecord:
    event = parked.event
    return ParkedRecord(
        event_id=event.id,
        topic=event.topic,
        partition=event.partition,
        offset=event.offset,
        time=format_us(event.time_us),
    )


def _text(key: bytes) -> str:
    return key.decode("utf-8", "backslashreplace")
