"""Traces by OpenTelemetry.

Kafka spans are made by hand to the messaging conventions (status: development): the contributed instrumentation costs
twenty times as much a record, uses old names and ends its spans before the handler runs. Trace context rides in each
record's `traceparent` header; a trace that is not sampled costs one string comparison per event.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags

from evenkeel.contracts.envelope import Event, Record


def new_traceparent(event_id: str, ratio: float) -> str:
    """The start of a trace, derived from an event's id so that a repeat starts the same one; sampled for `ratio` of ids."""
    digest = hashlib.sha256(event_id.encode()).digest()
    sampled = int.from_bytes(digest[24:32], "big") < ratio * 2**64
    ids = digest[:24].hex()
    return f"00-{ids[:32]}-{ids[32:]}-{'01' if sampled else '00'}"


def _context(traceparent: str) -> SpanContext | None:
    parts = traceparent.split("-")
    if len(parts) != 4:
        return None
    try:
        return SpanContext(int(parts[1], 16), int(parts[2], 16), True, TraceFlags(int(parts[3], 16)))
    except ValueError:
        return None


def _traceparent(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


class Tracing:
    """The tracer of one service. Exports by OTLP/HTTP if OTEL_EXPORTER_OTLP_ENDPOINT is set, else records nothing."""

    def __init__(self, service: str, instance: str) -> None:
        self.enabled = bool(os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"))
        self._group = f"evenkeel-{service}"
        self._provider = TracerProvider(
            resource=Resource.create(
                {
                    "service.name": f"evenkeel-{service}",
                    "service.namespace": "evenkeel",
                    "service.instance.id": instance,
                }
            )
        )
        if self.enabled:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=1000))
        self.tracer = self._provider.get_tracer("evenkeel")

    def batch(self) -> BatchTrace:
        return BatchTrace(self)

    def process_span(self, event: Event[Any]) -> Span | None:
        """A `process` span of one sampled event, child of and linked to the context that created it."""
        traceparent = event.traceparent
        context = _context(traceparent) if traceparent else None
        if context is None:
            return None
        return self.tracer.start_span(
            f"process {event.topic}",
            context=trace.set_span_in_context(NonRecordingSpan(context)),
            kind=SpanKind.CONSUMER,
            links=[Link(context)],
            attributes={
                "messaging.system": "kafka",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": event.topic,
                "messaging.destination.partition.id": str(event.partition),
                "messaging.kafka.offset": event.offset,
                "messaging.message.id": event.id,
                "messaging.message.conversation_id": event.correlation_id,
                "messaging.consumer.group.name": self._group,
                "cloudevents.event_id": event.id,
                "cloudevents.event_type": event.attribute("type") or "",
            },
        )

    def start(self, name: str, traceparent: str | None, kind: SpanKind = SpanKind.INTERNAL, **attributes: Any) -> Span:
        """Any other span: an HTTP request, a training run. Child of `traceparent` if there is one."""
        context = _context(traceparent) if traceparent else None
        parent = trace.set_span_in_context(NonRecordingSpan(context)) if context else None
        return self.tracer.start_span(name, context=parent, kind=kind, attributes=attributes)

    @staticmethod
    def inject(span: Span) -> str:
        return _traceparent(span.get_span_context())

    def close(self) -> None:
        self._provider.shutdown()


class BatchTrace:
    """The spans of one batch: one per sampled event that something was derived from; they end with the batch."""

    def __init__(self, tracing: Tracing) -> None:
        self._tracing = tracing
        self._spans: dict[str, Span | None] = {}

    def context_for(self, cause: Any, shard: bytes) -> str | None:
        """The traceparent that an event derived from `cause` carries; `shard` names what handled a cause that is no
        event: a raw topic, a command, a job."""
        traceparent: str | None = cause.traceparent
        if traceparent is None or not self._tracing.enabled or not traceparent.endswith("01"):
            return traceparent
        if cause.id not in self._spans:
            self._spans[cause.id] = (
                self._tracing.process_span(cause)
                if isinstance(cause, Event)
                else self._tracing.start(
                    f"handle {shard.decode()}", traceparent, SpanKind.INTERNAL, **{"evenkeel.cause.id": cause.id}
                )
            )
        span = self._spans[cause.id]
        return traceparent if span is None else Tracing.inject(span)

    def begin(self, event_id: str, topic: str) -> str:
        """The traceparent of an event that starts a trace of its own."""
        traceparent = new_traceparent(event_id, 1.0)
        if not self._tracing.enabled:
            return traceparent
        span = self._spans[event_id] = self._tracing.start(f"begin {topic}", traceparent)
        return Tracing.inject(span)

    def logged(self, record: Record, leaf: int) -> None:
        """A span for a sampled record that became a leaf of the audit log."""
        if not self._tracing.enabled:
            return
        traceparent = dict(record.headers).get("traceparent")
        if traceparent is not None and traceparent.endswith(b"01"):
            attributes = {"messaging.destination.name": record.topic, "evenkeel.leaf": leaf}
            place = f"{record.topic}/{record.partition}/{record.offset}"
            self._spans[place] = self._tracing.start(
                f"log {record.topic}", traceparent.decode("ascii", "replace"), SpanKind.CONSUMER, **attributes
            )

    def finish(self, error: BaseException | None = None) -> None:
        for span in self._spans.values():
            if span is not None:
                if error is not None:
                    span.set_attribute("error.type", type(error).__name__)
                span.end()
        self._spans.clear()
