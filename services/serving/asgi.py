"""The hot paths as raw ASGI, in front of the framework: one body in, one answer out, recorded before it is given.

`POST /v1/models/{model}/predict` takes JSON of ours, `POST /v2/models/{model}[/versions/{version}]/infer` the Open
Inference Protocol. A request takes its champion once and answers by it, whatever is swapped meanwhile. Nothing here waits
for another service: the answer is given once its predictions are in the outbox, which is the spool while the broker is away.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson
from opentelemetry.trace import SpanKind

from contracts.ids import random_id, view_stream
from libs.errors import Refused, Retry
from libs.fields import shown
from libs.http import MAX_BODY_BYTES, ROLE_KEY, Tokens, add_refusals, refusal
from libs.runtime.runtime import Runtime
from libs.service import Cause, Derived
from libs.telemetry import Tracing, new_traceparent
from services.serving.context import ServingContext
from services.serving.domain.champions import Champion
from services.serving.domain.requests import Row, identifier, moment_us, refused
from services.serving.domain.tensors import answer, parse_infer
from services.serving.handlers import request_prediction
from services.serving.views import Completed

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]

ROLE: Final = "client"
HOT_PATHS: Final = (
    "/v1/models/{model}/predict",
    "/v2/models/{model}/infer",
    "/v2/models/{model}/versions/{version}/infer",
)
"""Routes that the framework does not see; all are POST and need the role `client`."""
_JSON: Final = (b"content-type", b"application/json")
_PROBLEM: Final = (b"content-type", b"application/problem+json")
_BINARY: Final = (b"content-type", b"application/octet-stream")
_JSON_SIZE: Final = b"inference-header-content-length"
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}").fullmatch
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_KINDS: Final = ("features", "instances", "event")
_KNOWN_KEYS: Final = frozenset({*_KINDS, "event_id", "event_time"})
_DISCONNECTED: Final = "http.disconnect"


def describe(document: dict[str, Any]) -> None:
    """Add the hot paths to the OpenAPI document, and give errors below /v2 the protocol's form."""
    features = {"type": "object", "additionalProperties": {"type": ["number", "boolean", "string", "null"]}}
    own = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "features": features,
            "instances": {"type": "array", "items": features, "minItems": 1},
            "event": {"type": "object"},
            "event_id": {"type": "string"},
            "event_time": {"type": "string", "format": "date-time"},
        },
        "oneOf": [{"required": [kind]} for kind in _KINDS],
    }
    tensor = {"type": "object", "required": ["name", "shape", "datatype"]}
    infer = {
        "type": "object",
        "required": ["inputs"],
        "properties": {"inputs": {"type": "array", "items": tensor, "minItems": 1}},
    }
    for path in HOT_PATHS:
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        content = {"application/json": {"schema": own if path.startswith("/v1") else infer}}
        answered = {"application/json": {"schema": {"type": "object"}}}
        operation: dict[str, Any] = {
            ROLE_KEY: ROLE,
            "parameters": [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
            ],
            "requestBody": {"required": True, "content": content},
            "responses": {"200": {"description": "Answered, and recorded.", "content": answered}, "415": refusal(415)},
        }
        add_refusals(path, operation)
        document["paths"][path] = {"post": operation}
    error = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
    for path, operations in document["paths"].items():
        for operation in operations.values():
            for status, told in operation["responses"].items():
                if path.startswith("/v2") and int(status) >= 400:
                    told["content"] = {"application/json": {"schema": error}}


class _Gone(Exception):
    """The client went away."""


class HotPath:
    """The ASGI application; everything that is not a hot path goes to `inner`."""

    def __init__(self, runtime: Runtime[ServingContext], inner: Application) -> None:
        self._runtime, self._inner, self._ctx = runtime, inner, runtime.context
        self._tokens = Tokens(runtime.settings.tokens)
        self._max_rows, self._trace_ratio = runtime.own.max_rows, runtime.settings.trace_ratio
        self._ctx.metrics.register(runtime.metrics.registry)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            path: str = scope["path"]
            if path.startswith("/v1/models/") and path.endswith("/predict") and path.count("/") == 4:
                await self._answer(scope, receive, send, self._predict, path[11:-8], None, is_v2=False)
                return
            if path.startswith("/v2"):
                if path.startswith("/v2/models/") and path.endswith("/infer"):
                    parts = path.split("/")
                    if len(parts) == 5 or (len(parts) == 7 and parts[4] == "versions"):
                        version = parts[5] if len(parts) == 7 else None
                        await self._answer(scope, receive, send, self._infer, parts[3], version, is_v2=True)
                        return
                send = _ErrorsOfTheProtocol(send)
        await self._inner(scope, receive, send)

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        work: Callable[[Champion, bytes, dict[bytes, bytes]], Awaitable[tuple[bytes, list[tuple[bytes, bytes]]]]],
        model: str,
        version: str | None,
        *,
        is_v2: bool,
    ) -> None:
        try:
            headers = dict(scope["headers"])
            if scope["method"] != "POST":
                raise Refused(405, "Method not allowed", f"{scope['method']} is not known here.", fix="Use POST.")
            self._authorize(headers)
            body = await _body(receive, headers)
            started = time.perf_counter()
            champion = self._champion(model, version)
            content, extra = await work(champion, body, headers)
            champion.observe_seconds(time.perf_counter() - started)
            status = 200
        except _Gone:
            return
        except Refused as error:
            if error.status == 404 and not self._runtime.has_caught_up:
                error = refused(503, "The models are still being read.", "Try again.")
            status, content, extra = _refusal(error, is_v2)
            self._ctx.metrics.refusals.labels(str(status)).inc()
        except Retry:
            away = refused(503, "The prediction cannot be recorded now, so it is not given.", "Try again.")
            status, content, extra = _refusal(away, is_v2)
            self._ctx.metrics.refusals.labels("503").inc()
        extra.append((b"content-length", b"%d" % len(content)))
        await send({"type": "http.response.start", "status": status, "headers": extra})
        await send({"type": "http.response.body", "body": content})

    def _authorize(self, headers: Mapping[bytes, bytes]) -> None:
        roles = self._tokens.roles_of(headers.get(b"authorization", b""))
        if not roles:
            fix = "Send `Authorization: Bearer <token>`."
            raise Refused(401, "Unauthorized", "This call needs a known bearer token.", field="Authorization", fix=fix)
        if ROLE not in roles:
            fix = "Use a token that has it."
            raise Refused(403, "Forbidden", f"This call needs the role {ROLE}.", field="Authorization", fix=fix)

    def _champion(self, model: str, version: str | None) -> Champion:
        if self._runtime.stopping:
            raise refused(503, "This replica is stopping.", "Ask another one, or try again.")
        champion = self._ctx.champion(model)
        if champion is None:
            declared = sorted({name for name, _ in self._ctx.plans})
            if model in declared:
                raise refused(
                    503, f"No version of {model} answers here yet.", "Try again once one is promoted.", "model"
                )
            known = ", ".join(declared[:20]) or "none"
            raise Refused(
                404, "Unknown model", f"There is no model {shown(model)}.", field="model", fix=f"Known: {known}."
            )
        if version is not None and version != str(champion.version):
            fix = f"Ask for version {champion.version}, or leave /versions/{{version}} out."
            detail = f"Version {shown(version)} of {model} does not answer here."
            raise Refused(404, "Unknown version", detail, field="version", fix=fix)
        return champion

    # -- /v1 ----------------------------------------------------------------------------------------------------------

    async def _predict(
        self, champion: Champion, body: bytes, headers: dict[bytes, bytes]
    ) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        request = _parsed(body)
        for key in request:
            if key not in _KNOWN_KEYS:
                fix = "Send one of features, instances or event, and optionally event_id and event_time."
                raise refused(422, f"There is no {shown(key)} in a request.", fix, str(key)[:80])
        kinds = [kind for kind in _KINDS if kind in request]
        if len(kinds) != 1:
            given = " and ".join(kinds) or "nothing to predict for"
            raise refused(
                422, f"The request has {given}.", "Send exactly one of features, instances or event.", "features"
            )
        time_us = None if "event_time" not in request else moment_us(request["event_time"], "event_time")
        event_id = None if "event_id" not in request else identifier(request["event_id"], "event_id")
        completed: Completed | None = None
        rows: list[Row]
        if kinds == ["features"]:
            rows = [champion.rows.row(request["features"], "features")]
        elif kinds == ["instances"]:
            rows = self._instances(champion, request["instances"], event_id)
        else:
            completed, event_id, time_us = self._complete(champion, request["event"], event_id, time_us)
            rows = [[None if value != value else value for value in completed.vector]]
        matrix = np.array(rows, np.float32)
        position = None if completed is None else completed.position
        ids, scores = await self._record(champion, rows, matrix, event_id, time_us, headers, position)
        head = {"model": champion.model, "version": champion.version, "epoch": champion.epoch}
        predictions = [
            {"prediction_id": prediction_id, "event_id": of, "score": score, "decision": _decision(champion, score)}
            for (prediction_id, of), score in zip(ids, scores, strict=True)
        ]
        if kinds == ["instances"]:
            return orjson.dumps(head | {"predictions": predictions}), [_JSON]
        return orjson.dumps(head | predictions[0]), [_JSON]

    def _instances(self, champion: Champion, given: object, event_id: str | None) -> list[Row]:
        if type(given) is not list or not given:
            fix = "Send instances as a list of one or more objects of feature values."
            raise refused(422, f"instances is {shown(given)}.", fix, "instances")
        self._check_rows(len(given), "instances")
        if event_id is not None:
            fix = "Leave event_id out, or send features."
            raise refused(422, "One event_id cannot be the id of several instances.", fix, "event_id")
        return [champion.rows.row(one, f"instances[{number}]") for number, one in enumerate(given)]

    def _complete(
        self, champion: Champion, event: object, event_id: str | None, time_us: int | None
    ) -> tuple[Completed, str | None, int]:
        """The features of an event, from its own fields and the online view."""
        reader = champion.events
        fields = reader.fields(event)
        if event_id is None and fields.get(reader.id_field) is not None:
            event_id = identifier(fields[reader.id_field], f"event.{reader.id_field}")
        if time_us is None and fields.get(reader.time_field) is not None:
            time_us = moment_us(fields[reader.time_field], f"event.{reader.time_field}")
        completed = self._ctx.views.complete((champion.model, champion.view_version), fields, time_us)
        if completed is None:
            raise refused(503, f"The online view of {champion.model} is not here yet.", "Try again, or send features.")
        return completed, event_id, completed.at_us if time_us is None else time_us

    # -- /v2 ----------------------------------------------------------------------------------------------------------

    async def _infer(
        self, champion: Champion, body: bytes, headers: dict[bytes, bytes]
    ) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        raw = memoryview(b"")
        size = headers.get(_JSON_SIZE)
        if size is not None:
            if not size.isdigit() or not 0 < int(size) <= len(body):
                fix = "Send the size of the JSON part; a body of tensors alone is not taken."
                raise refused(400, f"Inference-Header-Content-Length is {shown(size.decode('latin-1'))}.", fix)
            raw, body = memoryview(body)[int(size) :], body[: int(size)]
        request = parse_infer(_parsed(body), raw, champion.rows.names, champion.rows.index)
        self._check_rows(len(request.rows), "inputs")
        values: list[Row] = [[None if v != v else v for v in row] for row in request.rows.tolist()]
        matrix = request.rows.astype(np.float32)
        ids, scores = await self._record(champion, values, matrix, request.event_id, None, headers, None)
        found: dict[str, Any] = {"score": scores, "prediction_id": [prediction_id for prediction_id, _ in ids]}
        if champion.threshold is not None:
            found["decision"] = [_decision(champion, score) for score in scores]
        head = {
            "model_name": champion.model,
            "model_version": str(champion.version),
            "parameters": {"epoch": champion.epoch},
        }
        content, json_size = answer(head, request, found)
        if json_size is None:
            return content, [_JSON]
        return content, [_BINARY, (_JSON_SIZE, b"%d" % json_size)]

    # -- both ---------------------------------------------------------------------------------------------------------

    def _check_rows(self, count: int, field: str) -> None:
        if count > self._max_rows:
            fix = f"Send at most {self._max_rows} rows at once."
            raise refused(413, f"{field} has {count} rows.", fix, field)

    async def _record(
        self,
        champion: Champion,
        rows: Sequence[Row],
        matrix: np.ndarray[Any, np.dtype[np.float32]],
        event_id: str | None,
        time_us: int | None,
        headers: Mapping[bytes, bytes],
        position: dict[str, int] | None,
    ) -> tuple[list[tuple[str, str]], list[float]]:
        """Score the rows and record one prediction each; (prediction id, event id) and score of each. Raises Retry."""
        scores: list[float] = champion.predict(matrix).tolist()
        request_id = random_id()
        if time_us is None:
            folded_us = self._ctx.views.watermark_us((champion.model, champion.view_version))
            time_us = folded_us or self._runtime.clock.now_us()
        traceparent = _trace_of(headers) or new_traceparent(request_id, self._trace_ratio)
        span = None
        if self._runtime.tracing.enabled and traceparent.endswith("01"):
            span = self._runtime.tracing.start(f"predict {champion.model}", traceparent, SpanKind.SERVER)
            traceparent = Tracing.inject(span)
        cause = Cause(request_id, time_us, request_id, traceparent)
        stream = view_stream(champion.model, champion.view_version)
        ids: list[tuple[str, str]] = []
        outputs: list[Derived] = []
        for row, score in zip(rows, scores, strict=True):
            if not math.isfinite(score):
                raise Refused(500, "Internal error", f"Version {champion.version} gave no finite score for this row.")
            prediction_id = random_id()
            of = event_id or prediction_id
            payload = request_prediction(champion, of, score, row, position)
            outputs.append(Derived(payload, cause, id=prediction_id, stream=stream))
            ids.append((prediction_id, of))
        try:
            await self._runtime.record(outputs)
        finally:
            if span is not None:
                span.end()
        return ids, scores


def _decision(champion: Champion, score: float) -> bool | None:
    return None if champion.threshold is None else score >= champion.threshold


def _trace_of(headers: Mapping[bytes, bytes]) -> str | None:
    given = headers.get(b"traceparent")
    if given is None:
        return None
    text = given.decode("latin-1")
    return text if _TRACEPARENT(text) else None


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise refused(
            400, f"The body is not JSON: {error}.", "Send one JSON object; NaN and Infinity are not JSON."
        ) from None
    if type(found) is not dict:
        raise refused(400, f"The body is {shown(found)}.", "Send one JSON object.")
    if b"\\u0000" in body and _NUL.search(body):
        raise refused(400, "The body holds the character U+0000.", "Leave it out.")
    return found


async def _body(receive: Receive, headers: Mapping[bytes, bytes]) -> bytes:
    if headers.get(b"content-encoding", b"identity") != b"identity":
        raise Refused(415, "Unsupported encoding", "The body is compressed.", fix="Send it as it is.")
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == _DISCONNECTED:
            raise _Gone
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise Refused(
                413,
                "Body too large",
                f"The body is larger than {MAX_BODY_BYTES} bytes.",
                fix="Send fewer rows at once.",
            )
        if not message.get("more_body", False):
            return chunk if not chunks else b"".join((*chunks, chunk))
        chunks.append(chunk)


def _refusal(error: Refused, is_v2: bool) -> tuple[int, bytes, list[tuple[bytes, bytes]]]:
    extra = [(b"retry-after", b"1")] if error.status == 503 else []
    if error.status == 401:
        extra = [(b"www-authenticate", b"Bearer")]
    if is_v2:
        text = f"{error.detail} {error.fix}" if error.fix else error.detail
        return error.status, orjson.dumps({"error": text}), [_JSON, *extra]
    body = {"type": "about:blank", "title": error.title, "status": error.status, "detail": error.detail}
    body |= {key: value for key, value in (("field", error.field), ("fix", error.fix)) if value is not None}
    return error.status, orjson.dumps(body), [_PROBLEM, *extra]


class _ErrorsOfTheProtocol:
    """Turns an error of the framework below /v2 into the protocol's `{"error": …}`."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._held: dict[str, Any] | None = None
        self._body = b""

    async def __call__(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._held = message
        elif self._held is None:
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body", False):
                await self._send_error(self._held)

    async def _send_error(self, start: dict[str, Any]) -> None:
        try:
            found = orjson.loads(self._body)
            text = " ".join(str(found[key]) for key in ("detail", "fix") if found.get(key)) or "failed"
        except (orjson.JSONDecodeError, TypeError, AttributeError):
            text = self._body.decode("utf-8", "replace") or "failed"
        content = orjson.dumps({"error": text})
        kept = [(k, v) for k, v in start["headers"] if k.lower() not in (b"content-type", b"content-length")]
        headers = [*kept, _JSON, (b"content-length", b"%d" % len(content))]
        await self._send({**start, "headers": headers})
        await self._send({"type": "http.response.body", "body": content})
