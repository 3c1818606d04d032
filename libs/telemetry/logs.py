"""Logs as JSON lines on standard error, with the ids of the trace that is current."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from typing import Any, Final

import structlog
from opentelemetry import trace

CLIENT_REPEATS_SECONDS: Final = 10.0


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
