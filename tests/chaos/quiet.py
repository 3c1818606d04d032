"""Whether a system has come to rest, by what it says of itself: all ready, no lag, empty outboxes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final

import httpx2

GAUGES_EVERY_SECONDS: Final = 1.1
"""Services look at their lag once a second: a calm that is shorter may be an old look."""


async def restless(http: httpx2.AsyncClient, urls: Mapping[str, str]) -> list[str]:
    """What is not at rest now."""
    found = await asyncio.gather(*(_look(http, service, url) for service, url in urls.items()))
    return [what for of_one in found for what in of_one]


async def _look(http: httpx2.AsyncClient, service: str, url: str) -> list[str]:
    try:
        ready = await http.get(f"{url}/health/ready")
        metrics = await http.get(f"{url}/metrics")
    except httpx2.HTTPError as error:
        return [f"{service} does not answer ({type(error).__name__})"]
    found = [] if ready.status_code == 200 else [f"{service} is not ready: {ready.text[:200]}"]
    for line in metrics.text.splitlines():
        name, _, value = line.rpartition(" ")
        if name.startswith(("evenkeel_consumer_lag_records", "evenkeel_outbox_rows")) and float(value):
            found.append(f"{service}: {name} is {value}")
    return found


async def until_quiet(urls: Mapping[str, str], healed_at: float, within_seconds: float) -> tuple[float, list[str]]:
    """Seconds from `healed_at` (monotonic) to the beginning of a lasting calm, and what still was not at rest, if any."""
    calm_since: float | None = None
    async with httpx2.AsyncClient(timeout=5) as http:
        while True:
            found = await restless(http, urls)
            now = time.monotonic()
            if found:
                calm_since = None
                if now - healed_at > within_seconds:
                    return now - healed_at, found
            else:
                calm_since = calm_since or now
                if now - calm_since > GAUGES_EVERY_SECONDS:
                    return calm_since - healed_at, []
            await asyncio.sleep(0.1)
