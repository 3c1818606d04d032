"""Records that an ordered handler could not take: what is parked under a key, and its release."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from evenkeel.contracts.envelope import format_us
from evenkeel.libs.errors import Refused
from evenkeel.libs.http.roles import role
from evenkeel.libs.http.routing import router
from evenkeel.libs.runtime.merge import Group, name_of
from evenkeel.libs.runtime.parking import Parked
from evenkeel.libs.runtime.runtime import Runtime


class Release(BaseModel):
    """Which key to release, as `/v1/parked` shows it."""

    model_config = ConfigDict(extra="forbid")

    key: str = Field(max_length=1000)


def parked_routes(runtime: Runtime[Any]) -> APIRouter:
    """`/v1/parked` and `/v1/parked/release`."""
    routes = router()

    @routes.get("/v1/parked", **role("operator"))
    async def parked() -> dict[str, Any]:
        """Records that the service's ordered handler could not take, with those that wait behind them."""
        return {"service": runtime.service.name, "parked": [_queue(g, queue) for g, queue in await runtime.parked()]}

    @routes.post("/v1/parked/release", **role("operator", 404, 409))
    async def release(body: Release) -> dict[str, Any]:
        """Fold what is parked under a key, in order: all of it, or nothing if the handler still fails."""
        known = {_text(queue[0].key): queue[0].key for _, queue in await runtime.parked()}
        if body.key not in known:
            named = ", ".join(list(known)[:20]) or "none"
            raise Refused(
                404, "Not parked", f"Nothing is parked under {body.key}.", field="key", fix=f"Parked keys: {named}."
            )
        return {"key": body.key, "released": await runtime.release_parked(known[body.key])}

    return routes


def _queue(group: Group | None, queue: list[Parked]) -> dict[str, Any]:
    first = queue[0]
    return {
        "key": _text(first.key),
        "merge": None if group is None else name_of(group),
        "reason": first.reason,
        "since": format_us(first.since_us),
        "records": [
            {
                "event_id": one.event.id,
                "topic": one.event.topic,
                "partition": one.event.partition,
                "offset": one.event.offset,
                "time": format_us(one.event.time_us),
            }
            for one in queue
        ],
    }


def _text(key: bytes) -> str:
    return key.decode("utf-8", "backslashreplace")
