"""The catalogue, door by door: each bad one gets its named error, changes nothing, and stops nobody else."""

from __future__ import annotations

import base64
import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import anyio.to_thread
import httpx2
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evenkeel.contracts.ingest import EventAccepted, EventRejected
from evenkeel.contracts.registry import GateDecided, ModelDeclared
from evenkeel.contracts.runtime import RecordDeadLettered
from evenkeel.contracts.topics import BY_NAME
from evenkeel.libs.features import read_model
from evenkeel.libs.fields import Rule
from evenkeel.libs.keys import signing_key
from evenkeel.libs.packages.manifest import canonical_json
from evenkeel.libs.packages.package import PackageRef
from evenkeel.libs.packages.signature import sign_manifest
from tests.hostile.catalogue import (
    CALLS,
    DECLARATIONS,
    EVENTS,
    FORGED,
    MODEL,
    NOW,
    PREDICT,
    RECORDS,
    SECRETS,
    STREAM,
    Forged,
    order,
)
from tests.hostile.conftest import AT, DECLARATION, System, run_of
from tests.running import Producer, eventually, publish_events, read_topic
from tests.tiny_packages import tiny_package

pytestmark = pytest.mark.anyio
RAW = "shop.orders"


def test_the_catalogue_is_whole() -> None:
    """Every service's door, every rule of a rejection, and no name twice."""
    assert {call.service for call in CALLS} == {
        *("ingest", "feature", "trainer", "registry", "serving", "monitor", "governance")
    }
    rules = set(get_args(Rule))
    assert {record.rule for record in RECORDS} == rules
    for names in ([r.name for r in RECORDS], [c.name for c in CALLS], [d[0] for d in DECLARATIONS]):
        assert len(names) == len(set(names))
    assert len(RECORDS) + len(CALLS) + len(DECLARATIONS) + len(FORGED) + len(PACKAGES) > 200


# -- raw topics ----------------------------------------------------------------------------------------------------------


async def test_bad_records_are_rejected_and_kept_while_good_ones_go_on(system: System) -> None:
    await system.good()
    async with Producer(system.broker) as producer:
        await producer.send(RAW, order("good-0", ordered_at=NOW), partition=0)

        async def first() -> bool:
            return any(e.data.event_id == "good-0" for e in await system.events(EventAccepted))

        await eventually(first, "the order that is contradicted later")
        before = await system.at_rest()
        known = len(await system.events(EventRejected))
        places, good = [], 0
        for number, bad in enumerate(RECORDS):
            places.append(await producer.send(RAW, bad.sent, key=bad.key, partition=0, headers=bad.headers))
            if number % 5 == 0:
                await producer.send(RAW, order(f"between-{number}", ordered_at=NOW), partition=0)
                good += 1

        async def rejected() -> list[Any] | None:
            found = (await system.events(EventRejected))[known:]
            return found if len(found) >= len(RECORDS) else None

        events = await eventually(rejected, "every rejection")
    for event, bad, (partition, offset) in zip(events, RECORDS, places, strict=True):
        data = event.data
        assert (bad.name, data.rule, data.field) == (bad.name, bad.rule, bad.field), data.reason
        assert bad.fix in data.fix, (bad.name, data.fix)
        assert data.reason
        assert (data.raw.topic, data.raw.partition, data.raw.offset) == (RAW, partition, offset)
        assert data.raw.sha256 == hashlib.sha256(bad.sent or b"").hexdigest()
        assert (data.original_value, data.original_key) == (_base64(bad.sent), _base64(bad.key)), bad.name
        assert tuple((name, base64.b64decode(v)) for name, v in data.original_headers) == bad.headers
        assert not [word for word in SECRETS if word in data.reason + data.fix], bad.name
    await system.good()
    after = await system.at_rest()
    counted = [state["ingest/v1/streams"]["streams"][0]["events"]["accepted"] for state in (before, after)]
    assert counted[1] - counted[0] == good + 1
    assert before["registry/v1/models/order-returned/champion"] == after["registry/v1/models/order-returned/champion"]


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


# -- HTTP ----------------------------------------------------------------------------------------------------------------


async def test_bad_calls_name_the_field_and_the_fix_and_change_nothing(system: System) -> None:
    await system.good()
    (declared,) = [e.data for e in await system.events(ModelDeclared)]
    others = {
        name: 1 for name in read_model(declared.name, declared.spec, declared.streams).plan.names if name != "amount"
    }
    before, offsets = await system.at_rest(), await ends(system)
    wrong: list[str] = []
    for bad in CALLS:
        call = dict(bad.call)
        if "json" in call:
            call["json"] = _with_features(call["json"], others)
        async with system.client(bad.service) as http:
            answer = await http.request(bad.method, bad.path, **call)
        try:
            refused_well(bad.name, answer, bad.status, bad.field, bad.says)
        except AssertionError as error:
            wrong.append(f"{bad.name}: {answer.status_code} {answer.text[:300]} {error}")
    assert not wrong, "\n".join(wrong)
    assert await system.at_rest() == before
    assert await ends(system) == offsets, "nothing was published"
    await system.good()


def refused_well(name: str, answer: httpx2.Response, status: int, field: str | None, says: str) -> None:
    assert answer.status_code == status, (name, answer.text)
    assert not [word for word in SECRETS if word in answer.text], (name, answer.text)
    body = answer.json()
    if "/v2" in str(answer.url):
        assert list(body) == ["error"], name
        assert says in body["error"], (name, body)
        return
    assert answer.headers["content-type"] == "application/problem+json", name
    assert (body["status"], bool(body["title"]), bool(body["detail"])) == (status, True, True)
    assert (name, body.get("field")) == (name, field), body
    assert body["fix"], (name, body)
    assert says in answer.text.encode().decode("unicode_escape", "replace") or says in str(body), (name, body)


def _with_features(content: Any, others: dict[str, int]) -> Any:
    """The other features of the model, wherever a row has some and is not meant to be without."""
    if not isinstance(content, dict):
        return content
    content = dict(content)
    if content.get("features"):
        content["features"] = others | content["features"]
    if isinstance(content.get("instances"), list):
        content["instances"] = [others | one if isinstance(one, dict) else one for one in content["instances"]]
    return content


async def ends(system: System) -> dict[str, int]:
    """Records on each topic that a call could have written to."""
    topics = [RAW, "shop.returns", "serving.prediction-made.v1", "registry.champion-changed.v1"]
    topics += ["registry.stream-declared.v1", "registry.model-declared.v1", "trainer.retrain-decided.v1"]
    return {topic: len(await read_topic(system.broker, topic)) for topic in topics}


async def test_bad_declarations_name_the_line_and_change_nothing(system: System) -> None:
    before, offsets = await system.at_rest(), await ends(system)
    async with system.client("registry") as http:
        for name, spoil, field, says in DECLARATIONS:
            answer = await http.post("/v1/declarations", content=spoil(DECLARATION), timeout=60)
            assert answer.status_code in (413, 422), (name, answer.text)
            assert not [word for word in SECRETS if word in answer.text], (name, answer.text)
            body = answer.json()
            problems = body.get("problems") or [{"line": 1, "message": body["detail"], **body}]
            found = [(p["field"], f"{p['message']}; {p['fix']}") for p in problems]
            assert any(field == where and says in text for where, text in found), (name, found)
            assert all(p["line"] >= 1 and p["fix"] for p in problems), name
    assert await system.at_rest() == before
    assert await ends(system) == offsets


# -- packages ------------------------------------------------------------------------------------------------------------


def _resigned(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """What a hostile holder of the trainer's key could sign."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    change(manifest)
    content = canonical_json(manifest)
    (folder / "manifest.json").write_bytes(content)
    hexadecimal = hashlib.sha256(content).hexdigest()
    key = signing_key(folder.parents[2] / "keys", "trainer")
    (folder / "signature.json").write_bytes(sign_manifest(hexadecimal, MODEL, AT, key))
    return folder.rename(folder.with_name(hexadecimal))


def _exchanged(folder: Path, name: str, content: bytes) -> Path:
    (folder / name).write_bytes(content)
    record = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}
    return _resigned(folder, lambda manifest: manifest["files"].update({name: record}))


def _one_byte(folder: Path) -> Path:
    content = bytearray((folder / "model.onnx").read_bytes())
    content[-1] ^= 1
    (folder / "model.onnx").write_bytes(bytes(content))
    return folder


def _removed(name: str) -> Callable[[Path], Path]:
    def remove(folder: Path) -> Path:
        (folder / name).unlink()
        return folder

    return remove


def _added(name: str, content: bytes) -> Callable[[Path], Path]:
    def add(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder

    return add


PACKAGES: list[tuple[str, Callable[[Path], Path], str]] = [
    ("one bit of the model", _one_byte, "was altered"),
    ("another folder's name", lambda folder: folder.rename(folder.with_name("0" * 63 + "1")), "was altered"),
    ("no signature", _removed("signature.json"), "only signed packages"),
    ("a signature of nobody", _added("signature.json", b"{}"), "DSSE"),
    ("no model", _removed("model.onnx"), "is missing"),
    ("a pickle beside it", _added("model.pkl", pickle.dumps(print)), "model.pkl"),
    ("a pickle inside", lambda folder: _exchanged(folder, "model.onnx", pickle.dumps(print)), "ModelUnloadable"),
    ("external data", lambda folder: _exchanged(folder, "model.onnx", b"location"), "outside the package"),
    (
        "a file elsewhere",
        lambda folder: _resigned(folder, lambda m: m["files"].update({"../../../keys/x": m["files"]["model.onnx"]})),
        "ManifestInvalid",
    ),
    ("other golden rows", lambda folder: _exchanged(folder, "golden.json", b'{"rows": "x"}'), "golden.json"),
    ("a manifest of another kind", lambda folder: _resigned(folder, dict.clear), "another version"),
]


async def test_bad_packages_fail_their_gate_and_the_champion_stays(system: System) -> None:
    (declared,) = [e.data for e in await system.events(ModelDeclared)]
    names = read_model(declared.name, declared.spec, declared.streams).plan.names
    champion = await system.get("registry", f"/v1/models/{MODEL}/champion")
    runs = []
    for number, (_, spoil, _) in enumerate(PACKAGES):
        fields = {"model": MODEL, "view_version": declared.view_version, "features": names, "run_id": f"bad-{number}"}
        estimator = "hist_gradient_boosting" if number in (6, 7) else "logistic"
        ref = tiny_package(system.folder / "artifacts", system.folder / "keys", estimator, **fields)
        folder = spoil(system.folder / ref.uri)
        ref = PackageRef(f"sha256:{folder.name}", f"artifacts/sha256/{folder.name}", ref.size_bytes)
        runs.append((run_of(ref, declared.view_version, f"bad-{number}"), {"time": AT}))
    await publish_events(system.broker, "trainer", runs)

    async def decided() -> dict[str, GateDecided] | None:
        gates = {e.data.run_id: e.data for e in await system.events(GateDecided) if e.data.gate == "golden_rows"}
        return gates if len([run for run in gates if run.startswith("bad-")]) == len(PACKAGES) else None

    gates = await eventually(decided, "a verdict on each")
    for number, (name, _, says) in enumerate(PACKAGES):
        gate = gates[f"bad-{number}"]
        assert (name, gate.passed) == (name, False)
        assert says in gate.detail, (name, gate.detail)
        assert not [word for word in SECRETS if word in gate.detail], (name, gate.detail)
    assert await system.get("registry", f"/v1/models/{MODEL}/champion") == champion
    await system.good()


# -- our own topics, written by a stranger ---------------------------------------------------------------------------------


async def test_forged_records_become_dead_letters_and_stop_nobody(system: System) -> None:
    await system.good()
    real = {name: await _real(system, name) for name in {forged.topic for forged in FORGED}}
    champion = await system.get("registry", f"/v1/models/{MODEL}/champion")
    sent: list[tuple[Forged, int, int, bytes | None, list[tuple[str, bytes]]]] = []
    async with Producer(system.broker) as producer:
        for number, forged in enumerate(FORGED):
            payload, headers = real[forged.topic]
            payload = payload | ({"event_id": f"forged-{number}"} if "event_id" in payload else {}) | forged.changes
            value = json.dumps(payload).encode() if forged.value == b"" else forged.value
            kept = {**headers, "ce_id": b"forged-%d" % number, **forged.headers}
            given = [(name, found) for name, found in kept.items() if found is not None]
            partition, offset = await producer.send(forged.topic, value, key=b"\xff", headers=given)
            sent.append((forged, partition, offset, value, given))
            if number % 8 == 0:
                await system.good()
    await system.good()
    await system.good()

    async def letters() -> dict[tuple[str, str, int, int], RecordDeadLettered] | None:
        found = {}
        for service in ("feature", "trainer", "registry", "serving", "monitor"):
            for event in await system.events(RecordDeadLettered, f"{service}.record-dead-lettered.v1"):
                found[service, event.data.topic, event.data.partition, event.data.offset] = event.data
        wanted = sum(len(_readers(forged)) for forged in FORGED)
        return found if len(found) >= wanted else None

    found = await eventually(letters, "a dead letter at each reader")
    for forged, partition, offset, value, headers in sent:
        for service in _readers(forged):
            letter = found[service, forged.topic, partition, offset]
            assert forged.reason in letter.reason, (forged.name, service, letter.reason)
            if "too many to be kept" in forged.reason:
                assert (letter.value, letter.headers) == (None, [])
                continue
            assert (letter.value, letter.key) == (_base64(value), _base64(b"\xff")), forged.name
            assert [(name, base64.b64decode(text)) for name, text in letter.headers] == headers
    assert await system.get("registry", f"/v1/models/{MODEL}/champion") == champion
    vectors = {e.data.event_id for e in await system.events(BY_NAME["feature.vector-computed.v1"].payload)}
    assert not [name for name in vectors if name.startswith("forged") and name not in _vectors_forged()]


def _readers(forged: Forged) -> list[str]:
    return [service for service in BY_NAME[forged.topic].consumers if service != "governance"]


def _vectors_forged() -> set[str]:
    return {f"forged-{n}" for n, forged in enumerate(FORGED) if forged.topic == "feature.vector-computed.v1"}


async def _real(system: System, topic: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A record as its service wrote it, but for what marks it as that service's own."""
    if topic == "monitor.drift-detected.v1":
        payload: dict[str, Any] = {"model": MODEL, "detector": "psi", "epoch": 1, "version": 1, "window_start": AT}
        payload |= {"window_end": AT, "effect": 1.0, "significance": 0.1, "n": 1, "features": [], "detail": ""}
        return payload, _headers(topic)
    kind = f"io.evenkeel.{topic}".encode()
    records = [r for r in await read_topic(system.broker, topic) if dict(r.headers).get("ce_type") == kind]
    payload = orjson.loads(records[-1].value)
    given = dict(records[-1].headers)
    return payload, _headers(topic) | {name: given[name] for name in ("ce_stream", "ce_time") if name in given}


def _headers(topic: str) -> dict[str, bytes]:
    kind = f"io.evenkeel.{topic}".encode()
    return {"ce_specversion": b"1.0", "ce_source": b"/stranger", "ce_type": kind, "ce_time": NOW.encode()}


# -- generated -------------------------------------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def _mutated(good: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """A valid one with a member exchanged, or its bytes cut or changed."""
    whole = json.dumps(good).encode()
    exchanged = st.tuples(st.sampled_from(sorted(good)), JSON).map(
        lambda pair: json.dumps(good | dict([pair])).encode()
    )
    cut = st.integers(0, len(whole)).map(lambda at: whole[:at])
    changed = st.tuples(st.integers(0, len(whole) - 1), st.binary(min_size=1, max_size=3)).map(
        lambda pair: whole[: pair[0]] + pair[1] + whole[pair[0] + 1 :]
    )
    return exchanged | cut | changed


def _bodies(good: dict[str, Any]) -> st.SearchStrategy[bytes]:
    return st.binary(max_size=64) | JSON.map(lambda value: json.dumps(value).encode()) | _mutated(good)


PROFILE = settings(
    max_examples=120, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def _tried(url: str, token: str, path: str, good: dict[str, Any]) -> list[tuple[bytes, int]]:
    """Each generated body with the status of its answer."""
    tried: list[tuple[bytes, int]] = []
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    with httpx2.Client(base_url=url, headers=headers, timeout=30) as http:

        @PROFILE
        @given(_bodies(good))
        def attempt(content: bytes) -> None:
            answer = http.post(path, content=content)
            assert answer.status_code < 500, (content, answer.text)
            assert not [word for word in SECRETS if word in answer.text], (content, answer.text)
            if answer.status_code >= 400:
                assert answer.headers["content-type"] == "application/problem+json"
                assert answer.json()["fix"], (content, answer.text)
            tried.append((content, answer.status_code))

        attempt()
    return tried


async def test_generated_records_have_one_outcome_each_at_both_doors(system: System) -> None:
    await system.good()
    await system.at_rest()
    good = order("generated", ordered_at=NOW, items=1, gift=True, promised=NOW)
    url = system.services["ingest"].url
    tried = await anyio.to_thread.run_sync(_tried, url, system.everything, EVENTS, good)
    assert {status for _, status in tried} == {202, 422}
    before = await _outcomes(system)
    async with Producer(system.broker) as producer:
        for content, _ in tried:
            await producer.send(RAW, content)

    async def all_of_them() -> bool:
        return await _outcomes(system) == before + len(tried)

    await system.good()
    before += 1
    await eventually(all_of_them, "an outcome for each")


async def _outcomes(system: System) -> int:
    state = (await system.at_rest())["ingest/v1/streams"]["streams"][0]["events"]
    return int(state["accepted"]) + sum(state["rejected"].values())


async def test_generated_requests_are_answered_or_refused(system: System) -> None:
    (declared,) = [e.data for e in await system.events(ModelDeclared)]
    row = dict.fromkeys(read_model(declared.name, declared.spec, declared.streams).plan.names, 1.5)
    url = system.services["serving"].url
    for good in ({"features": row, "event_id": "g", "event_time": NOW}, {"event": order("g", ordered_at=NOW)}):
        tried = await anyio.to_thread.run_sync(_tried, url, system.everything, PREDICT, good)
        assert {status for _, status in tried} >= {400, 422}
    await system.good()
    assert STREAM in str(await system.state())
