"""Answers to requests: each prediction is recorded before it is given."""

from __future__ import annotations

from opentelemetry.trace import SpanKind

from evenkeel.contracts.ids import random_id, view_stream
from evenkeel.libs.errors import Refused
from evenkeel.libs.service import Cause, Derived, Host
from evenkeel.libs.telemetry.tracing import Tracing, new_traceparent
from evenkeel.services.serving.context import ServingContext
from evenkeel.services.serving.domain.champions import Champion
from evenkeel.services.serving.domain.dataplane import Answer, Question, answer, prediction_made


class Recorder:
    """Scores a request's rows and puts one prediction each into the outbox."""

    def __init__(self, runtime: Host[ServingContext]) -> None:
        self._runtime, self._views = runtime, runtime.context.views
        self._trace_ratio = runtime.settings.trace_ratio

    async def answer(
        self, champion: Champion, question: Question, traceparent: str | None
    ) -> tuple[list[Answer], list[tuple[str, str]]]:
        """Each row's answer, and its prediction id and event id, once they are recorded.

        Raises Refused if a row has no finite score, and Retry if nothing can be recorded now.
        """
        answers = answer(champion, question.rows)
        request_id = random_id()
        time_us = question.time_us
        if time_us is None:
            folded_us = self._views.watermark_us((champion.model, champion.view_version))
            time_us = folded_us or self._runtime.clock.now_us()
        traceparent = traceparent or new_traceparent(request_id, self._trace_ratio)
        span = None
        if self._runtime.tracing.enabled and traceparent.endswith("01"):
            span = self._runtime.tracing.start(f"predict {champion.model}", traceparent, SpanKind.SERVER)
            traceparent = Tracing.inject(span)
        cause = Cause(request_id, time_us, request_id, traceparent)
        stream = view_stream(champion.model, champion.view_version)
        ids: list[tuple[str, str]] = []
        outputs: list[Derived] = []
        given: list[Answer] = []
        for values, answered in zip(question.values, answers, strict=True):
            if answered is None:
                raise Refused(500, "Internal error", f"Version {champion.version} gave no finite score for this row.")
            prediction_id = random_id()
            event_id = question.event_id or prediction_id
            payload = prediction_made(
                champion,
                answered,
                origin="request",
                stream=champion.stream,
                event_id=event_id,
                values=values,
                view_position=question.view_position,
            )
            outputs.append(Derived(payload, cause, id=prediction_id, stream=stream))
            ids.append((prediction_id, event_id))
            given.append(answered)
        try:
            await self._runtime.record(outputs)
        finally:
            if span is not None:
                span.end()
        return given, ids
