"""A client that never stops asking while models change underneath, by features and by keys, and counts what fails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from evenkeel.contracts.http.serving import InferRequest, InputTensor
from evenkeel.libs.client.clients import AsyncClient
from evenkeel.libs.client.errors import ServiceError

A = TypeVar("A")
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
    client: AsyncClient,
    model: str,
    asked: Asked,
    next_features: Callable[[], list[float | None] | None],
    next_event: Callable[[], dict[str, Any] | None],
) -> None:
    """Alternate between the two ways until cancelled; begins with the first answerable request."""
    while True:
        features, event = next_features(), next_event()
        if features is not None and not any(value is None for value in features):
            tensor = InputTensor(name="input", shape=[1, len(features)], datatype="FP64", data=features)
            inferred = await _timed(client.serving.infer(model, InferRequest(inputs=[tensor])), "infer", asked)
            if inferred is not None:
                asked.by_features += 1
                asked.versions.add(int(inferred.model_version))
        if event is not None:
            predicted = await _timed(client.serving.predict(model, event=event), "predict", asked)
            if predicted is not None:
                asked.by_keys += 1
                asked.versions.add(predicted.version)
        await asyncio.sleep(PAUSE_SECONDS)


async def _timed(call: Awaitable[A], what: str, asked: Asked) -> A | None:
    """The answer, or None if the call failed."""
    started = time.perf_counter()
    try:
        answer = await call
    except ServiceError as error:
        _fail(asked, f"{what}: {error}")
        return None
    asked.slowest_seconds = max(asked.slowest_seconds, time.perf_counter() - started)
    return answer


def _fail(asked: Asked, text: str) -> None:
    asked.failed += 1
    asked.failures = [*asked.failures[-9:], text]
