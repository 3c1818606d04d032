"""What a producer, a caller, a file or a stranger on our topics can do wrong, one row each, by the door that it comes to.

Fields of a declaration and files of a package have catalogues of their own (tests/unit/test_declaration.py,
tests/unit/packages), as have tensors and requests (tests/unit/serving); here is one of each kind, through the real door.
"""

from __future__ import annotations

import gzip
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

MODEL, STREAM = "order-returned", "orders"
NOW = "2013-02-10T12:00:00Z"
"""Event time while the catalogue is tried."""
SECRETS: Final = (
    "Traceback",
    'File "',
    "sqlite",
    "psycopg",
    "SELECT ",
    "INSERT ",
    "/services/",
    "/libs/",
    "/tmp/",
    ".db",
)
"""What no answer may hold."""


def order(order_id: str, **changes: Any) -> dict[str, Any]:
    return {"order_id": order_id, "ordered_at": NOW, "channel": "web", "amount": 5, "customer": "c-1"} | changes


def text(order_id: str, changed: str) -> bytes:
    """An order with one member written by hand."""
    return b'{"order_id":"%s","ordered_at":"%s","channel":"web",%s}' % (
        order_id.encode(),
        NOW.encode(),
        changed.encode("utf-8", "surrogatepass"),
    )


@dataclass(frozen=True)
class BadRecord:
    """A record on a raw topic: what its rejection says."""

    name: str
    value: bytes | dict[str, Any] | None
    rule: str
    field: str | None
    fix: str
    headers: tuple[tuple[str, bytes], ...] = ()
    key: bytes | None = b"\xffkey"

    @property
    def sent(self) -> bytes | None:
        return orjson.dumps(self.value) if isinstance(self.value, dict) else self.value


CE: Final = (("content-type", b"application/cloudevents+json"),)
RECORDS: Final = (
    BadRecord("not UTF-8", b"\xff\xfe", "encoding", None, "UTF-8"),
    BadRecord("UTF-16", "{}".encode("utf-16"), "encoding", None, "UTF-8"),
    BadRecord("latin-1", b'{"order_id": "caf\xe9"}', "encoding", None, "UTF-8"),
    BadRecord("U+0000 as it is", text("x", '"customer":"a\x00b"'), "encoding", None, "U+0000"),
    BadRecord("U+0000 escaped", text("x", '"customer":"a\\u0000b"'), "encoding", None, "U+0000"),
    BadRecord("half a surrogate pair", text("x", '"customer":"\\ud800"'), "encoding", None, "UTF-8"),
    BadRecord("compressed by hand", gzip.compress(b"{}"), "encoding", None, "UTF-8"),
    BadRecord("a pickle", pickle.dumps({"order_id": "x"}), "encoding", None, "UTF-8"),
    BadRecord("not JSON", b"{not json", "json", None, "valid JSON"),
    BadRecord("cut off", b'{"order_id": "x"', "json", None, "valid JSON"),
    BadRecord("two values", b"{} {}", "json", None, "valid JSON"),
    BadRecord("only spaces", b"   ", "json", None, "valid JSON"),
    BadRecord("empty", b"", "json", None, "valid JSON"),
    BadRecord("1,000 arrays deep", b"[" * 1000 + b"]" * 1000, "json", None, "flat"),
    BadRecord("10,000 objects deep", b'{"a":' * 10_000, "json", None, "flat"),
    BadRecord("33 deep in a field", text("x", '"customer":' + "[" * 33 + "]" * 33), "json", None, "flat"),
    BadRecord("no value", None, "shape", None, "JSON object"),
    BadRecord("an array", b"[1, 2]", "shape", None, "one JSON object"),
    BadRecord("a number", b"5", "shape", None, "one JSON object"),
    BadRecord("null", b"null", "shape", None, "one JSON object"),
    BadRecord("too large", b'{"note": "' + b"x" * 70_000 + b'"}', "size", None, "Leave out"),
    BadRecord("no id", {"ordered_at": NOW, "channel": "web"}, "identity", "order_id", "1 to 256"),
    BadRecord("empty id", order(""), "identity", "order_id", "1 to 256"),
    BadRecord("a number as id", order("x") | {"order_id": 7}, "identity", "order_id", "1 to 256"),
    BadRecord("an id of 257 characters", order("x" * 257), "identity", "order_id", "1 to 256 bytes"),
    BadRecord("an id of 129 characters in 258 bytes", order("é" * 129), "identity", "order_id", "1 to 256 bytes"),
    BadRecord("an id that rings the terminal's bell", order("x\a"), "identity", "order_id", "without control"),
    BadRecord("an id that colours the terminal", order("\x9b31mx"), "identity", "order_id", "without control"),
    BadRecord("a new line behind the id", order("x\n"), "identity", "order_id", "1 to 256"),
    BadRecord("field missing", {"order_id": "m", "ordered_at": NOW}, "missing", "channel", "Send channel"),
    BadRecord("field null", order("n", channel=None), "missing", "channel", "Send channel"),
    BadRecord("time missing", {"order_id": "m", "channel": "web"}, "missing", "ordered_at", "Send ordered_at"),
    BadRecord("text for a number", order("t", amount="5"), "type", "amount", "a JSON number"),
    BadRecord("true for a number", order("t", amount=True), "type", "amount", "a JSON number"),
    BadRecord("an object for a number", order("t", amount={"$gt": 0}), "type", "amount", "a JSON number"),
    BadRecord("beyond a double's integers", text("t", '"amount":9007199254740993'), "type", "amount", "exactly"),
    BadRecord("a fraction for an integer", order("t", items=1.5), "type", "items", "whole"),
    BadRecord(
        "a time that is an object",
        text("t", '"ordered_at":' + orjson.dumps({str(n): n for n in range(27)}).decode()),
        "event_time",
        "ordered_at",
        "RFC 3339",
    ),
    BadRecord(
        "a time that is a list",
        text("t", '"ordered_at":' + orjson.dumps([*"x" * 19, ".", *"x" * 6, "Z"]).decode()),
        "event_time",
        "ordered_at",
        "RFC 3339",
    ),
    BadRecord("beyond 64 bits", text("t", '"items":9223372036854775808'), "range", "items", "64 bits"),
    BadRecord("1 for true", order("t", gift=1), "type", "gift", "true or false"),
    BadRecord("a list for a text", order("t", customer=["c"]), "type", "customer", "as text"),
    BadRecord("a number for a time", order("t", promised=0), "type", "promised", "RFC 3339"),
    BadRecord("a day for a time", order("t", promised="2013-02-30T00:00:00Z"), "type", "promised", "RFC 3339"),
    BadRecord("below the range", order("r", amount=-1), "range", "amount", "between 0 and 100000"),
    BadRecord("above the range", order("r", amount=1e300), "range", "amount", "between 0 and 100000"),
    BadRecord("unknown category", order("c", channel="fax"), "category", "channel", "web, store"),
    BadRecord("misspelt category", order("c", channel="Web"), "category", "channel", "web, store"),
    BadRecord("NaN", text("f", '"amount":NaN'), "finite", "amount", "finite"),
    BadRecord("Infinity", text("f", '"amount":-Infinity'), "finite", "amount", "finite"),
    BadRecord("1e999", text("f", '"amount":1e999'), "finite", "amount", "finite"),
    BadRecord("NaN under a name of U+0000", text("f", '"\\u0000":NaN'), "finite", None, "finite"),
    BadRecord("a time in words", order("e", ordered_at="6 o'clock"), "event_time", "ordered_at", "RFC 3339"),
    BadRecord("a time without zone", order("e", ordered_at=NOW[:-1]), "event_time", "ordered_at", "RFC 3339"),
    BadRecord("epoch seconds", order("e", ordered_at=1360497600), "event_time", "ordered_at", "RFC 3339"),
    BadRecord("30th of February", order("e", ordered_at="2013-02-30T00:00:00Z"), "event_time", "ordered_at", "RFC"),
    BadRecord("year 9999", order("e", ordered_at="9999-12-31T23:59:59Z"), "event_time", "ordered_at", "happened"),
    BadRecord("year 1", order("e", ordered_at="0001-01-01T00:00:00Z"), "event_time", "ordered_at", "happened"),
    BadRecord("long ago", order("l", ordered_at="2012-12-01T00:00:00Z"), "too_late", None, "sooner"),
    BadRecord("far ahead", order("a", ordered_at="2013-06-01T00:00:00Z"), "too_far_ahead", None, "clock"),
    BadRecord("an id again, other content", order("good-0", amount=6), "id_conflict", None, "id of its own"),
    BadRecord("a repeat", order("good-0", unknown=1), "duplicate", None, "first one counts"),
    BadRecord("a CloudEvent that is none", b"[]", "shape", None, "CloudEvent", CE),
    BadRecord("CloudEvents 0.3", b'{"specversion":"0.3"}', "shape", "specversion", "1.0", CE),
    BadRecord("a CloudEvent of text", b'{"specversion":"1.0","data":"x"}', "shape", "data", "CloudEvent", CE),
    BadRecord("not Base64", b'{"specversion":"1.0","data_base64":"%"}', "encoding", "data_base64", "CloudEvent", CE),
    BadRecord("ce_id not UTF-8", b"{}", "encoding", "ce_id", "UTF-8", (("ce_id", b"\xff"),)),
    BadRecord(
        "heartbeat of words", None, "event_time", "evenkeel-heartbeat", "RFC", (("evenkeel-heartbeat", b"noon"),)
    ),
    BadRecord(
        "heartbeat not UTF-8", None, "event_time", "evenkeel-heartbeat", "RFC", (("evenkeel-heartbeat", b"\xff"),)
    ),
    BadRecord("200 headers", b"{", "json", None, "valid JSON", tuple((f"x-{n}", b"v" * 100) for n in range(200))),
    BadRecord("no key, huge header", b"{", "json", None, "valid JSON", (("x", b"\x00" * 100_000),), None),
)


@dataclass(frozen=True)
class BadCall:
    """A call: what its answer says."""

    name: str
    service: str
    method: str
    path: str
    status: int
    field: str | None
    says: str
    """A piece of the fix, or of the detail where the protocol has no fix."""
    call: Mapping[str, Any] = field(default_factory=dict)


EVENTS = f"/v1/streams/{STREAM}/events"
PREDICT, INFER = f"/v1/models/{MODEL}/predict", f"/v2/models/{MODEL}/infer"
APPROVALS, ROLLBACK = f"/v1/models/{MODEL}/approvals", f"/v1/models/{MODEL}/rollback"
LARGE: Final = {"content": b" " * 1_100_000}
WHO: Final = {"by": "me", "reason": "a freeze"}
ROW: Final = {"amount": 1}
"""The test fills in the model's other features."""
TENSOR: Final = {"name": "features", "shape": [1, 4], "datatype": "FP32", "data": [1, 1, 1, 1]}
APPROVAL: Final = {"nonce": "n", "package": "p", "approved": True, "approver": "me"}


def body(**content: Any) -> dict[str, Any]:
    return {"json": content}


CALLS: Final = (
    # ingest
    BadCall("no JSON", "ingest", "POST", EVENTS, 422, None, "valid JSON", {"content": b"{"}),
    BadCall("no body", "ingest", "POST", EVENTS, 422, None, "valid JSON"),
    BadCall("no records", "ingest", "POST", EVENTS, 422, None, "array with records", {"content": b"[]"}),
    BadCall("too many", "ingest", "POST", EVENTS, 422, None, "fewer", {"content": b"[" + b"{}," * 3000 + b"{}]"}),
    BadCall("deep", "ingest", "POST", EVENTS, 422, None, "flat", {"content": b"[" * 5000 + b"]" * 5000}),
    BadCall(
        "one of two", "ingest", "POST", EVENTS, 422, "amount", "range", {"json": [order("h"), order("i", amount=-1)]}
    ),
    BadCall(
        "CSV",
        "ingest",
        "POST",
        EVENTS,
        422,
        "Content-Type",
        "json",
        {"content": b"a", "headers": {"Content-Type": "text/csv"}},
    ),
    BadCall("huge", "ingest", "POST", EVENTS, 413, "body", "fewer", LARGE),
    BadCall("unknown stream", "ingest", "POST", "/v1/streams/order/events", 404, "stream", "Declare it"),
    BadCall("a path as stream", "ingest", "GET", "/v1/streams/..%2f..%2fkeys", 404, None, "openapi.json"),
    BadCall("U+0000 as stream", "ingest", "GET", "/v1/streams/a%00b", 422, "stream", "declared"),
    BadCall("an endless name", "ingest", "GET", "/v1/streams/" + "a" * 5000, 422, "stream", "declared"),
    BadCall(
        "heartbeat of words",
        "ingest",
        "POST",
        f"/v1/streams/{STREAM}/heartbeat",
        422,
        "time",
        "RFC 3339",
        body(time="noon"),
    ),
    BadCall(
        "heartbeat with more",
        "ingest",
        "POST",
        f"/v1/streams/{STREAM}/heartbeat",
        422,
        "x",
        "Correct",
        body(time=NOW, x=1),
    ),
    BadCall(
        "heartbeat of another kind",
        "ingest",
        "POST",
        f"/v1/streams/{STREAM}/heartbeat",
        422,
        "kind",
        "Correct",
        body(time=NOW, kind="x"),
    ),
    BadCall("wrong method", "ingest", "DELETE", EVENTS, 405, None, "POST"),
    # registry
    BadCall("huge rollback", "registry", "POST", ROLLBACK, 413, "body", "fewer", LARGE),
    BadCall(
        "rollback not UTF-8",
        "registry",
        "POST",
        ROLLBACK,
        400,
        "body",
        "UTF-8",
        {"content": b'{"reason": "\xff"}', "headers": {"content-type": "application/json"}},
    ),
    BadCall(
        "rollback not JSON",
        "registry",
        "POST",
        ROLLBACK,
        422,
        "body",
        "one JSON object",
        {"content": b"{", "headers": {"content-type": "application/json"}},
    ),
    BadCall(
        "rollback too deep",
        "registry",
        "POST",
        ROLLBACK,
        400,
        "body",
        "JSON",
        {"content": b"[" * 100_000, "headers": {"content-type": "application/json"}},
    ),
    BadCall("epoch of text", "registry", "POST", ROLLBACK, 422, "epoch", "Correct", body(epoch="two")),
    BadCall("epoch 0", "registry", "POST", ROLLBACK, 422, "epoch", "Correct", body(epoch=0)),
    BadCall("epoch beyond 64 bits", "registry", "POST", ROLLBACK, 422, "epoch", "Correct", body(epoch=2**63)),
    BadCall("U+0000 as reason", "registry", "POST", ROLLBACK, 422, "body", "Leave it out", body(reason="a\x00b")),
    BadCall("nothing to roll back to", "registry", "POST", ROLLBACK, 409, "model", "another version", body()),
    BadCall("rollback of an unknown model", "registry", "POST", "/v1/models/x/rollback", 404, "model", MODEL, body()),
    BadCall("unknown nonce", "registry", "POST", APPROVALS, 404, "nonce", "List", {"json": APPROVAL}),
    BadCall(
        "a nonce of SQL",
        "registry",
        "POST",
        APPROVALS,
        404,
        "nonce",
        "List",
        {"json": APPROVAL | {"nonce": "' OR 1=1 --"}},
    ),
    BadCall(
        "a list as nonce", "registry", "POST", APPROVALS, 422, "nonce", "Correct", {"json": APPROVAL | {"nonce": []}}
    ),
    BadCall(
        "nobody approves",
        "registry",
        "POST",
        APPROVALS,
        422,
        "approver",
        "Correct",
        {"json": APPROVAL | {"approver": ""}},
    ),
    BadCall(
        "U+0000 as nonce",
        "registry",
        "POST",
        APPROVALS,
        422,
        "body",
        "Leave it out",
        {"json": APPROVAL | {"nonce": "\x00"}},
    ),
    BadCall("unknown model", "registry", "GET", "/v1/models/x/versions", 404, "model", MODEL),
    BadCall("U+0000 as model", "registry", "GET", "/v1/models/%00", 422, "model", "declared"),
    # serving
    BadCall(
        "no token's bytes",
        "serving",
        "POST",
        PREDICT,
        401,
        "Authorization",
        "Bearer",
        {"headers": {"authorization": "Bearer x"}},
    ),
    BadCall("predict not JSON", "serving", "POST", PREDICT, 400, None, "JSON object", {"content": b"{"}),
    BadCall("predict NaN", "serving", "POST", PREDICT, 400, None, "NaN", {"content": b'{"features": NaN}'}),
    BadCall("predict deep", "serving", "POST", PREDICT, 400, None, "JSON object", {"content": b"[" * 5000}),
    BadCall("predict not UTF-8", "serving", "POST", PREDICT, 400, None, "JSON object", {"content": b"\xff"}),
    BadCall("predict a list", "serving", "POST", PREDICT, 400, None, "JSON object", {"content": b"[]"}),
    BadCall(
        "predict U+0000", "serving", "POST", PREDICT, 400, None, "Leave it out", {"content": b'{"event_id": "\\u0000"}'}
    ),
    BadCall("predict huge", "serving", "POST", PREDICT, 413, None, "fewer", LARGE),
    BadCall(
        "predict compressed",
        "serving",
        "POST",
        PREDICT,
        415,
        None,
        "as it is",
        {"content": b"x", "headers": {"content-encoding": "gzip"}},
    ),
    BadCall("predict nothing", "serving", "POST", PREDICT, 422, "features", "exactly one", body()),
    BadCall("predict both", "serving", "POST", PREDICT, 422, "features", "exactly one", body(features=ROW, event={})),
    BadCall("predict misspelt", "serving", "POST", PREDICT, 422, "feature", "features", body(feature=ROW)),
    BadCall(
        "predict an unknown feature",
        "serving",
        "POST",
        PREDICT,
        422,
        "features.x",
        "Leave it out",
        body(features=ROW | {"x": 1}),
    ),
    BadCall(
        "predict without a feature", "serving", "POST", PREDICT, 422, "features.amount", "as null", body(features={})
    ),
    BadCall(
        "predict text",
        "serving",
        "POST",
        PREDICT,
        422,
        "features.amount",
        "a number",
        body(features=ROW | {"amount": "1"}),
    ),
    BadCall(
        "predict 1e300",
        "serving",
        "POST",
        PREDICT,
        422,
        "features.amount",
        "float32",
        body(features=ROW | {"amount": 1e300}),
    ),
    BadCall("predict no instances", "serving", "POST", PREDICT, 422, "instances", "one or more", body(instances=[])),
    BadCall(
        "predict 7 as an instance", "serving", "POST", PREDICT, 422, "instances[1]", "object", body(instances=[ROW, 7])
    ),
    BadCall(
        "one id for many",
        "serving",
        "POST",
        PREDICT,
        422,
        "event_id",
        "Leave event_id",
        body(instances=[ROW], event_id="e"),
    ),
    BadCall("too many rows", "serving", "POST", PREDICT, 413, "instances", "at most", body(instances=[ROW] * 4)),
    BadCall(
        "event id with a new line",
        "serving",
        "POST",
        PREDICT,
        422,
        "event_id",
        "1 to 256",
        body(features=ROW, event_id="a\nb"),
    ),
    BadCall(
        "event time of words",
        "serving",
        "POST",
        PREDICT,
        422,
        "event_time",
        "RFC 3339",
        body(features=ROW, event_time="noon"),
    ),
    BadCall(
        "event without a field",
        "serving",
        "POST",
        PREDICT,
        422,
        "event.amount",
        "Send event.amount",
        body(event={"amount": "x"}),
    ),
    BadCall(
        "event out of range", "serving", "POST", PREDICT, 422, "event.amount", "between 0", body(event={"amount": -1})
    ),
    BadCall("event id of 7", "serving", "POST", PREDICT, 422, "event.order_id", "text", body(event={"order_id": 7})),
    BadCall(
        "predict for an unknown model",
        "serving",
        "POST",
        "/v1/models/unheard/predict",
        404,
        "model",
        MODEL,
        body(features=ROW),
    ),
    BadCall("predict by GET", "serving", "GET", PREDICT, 405, None, "POST"),
    BadCall(
        "infer without token",
        "serving",
        "POST",
        INFER,
        401,
        None,
        "token",
        body(inputs=[TENSOR]) | {"headers": {"authorization": "Bearer x"}},
    ),
    BadCall("infer by GET", "serving", "GET", INFER, 405, None, "POST"),
    BadCall("infer huge", "serving", "POST", INFER, 413, None, "fewer", LARGE),
    BadCall("infer nothing", "serving", "POST", INFER, 400, None, "inputs is []", body(inputs=[])),
    BadCall(
        "infer an unknown type",
        "serving",
        "POST",
        INFER,
        400,
        None,
        "FP16X",
        body(inputs=[TENSOR | {"datatype": "FP16X"}]),
    ),
    BadCall(
        "infer another shape", "serving", "POST", INFER, 400, None, "shape", body(inputs=[TENSOR | {"shape": [1, 5]}])
    ),
    BadCall(
        "infer a negative shape",
        "serving",
        "POST",
        INFER,
        400,
        None,
        "shape",
        body(inputs=[TENSOR | {"shape": [-1, -4]}]),
    ),
    BadCall(
        "infer a vast shape",
        "serving",
        "POST",
        INFER,
        400,
        None,
        "shape",
        body(inputs=[TENSOR | {"shape": [2**40, 4]}]),
    ),
    BadCall(
        "infer too many rows",
        "serving",
        "POST",
        INFER,
        413,
        None,
        "4 rows",
        body(inputs=[TENSOR | {"shape": [4, 4], "data": [1] * 16}]),
    ),
    BadCall(
        "infer a false header",
        "serving",
        "POST",
        INFER,
        400,
        None,
        "99999",
        body(inputs=[TENSOR]) | {"headers": {"inference-header-content-length": "99999"}},
    ),
    BadCall(
        "infer by an unknown version",
        "serving",
        "POST",
        f"/v2/models/{MODEL}/versions/9/infer",
        404,
        None,
        "'9'",
        body(inputs=[TENSOR]),
    ),
    BadCall(
        "infer by an unknown model",
        "serving",
        "POST",
        "/v2/models/unheard/infer",
        404,
        None,
        "'unheard'",
        body(inputs=[TENSOR]),
    ),
    BadCall("an unknown path of v2", "serving", "GET", "/v2/nothing", 404, None, "openapi.json"),
    BadCall("v2 by DELETE", "serving", "DELETE", "/v2", 405, None, "GET"),
    BadCall("the schema of an unknown model", "serving", "GET", "/v2/models/unheard", 404, None, "'unheard'"),
    BadCall(
        "an unknown version's readiness", "serving", "GET", f"/v2/models/{MODEL}/versions/9/ready", 404, None, "'9'"
    ),
    # trainer, feature, monitor, governance
    BadCall("train an unknown model", "trainer", "POST", "/v1/models/x/train", 404, "model", MODEL),
    BadCall(
        "pause an unknown model",
        "trainer",
        "POST",
        "/v1/models/x/pause",
        404,
        "model",
        MODEL,
        {"json": {"by": "a", "reason": "b"}},
    ),
    BadCall("runs of an unknown model", "trainer", "GET", "/v1/models/x/runs", 404, "model", MODEL),
    BadCall("datasets of an unknown model", "trainer", "GET", "/v1/models/x/datasets", 404, "model", MODEL),
    BadCall("view of an unknown model", "feature", "GET", "/v1/views/x", 404, "model", "Declare"),
    BadCall("limit of words", "feature", "GET", f"/v1/datasets/{MODEL}?limit=all", 422, "limit", "Correct"),
    BadCall("limit of -1", "feature", "GET", f"/v1/datasets/{MODEL}?limit=-1", 422, "limit", "Correct"),
    BadCall("windows of an unknown model", "monitor", "GET", "/v1/models/x/windows", 404, "model", "lists them"),
    BadCall("a window of words", "monitor", "GET", f"/v1/models/{MODEL}/windows?window=noon", 422, "window", "24h"),
    BadCall(
        "a vast window", "monitor", "GET", f"/v1/models/{MODEL}/drift?window=99999999999999d", 422, "window", "24h"
    ),
    BadCall(
        "a million windows",
        "monitor",
        "GET",
        f"/v1/models/{MODEL}/performance?limit=1000000",
        422,
        "limit",
        "Correct",
    ),
    BadCall("an unknown prediction", "governance", "GET", "/v1/lineage/predictions/none", 404, "id", "model"),
    BadCall("SQL as event", "governance", "GET", "/v1/events/x'%20OR%201=1", 404, "id", "outside id"),
    BadCall("U+0000 as event", "governance", "GET", "/v1/log/inclusion?event_id=%00", 422, "event_id", "declared"),
    BadCall("a champion at noon", "governance", "GET", f"/v1/models/{MODEL}/champion?at=noon", 422, "at", "RFC 3339"),
    BadCall("another clock", "governance", "GET", f"/v1/models/{MODEL}/champion?clock=moon", 422, "clock", "Correct"),
    BadCall(
        "a champion before all",
        "governance",
        "GET",
        f"/v1/models/{MODEL}/champion?at=1900-01-01T00:00:00Z",
        404,
        "at",
        "later",
    ),
    BadCall("history of an unknown model", "governance", "GET", "/v1/models/x/history", 404, "model", MODEL),
    BadCall("a leaf that is not there", "governance", "GET", "/v1/log/leaves/99999999", 404, "leaf", "from 0 to"),
    BadCall("a leaf of text", "governance", "GET", "/v1/log/leaves/x", 422, "leaf", "Correct"),
    BadCall("a vast leaf", "governance", "GET", "/v1/log/leaves/" + "9" * 40, 404, "leaf", "from 0 to"),
    BadCall("sizes turned round", "governance", "GET", "/v1/log/consistency?old=2&new=1", 422, "old", "0 < old"),
    BadCall("no leaf at all", "governance", "GET", "/v1/log/inclusion", 422, "leaf", "one of them"),
)


def declaring(old: str, new: str) -> Callable[[str], bytes]:
    return lambda good: good.replace(old, new, 1).encode("utf-8", "surrogatepass")


PERSONAL = "{type: string, personal: true}"
DECLARATIONS: Final[tuple[tuple[str, Callable[[str], bytes], str, str], ...]] = (
    # name, from a good file to a bad one, field, a piece of the answer
    ("not UTF-8", lambda good: b"\xff" + good.encode(), "body", "UTF-8"),
    ("empty", lambda good: b"", "", "empty"),
    ("not YAML", lambda good: b"streams: [", "", "not YAML"),
    ("a list", lambda good: b"[1]", "", "not a mapping"),
    ("100,000 deep", lambda good: b"streams: " + b"[" * 100_000, "", "nested too deeply"),
    ("a laugh of aliases", lambda good: b"a: &a [x]\nb: [*a, *a]", "", "anchors and aliases"),
    ("a Python object", declaring("string", "!!python/name:os.system x"), "streams.orders.fields.customer.type", "tag"),
    ("too large a file", lambda good: b"#" * 1_000_001, "", "larger than"),
    ("too large a body", lambda good: b"#" * 1_100_000, "body", "fewer"),
    ("a key twice", declaring("  orders:", "  orders: {}\n  orders:"), "streams.orders", "twice"),
    ("a misspelt key", declaring("topic:", "topc:"), "streams.orders.topc", "did you mean"),
    ("a personal field", declaring("{type: string}", PERSONAL), "streams.orders.fields.customer.personal", "not built"),
    ("a topic of ours", declaring("shop.orders", "registry.champion-changed.v1"), "streams.orders.topic", "own"),
    ("one topic for two", declaring("shop.returns", "shop.orders"), "streams.orders.label.topic", "also read by"),
    ("a path as topic", declaring("shop.orders", "../../etc/passwd"), "streams.orders.topic", "letters"),
    ("a path as model", declaring("order-returned:", "../x:"), "models.../x", "letters"),
    ("an endless window", declaring("over: [24h]", "over: [100d]"), "models.order-returned.features[1].over[0]", "90d"),
    ("an endless horizon", declaring("3d", "999999999d"), "streams.orders.label.horizon", "hundred years"),
    ("an unknown stream", declaring("stream: orders", "stream: order"), "models.order-returned.stream", "did you mean"),
    ("NaN as bound", declaring("min: 0", "min: .nan"), "streams.orders.fields.amount.min", "valid number"),
    ("code as label", declaring("label: returned", "label: __import__('os')"), "models.order-returned.label", "field op number"),
)  # fmt: skip


@dataclass(frozen=True)
class Forged:
    """A record that a stranger wrote on one of our topics, as a change of a real one: what its dead letter says."""

    name: str
    topic: str
    reason: str
    headers: Mapping[str, bytes | None] = field(default_factory=dict)
    """Exchanged, or left out (None)."""
    value: bytes | None = b""
    """Instead of the real one's; empty: that one."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the payload exchanged."""


ACCEPTED, MADE = "ingest.event-accepted.v1", "serving.prediction-made.v1"
DRIFT, VECTOR, RUN = "monitor.drift-detected.v1", "feature.vector-computed.v1", "trainer.run-completed.v1"
CLOCK = b"io.evenkeel.clock-advanced.v1"
FORGED: Final = (
    Forged("no envelope", ACCEPTED, "ce_id is missing", {"ce_id": None}),
    Forged("no source", ACCEPTED, "ce_source is missing", {"ce_source": None}),
    Forged("another specification", ACCEPTED, "expected 1.0", {"ce_specversion": b"0.3"}),
    Forged("another type", ACCEPTED, "this topic carries", {"ce_type": b"io.evenkeel.registry.champion-changed.v1"}),
    Forged("an unknown major", ACCEPTED, "this topic carries", {"ce_type": b"io.evenkeel.ingest.event-accepted.v9"}),
    Forged("an id not UTF-8", ACCEPTED, "ce_id is", {"ce_id": b"\xff"}),
    Forged("an id of U+0000", ACCEPTED, "ce_id is", {"ce_id": b"a\x00"}),
    Forged("a time in words", ACCEPTED, "RFC 3339", {"ce_time": b"noon"}),
    Forged("a time in 9999", ACCEPTED, "after 3100", {"ce_time": b"9999-12-31T23:59:59Z"}),
    Forged("an order in words", ACCEPTED, "RFC 3339", {"ce_ordertime": b"noon"}),
    Forged("an order in 9999", ACCEPTED, "after 3100", {"ce_ordertime": b"9999-12-31T23:59:59Z"}),
    Forged("a stream not UTF-8", ACCEPTED, "ce_stream is", {"ce_stream": b"\xff\xfe"}),
    Forged("a correlation of 10 kB", ACCEPTED, "at most", {"ce_correlationid": b"x" * 10_000}),
    Forged("a sequence beyond 64 bits", ACCEPTED, "2^63", {"ce_sequence": b"9" * 30}),
    Forged("a negative sequence", ACCEPTED, "expected digits", {"ce_sequence": b"-5"}),
    Forged("a clock without a value", ACCEPTED, "payload: value", {"ce_type": CLOCK}, value=None),
    Forged("a clock in words", ACCEPTED, "payload: watermarks", {"ce_type": CLOCK}, b'{"watermarks":{"a":"noon"}}'),
    Forged("a clock among facts", DRIFT, "this topic carries", {"ce_type": CLOCK}, b'{"watermarks":{}}'),
    Forged("no value", ACCEPTED, "payload: value", value=None),
    Forged("deep JSON", ACCEPTED, "payload: value", value=b'{"fields":' + b"[" * 50_000),
    Forged("a pickle", ACCEPTED, "payload: value", value=pickle.dumps(1)),
    Forged("larger than can be kept", ACCEPTED, "too many to be kept here", value=b"x" * 600_000),
    Forged("U+0000", ACCEPTED, "U+0000", value=b'{"stream": "\\u0000"}'),
    Forged("an unknown stream declaration", ACCEPTED, "unknown fact: stream declaration 999", changes={"declaration": 999}),
    Forged("a declaration beyond 64 bits", ACCEPTED, "payload: declaration", changes={"declaration": 2**63}),
    Forged("an unknown epoch", MADE, "unknown fact: champion of epoch 77", changes={"epoch": 77}),
    Forged("an epoch beyond 64 bits", MADE, "payload: epoch", changes={"epoch": 10**30}),
    Forged("a score of text", MADE, "payload: score", changes={"score": "high"}),
    Forged("a digest of a path", MADE, "payload: package", changes={"package": "sha256:../../keys"}),
    Forged("drift of an unknown model", DRIFT, "unknown fact: model nobody", changes={"model": "nobody"}),
    Forged("another type of drift", DRIFT, "this topic carries", {"ce_type": b"x"}),
    Forged("a vector of text", VECTOR, "payload: values", changes={"values": ["x"]}),
    Forged("a vector not UTF-8", VECTOR, "payload: value", value=b"\xff"),
    Forged("a vector with no time", VECTOR, "ce_time is missing", {"ce_time": None}),
    Forged("a run of a path", RUN, "payload: package", changes={"package": "sha256:../../../keys/trainer"}),
    Forged("a run with NaN", RUN, "payload: threshold", changes={"threshold": float("inf")}),
)  # fmt: skip
