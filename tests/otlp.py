"""A real OTLP/HTTP receiver: what a collector would get."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class Span:
    service: str
    instance: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: dict[str, Any]


@dataclass
class Receiver:
    url: str
    _spans: dict[str, Span] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, request: ExportTraceServiceRequest) -> None:
        for of_service in request.resource_spans:
            resource = _values(of_service.resource.attributes)
            for scope in of_service.scope_spans:
                for span in scope.spans:
                    found = Span(
                        str(resource["service.name"]).removeprefix("evenkeel-"),
                        str(resource["service.instance.id"]),
                        span.name,
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        _values(span.attributes),
                    )
                    with self._lock:
                        self._spans[found.span_id] = found

    @property
    def spans(self) -> list[Span]:
        with self._lock:
            return list(self._spans.values())

    def trace(self, trace_id: str) -> list[Span]:
        return [span for span in self.spans if span.trace_id == trace_id]


def edges(spans: list[Span]) -> set[tuple[str, str]]:
    """The graph of services: who called, or published to, whom."""
    by_id = {span.span_id: span for span in spans}
    pairs = ((by_id.get(span.parent_id), span) for span in spans)
    return {(parent.service, span.service) for parent, span in pairs if parent and parent.service != span.service}


def roots(spans: list[Span]) -> list[Span]:
    """Spans whose parent was not received: one, if the trace is connected."""
    known = {span.span_id for span in spans}
    return [span for span in spans if span.parent_id not in known]


def _values(attributes: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in attributes}


@contextmanager
def otlp_receiver() -> Iterator[Receiver]:
    receiver = Receiver("")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            assert self.path == "/v1/traces"
            receiver.take(ExportTraceServiceRequest.FromString(body))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
