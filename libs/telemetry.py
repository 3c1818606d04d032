"""Traces by OpenTelemetry, metrics by prometheus-client, logs as JSON lines with trace ids.

Kafka spans are made by hand to the messaging conventions (status: development): the contributed instrumentation costs
twenty times as much a record, uses old names and ends its spans before the handler runs. Trace context rides in each
record's `traceparent` header; a trace that is not sampled costs one string comparison per event.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import structlog
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, SpanKind, TraceFlags
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from evenkeel.contracts.envelope import Event, Record

CLIENT_REPEATS_SECONDS: Final = 10.0
BATCH_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


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


class Metrics:
    """The runtime's own metrics; a service adds its own to `registry`. No labels that grow with entities or ids."""

    def __init__(self, service: str) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.consumed = Counter("evenkeel_events_consumed", "Records taken in.", ["topic"], registry=registry)
        self.published = Counter(
            "evenkeel_events_published", "Records acknowledged by the broker.", ["topic"], registry=registry
        )
        self.repeated = Counter(
            "evenkeel_events_repeated", "Records already applied, skipped.", ["topic"], registry=registry
        )
        self.dead_lettered = Counter(
            "evenkeel_dead_lettered", "Records of our own topics that could not be used.", ["topic"], registry=registry
        )
        self.retries = Counter(
            "evenkeel_retries", "Waits for infrastructure or for a fact.", ["kind"], registry=registry
        )
        self.batch_seconds = Histogram(
            "evenkeel_batch_seconds", "Time of one transaction.", buckets=BATCH_BUCKETS, registry=registry
        )
        self.lag = Gauge("evenkeel_consumer_lag_records", "Records behind the end.", ["topic"], registry=registry)
        self.pending = Gauge(
            "evenkeel_merge_pending_records", "Records held by the event-time merge.", registry=registry
        )
        self.parked = Gauge("evenkeel_parked_records", "Records of parked keys.", registry=registry)
        self.outbox = Gauge("evenkeel_outbox_rows", "Committed batches that are not yet published.", registry=registry)
        self.outbox_bytes = Gauge("evenkeel_outbox_bytes", "Their size.", registry=registry)
        self.free = Gauge("evenkeel_disk_free_bytes", "Free on the data folder's disk.", registry=registry)
        self.ready = Gauge("evenkeel_ready", "1 when the service is ready.", registry=registry)
        Gauge("evenkeel_build_info", "Version.", ["service"], registry=registry).labels(service).set(1)


class _Seldom(logging.Filter):
    """The Kafka client says the same a hundred times a second while its broker is away: once in a while is enough."""

    def __init__(self) -> None:
        super().__init__()
        self._said_at: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.name.startswith("aiokafka"):
            return True
        what = record.name, str(record.msg)
        if record.created - self._said_at.get(what, 0.0) < CLIENT_REPEATS_SECONDS:
            return False
        self._said_at[what] = record.created
        return True


def configure_logging(service: str, level: str) -> None:
    """JSON lines on standard error, with the trace that is current."""

    def add_trace(_: Any, __: str, entry: dict[str, Any]) -> dict[str, Any]:
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            entry["trace_id"], entry["span_id"] = f"{context.trace_id:032x}", f"{context.span_id:016x}"
        return entry

    number = getattr(logging, level.upper())
    shared: Sequence[Any] = (
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        add_trace,
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_Seldom())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=list(shared),
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=number, force=True)
    for name in ("aiokafka", "uvicorn.access", "httpx2"):
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    structlog.contextvars.bind_contextvars(service=service)
