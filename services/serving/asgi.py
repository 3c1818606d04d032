"""The hot paths as raw ASGI, in front of the framework: one body in, one answer out, recorded before it is given.

`POST /v1/models/{model}/predict` takes JSON of ours, `POST /v2/models/{model}[/versions/{version}]/infer` the Open
Inference Protocol. A request takes its champion once and answers by it, whatever is swapped meanwhile. Nothing here waits
for another service: the answer is given once its predictions are in the outbox, which is the spool while the broker is away.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson

from evenkeel.libs.errors import Refused, Retry
from evenkeel.libs.fields import shown
from evenkeel.libs.http.body import MAX_BODY_BYTES
from evenkeel.libs.http.tokens import Tokens
from evenkeel.libs.service import Host
from evenkeel.services.serving.context import ServingContext
from evenkeel.services.serving.domain.champions import Champion
from evenkeel.services.serving.domain.predict import parse_predict, written_predict
from evenkeel.services.serving.domain.requests import at_most, json_object, refused
from evenkeel.services.serving.domain.tensors import parse_infer, written_infer
from evenkeel.services.serving.recording import Recorder

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
Application = Callable[[Any, Any, Any], Awaitable[None]]
Fields = Mapping[bytes, bytes]
"""Header fields of a request, by their names in small letters."""
Answered = tuple[bytes, list[tuple[bytes, bytes]]]
"""The body of an answer, and the header fields that go with it."""

ROLE: Final = "client"
_JSON: Final = (b"content-type", b"application/json")
_PROBLEM: Final = (b"content-type", b"application/problem+json")
_BINARY: Final = (b"content-type", b"application/octet-stream")
_JSON_SIZE: Final = b"inference-header-content-length"
_TRACEPARENT: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}").fullmatch
_DISCONNECTED: Final = "http.disconnect"


class _Gone(Exception):
    """The client went away."""


class HotPath:
    """The ASGI application; everything that is not a hot path goes to `inner`."""

    def __init__(self, runtime: Host[ServingContext], inner: Application) -> None:
        self._runtime, self._inner, self._ctx = runtime, inner, runtime.context
        self._tokens = Tokens(runtime.settings.tokens)
        self._recorder, self._max_rows = Recorder(runtime), runtime.own.max_rows

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
        work: Callable[[Champion, bytes, Fields], Awaitable[Answered]],
        model: str,
        version: str | None,
        *,
        is_v2: bool,
    ) -> None:
        try:
            headers = dict(scope["headers"])
            if scope["method"] != "POST":
                raise Refused(405, "Method not allowed", f"{scope['method']} is not known here.", fix="Use POST.")
            self._tokens.require(headers.get(b"authorization", b""), ROLE)
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

    async def _predict(self, champion: Champion, body: bytes, headers: Fields) -> Answered:
        question, is_many = parse_predict(body, champion, self._ctx.views, self._max_rows)
        answers, ids = await self._recorder.answer(champion, question, _trace_of(headers))
        return written_predict(champion, answers, ids, is_many=is_many), [_JSON]

    async def _infer(self, champion: Champion, body: bytes, headers: Fields) -> Answered:
        json_bytes, raw = _parts(body, headers)
        request = parse_infer(json_object(json_bytes), raw, champion.rows.names, champion.rows.index)
        at_most(self._max_rows, len(request.rows), "inputs")
        answers, ids = await self._recorder.answer(champion, request.question(), _trace_of(headers))
        content, json_size = written_infer(champion, request, answers, ids)
        if json_size is None:
            return content, [_JSON]
        return content, [_BINARY, (_JSON_SIZE, b"%d" % json_size)]


def _parts(body: bytes, headers: Fields) -> tuple[bytes, memoryview]:
    """The JSON, and the tensors' bytes behind it."""
    size = headers.get(_JSON_SIZE)
    if size is None:
        return body, memoryview(b"")
    if not size.isdigit() or not 0 < int(size) <= len(body):
        fix = "Send the size of the JSON part; a body of tensors alone is not taken."
        raise refused(400, f"Inference-Header-Content-Length is {shown(size.decode('latin-1'))}.", fix)
    return body[: int(size)], memoryview(body)[int(size) :]


def _trace_of(headers: Fields) -> str | None:
    given = headers.get(b"traceparent")
    if given is None:
        return None
    text = given.decode("latin-1")
    return text if _TRACEPARENT(text) else None


async def _body(receive: Receive, headers: Fields) -> bytes:
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
