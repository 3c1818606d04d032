"""A client that never stops asking while models change underneath, by features and by keys, and counts what fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2
import orjson

PAUSE_SECONDS: Final = 0.2


@dataclass
class Asked:
    """What came of the requests."""

    by_features: int = 0
    by_keys: int = 0
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0
    versions: set[int] = field(default_factory=set)
    last_prediction_id: str | None = None


async def ask_for_ever(
    url: str,
    token: str,
    model: str,
    asked: Asked,
    next_features: Callable[[], list[float | None] | None],
    next_event: Callable[[], dict[str, Any] | None],
) -> None:
    """Alternate between the two ways until cancelled; begins with the first answerable request."""
    async with httpx2.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=10) as http:
        while True:
            features, event = next_features(), next_event()
            if features is not None and not any(value is None for value in features):
                tensor = {"name": "input", "shape": [1, len(features)], "datatype": "FP64", "data": features}
                if await _ask(http, f"/v2/models/{model}/infer", {"inputs": [tensor]}, asked):
                    asked.by_features += 1
            if event is not None and await _ask(http, f"/v1/models/{model}/predict", {"event": event}, asked):
                asked.by_keys += 1
            await asyncio.sleep(PAUSE_SECONDS)


async def _ask(http: httpx2.AsyncClient, path: str, body: dict[str, Any], asked: Asked) -> bool:
    started = time.perf_counter()
    try:
        response = await http.post(path, content=orjson.dumps(body), headers={"content-type": "application/json"})
    except httpx2.HTTPError as error:
        _fail(asked, f"{path}: {type(error).__name__} {error}")
        return False
    asked.slowest_seconds = max(asked.slowest_seconds, time.perf_counter() - started)
    if response.status_code != 200:
        _fail(asked, f"{path}: {response.status_code} {response.text[:200]}")
        return False
    answer = response.json()
    version = answer.get("model_version") or answer.get("version")
    if version is not None:
        asked.versions.add(int(version))
    return True


def _fail(asked: Asked, text: str) -> None:
    asked.failed += 1
    asked.failures = [*asked.failures[-9:], text]
