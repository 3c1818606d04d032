"""Ingest against a real broker: what becomes of each raw record, from Kafka and from HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import orjson
import pytest

from evenkeel.apps.broker.embedded import EmbeddedKafka
from evenkeel.contracts.declaration import StreamSpec
from evenkeel.contracts.envelope import CLOCK_TYPE, HEARTBEAT_HEADER, Event, attributes_of, parse_us
from evenkeel.contracts.ingest import EventAccepted, EventRejected, LabelAccepted
from evenkeel.contracts.registry import StreamDeclared
from evenkeel.contracts.runtime import ClockAdvanced
from evenkeel.services.ingest.service import service
from evenkeel.services.ingest.settings import IngestSettings
from tests.running import Producer, Running, eventually, publish_events, read_events, read_topic, running, write_token

pytestmark = pytest.mark.anyio


def spec(name: str, **changes: Any) -> StreamSpec:
    return StreamSpec.model_validate(
        {
            "topic": f"{name}.raw",
            "id": "order_id",
            "time": "ordered_at",
            "fields": {
                "channel": {"type": "category", "values": ["web", "store"], "required": True},
                "amount": {"type": "number", "min": 0},
            },
            "label": {
                "topic": f"{name}.labels",
                "id": "return_id",
                "joins": "order_id",
                "time": "decided_at",
                "horizon": "3d",
                "fields": {"returned": {"type": "boolean", "required": True}},
            },
        }
        | changes
    )


async def declare(broker: str, name: str, **changes: Any) -> StreamSpec:
    declared = spec(name, **changes)
    await publish_events(
        broker, "registry", [(StreamDeclared.of(name=name, spec=declared), {"time": "2013-01-01T00:00:00Z"})]
    )
    return declared


@asynccontextmanager
async def ingest(broker: str, data_dir: Path, own: IngestSettings | None = None) -> AsyncIterator[Running]:
    async with running(service, broker, data_dir, own, http=True) as found:
        yield found


def order(order_id: str, at: str, **changes: Any) -> dict[str, Any]:
    return {"order_id": order_id, "ordered_at": at, "channel": "web", "amount": 5} | changes


async def accepted(broker: str, name: str) -> list[Event[EventAccepted]]:
    return [e for e in await read_events(broker, EventAccepted) if e.data.stream == name]


async def rejected(broker: str, name: str) -> list[Event[EventRejected]]:
    return [e for e in await read_events(broker, EventRejected) if e.data.stream == name]


def at_least(read: Callable[[str, str], Any], broker: str, name: str, count: int) -> Callable[[], Any]:
    async def check() -> Any:
        found = await read(broker, name)
        return found if len(found) >= count else None

    return check


async def watermarks(broker: str, topic: str, stream: str) -> dict[int, list[int]]:
    """Every watermark of a stream, in the order of each partition."""
    found: dict[int, list[int]] = {}
    for record in await read_topic(broker, topic):
        attributes = attributes_of(record.headers)
        if attributes["ce_type"] == CLOCK_TYPE.encode():
            times = ClockAdvanced.model_validate_json(record.value).times_us()
            if stream in times:
                found.setdefault(record.partition, []).append(times[stream])
    return found


async def described(found: Running, name: str, headers: dict[str, str]) -> dict[str, Any]:
    async with httpx2.AsyncClient(base_url=found.url, headers=headers) as client:
        answer = await client.get(f"/v1/streams/{name}")
        assert answer.status_code == 200, answer.text
        described: dict[str, Any] = answer.json()
        return described


def bearer(data_dir: Path) -> dict[str, str]:
    return {"Authorization": f"Bearer {write_token(data_dir, 'producer')}"}


# -- raw topics ----------------------------------------------------------------------------------------------------------


async def test_a_record_too_large_to_keep_is_rejected_and_referred_to(broker: str, tmp_path: Path) -> None:
    declared = await declare(broker, "large")
    value = b"x" * 900_000
    async with ingest(broker, tmp_path), Producer(broker) as producer:
        await producer.send(declared.topic, value, partition=0)
        (event,) = await eventually(at_least(rejected, broker, "large", 1), "the rejection")
    assert (event.data.rule, event.data.original_value) == ("size", None)
    assert event.data.raw.sha256 == hashlib.sha256(value).hexdigest()
    assert "too large to be kept" in event.data.reason


async def test_an_accepted_event_says_everything_about_its_origin(broker: str, tmp_path: Path) -> None:
    declared = await declare(broker, "origin")
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    value = orjson.dumps(order("o-1", "2013-01-01T06:00:00+01:00", unknown={"a": 1}))
    async with ingest(broker, tmp_path), Producer(broker) as producer:
        headers = [("traceparent", trace.encode())]
        place = await producer.send(declared.topic, value, partition=1, headers=headers)
        await producer.send(declared.topic, order("o-2", "2013-01-01T05:00:00Z"), headers=[("traceparent", b"00-no")])
        cloud_event = {"specversion": "1.0", "id": "o-3", "source": "/s", "type": "t", "time": "2013-01-01T05:00:00Z"}
        cloud_event |= {"data": {"channel": "store"}}  # type: ignore[dict-item]
        await producer.send(
            declared.topic, orjson.dumps(cloud_event), headers=[("content-type", b"application/cloudevents+json")]
        )
        events = {e.data.event_id: e for e in await eventually(at_least(accepted, broker, "origin", 3), "the events")}
    first, data = events["o-1"], events["o-1"].data
    assert data.fields == {
        "channel": "web",
        "amount": 5.0,
        "order_id": "o-1",
        "ordered_at": "2013-01-01T06:00:00+01:00",
    }
    assert first.time_us == parse_us("2013-01-01T05:00:00Z")
    assert (data.raw.topic, data.raw.partition, data.raw.offset) == (declared.topic, *place)
    assert data.raw.sha256 == hashlib.sha256(value).hexdigest()
    assert not data.late
    assert (first.traceparent, first.stream, first.causation_id) == (trace, "origin", f"{declared.topic}/1/{place[1]}")
    assert events["o-2"].traceparent is None, "nobody traces it"
    assert events["o-3"].data.fields["channel"] == "store"


async def test_labels_are_a_stream_of_their_own(broker: str, tmp_path: Path) -> None:
    declared = await declare(broker, "labelled")
    assert declared.label is not None
    label = {"return_id": "r-1", "order_id": "o-1", "decided_at": "2013-01-03T00:00:00Z", "returned": True}
    async with ingest(broker, tmp_path), Producer(broker) as producer:
        await producer.send(declared.topic, order("o-1", "2013-01-01T00:00:00Z"))
        await producer.send(declared.label.topic, label, partition=0)
        await producer.send(declared.label.topic, label | {"return_id": "r-2", "returned": None}, partition=0)

        async def labels(broker: str, name: str) -> list[Event[LabelAccepted]]:
            return [e for e in await read_events(broker, LabelAccepted) if e.data.stream == name]

        (found,) = await eventually(at_least(labels, broker, "labelled", 1), "the label")
        (refused,) = await eventually(at_least(rejected, broker, "labelled", 1), "the refused label")
    assert (found.data.label_id, found.data.event_id, found.data.fields["returned"]) == ("r-1", "o-1", True)
    assert (found.stream, found.time_us) == ("labelled#label", parse_us("2013-01-03T00:00:00Z"))
    assert (refused.data.kind, refused.data.rule, refused.data.field) == ("label", "missing", "returned")


async def test_a_new_declaration_counts_from_its_offset_on(broker: str, tmp_path: Path) -> None:
    declared = await declare(broker, "again")
    async with ingest(broker, tmp_path) as found, Producer(broker) as producer:
        await producer.send(declared.topic, order("o-1", "2013-01-01T00:00:00Z", channel="web"))
        await eventually(at_least(accepted, broker, "again", 1), "the first")
        fields = {"channel": {"type": "category", "values": ["fax"]}}
        await declare(broker, "again", fields=fields, topic="again.moved")

        async def moved() -> bool:
            return "again.moved" in found.runtime.context.partitions

        await eventually(moved, "the new topic")
        await producer.send("again.moved", {"order_id": "o-2", "ordered_at": "2013-01-01T00:00:00Z", "channel": "fax"})
        await producer.send("again.raw", order("o-3", "2013-01-01T00:00:00Z", channel="web"))
        events = {e.data.event_id: e.data for e in await eventually(at_least(accepted, broker, "again", 3), "all")}
    assert events["o-1"].declaration < events["o-2"].declaration
    assert events["o-3"].declaration == events["o-1"].declaration, "what is sent to the old topic is not lost"


# -- watermarks and ids over restarts ------------------------------------------------------------------------------------


async def test_watermarks_follow_the_slowest_partition_and_heartbeats(broker: str, tmp_path: Path) -> None:
    declared = await declare(broker, "marks", disorder="1h", lateness="2h")
    topic = "ingest.event-accepted.v1"
    nine, ten, noon = (parse_us(f"2013-01-01T{hour:02}:00:00Z") for hour in (9, 10, 12))
    async with ingest(broker, tmp_path), Producer(broker) as producer:
        await producer.send(declared.topic, order("a", "2013-01-01T11:00:00Z"), partition=0)
        await producer.send(declared.topic, order("b", "2013-01-01T10:00:00Z"), partition=1)

        async def at(wanted_us: int) -> bool:
            found = await watermarks(broker, topic, "marks")
            return len(found) == 3 and all(marks[-1] == wanted_us for marks in found.values())

        await eventually(lambda: at(nine), "10:00 less an hour of disorder, on every partition")
        await producer.heartbeat(declared.topic, "2013-01-01T12:00:00Z")
        await eventually(lambda: at(noon), "the heartbeat in full")
        await producer.send(declared.topic, order("c", "2013-01-01T10:00:00Z"), partition=0)
        await producer.send(declared.topic, order("d", "2013-01-01T09:59:59Z"), partition=1)
        events = {e.data.event_id: e for e in await eventually(at_least(accepted, broker, "marks", 3), "all three")}
        (refused,) = await eventually(at_least(rejected, broker, "marks", 1), "the one too late")
    assert (events["c"].data.late, events["c"].order_us, events["c"].time_us) == (True, noon, ten)
    assert (refused.data.event_id, refused.data.rule) == ("d", "too_late")
    for marks in (await watermarks(broker, topic, "marks")).values():
        assert marks == sorted(marks)
    assert HEARTBEAT_HEADER not in str([e.attributes for e in events.values()])


async def test_ids_and_watermarks_outlive_the_process(broker: str, tmp_path: Path) -> None:
    declared = await declare(broker, "restart")
    first, second = order("o-1", "2013-01-01T11:00:00Z"), order("o-2", "2013-01-01T10:00:00Z")
    async with ingest(broker, tmp_path), Producer(broker) as producer:
        await producer.send(declared.topic, first)
        await producer.heartbeat(declared.topic, "2013-01-01T12:00:00Z")
        await eventually(at_least(accepted, broker, "restart", 1), "the first")
    async with Producer(broker) as producer:
        await producer.send(declared.topic, first)
        await producer.send(declared.topic, first | {"amount": 7})
    headers = bearer(tmp_path)
    async with ingest(broker, tmp_path) as found, Producer(broker) as producer:
        repeats = await eventually(at_least(rejected, broker, "restart", 2), "duplicate and conflict")
        assert sorted(e.data.rule for e in repeats) == ["duplicate", "id_conflict"]
        assert (await described(found, "restart", headers))["events"]["watermark"] == "2013-01-01T12:00:00Z"
        await producer.send(declared.topic, second)
        late = await eventually(at_least(rejected, broker, "restart", 3), "what the watermark had passed")
        assert [e.data.rule for e in late if e.data.event_id == "o-2"] == ["too_late"]
        assert (await described(found, "restart", headers))["events"]["rejected"] == {
            "duplicate": 1,
            "id_conflict": 1,
            "too_late": 1,
        }
    assert len(await accepted(broker, "restart")) == 1


async def test_a_silent_partition_is_given_up_and_counted(broker: str, tmp_path: Path) -> None:
    declared = await declare(broker, "silent", wait="500ms")
    headers = bearer(tmp_path)
    async with ingest(broker, tmp_path) as found, Producer(broker) as producer:
        await producer.send(declared.topic, order("o-0", "2013-01-01T10:00:00Z"), partition=0)
        await producer.send(declared.topic, order("o-1", "2013-01-01T11:00:00Z"), partition=1)

        async def given_up() -> bool:
            return bool((await described(found, "silent", headers))["events"]["wait_expired"])

        await eventually(given_up, "partition 0 to be given up")
        state = (await described(found, "silent", headers))["events"]
        assert (state["wait_expired"], state["watermark"]) == (1, "2013-01-01T11:00:00Z")
        async with httpx2.AsyncClient(base_url=found.url) as client:
            metrics = (await client.get("/metrics")).text
        assert 'evenkeel_partition_waits_expired_total{service="ingest",stream="silent"} 1.0' in metrics

        async def told() -> bool:
            marks = await watermarks(broker, "ingest.event-accepted.v1", "silent")
            return [found[-1] for found in marks.values()] == [parse_us("2013-01-01T11:00:00Z")] * 3

        await eventually(told, "the watermark on every partition")
        await producer.send(declared.topic, order("o-2", "2013-01-01T11:30:00Z"), partition=0)
        await eventually(at_least(accepted, broker, "silent", 3), "the silent one speaking again")


# -- HTTP ----------------------------------------------------------------------------------------------------------------


async def test_http_takes_one_or_many_and_cloud_events(broker: str, tmp_path: Path) -> None:
    declared = await declare(broker, "http")
    headers = bearer(tmp_path)
    at = "2013-01-01T11:00:00Z"
    event = {"specversion": "1.0", "id": "h-4", "source": "/s", "type": "t", "time": at, "data": {"channel": "store"}}
    async with ingest(broker, tmp_path) as found:
        async with httpx2.AsyncClient(base_url=found.url, headers=headers) as client:
            url = "/v1/streams/http/events"
            one = await client.post(url, json=order("h-1", at))
            many = await client.post(url, json=[order("h-2", at), order("h-3", at)])
            structured = await client.post(
                url, content=orjson.dumps(event), headers={"Content-Type": "application/cloudevents+json"}
            )
            batch = await client.post(
                url,
                content=orjson.dumps([event | {"id": "h-5"}, event | {"id": "h-6"}]),
                headers={"Content-Type": "application/cloudevents-batch+json"},
            )
            binary = await client.post(
                url, json={"channel": "web"}, headers={"ce-id": "h-7", "ce-time": at, "ce-specversion": "1.0"}
            )
            again = await client.post(url, json=order("h-1", at))
            label = await client.post(
                "/v1/streams/http/labels",
                json={"return_id": "r", "order_id": "h-1", "decided_at": at, "returned": True},
            )
            beat = await client.post("/v1/streams/http/heartbeat", json={"time": "2013-01-01T12:00:00Z"})
            answers = [one, many, structured, batch, binary, again, label, beat]
            assert [a.status_code for a in answers] == [202] * 8, [a.text for a in answers]
            assert many.json() == {"stream": "http", "kind": "event", "accepted": 2}
            listed = (await client.get("/v1/streams")).json()
        events = await eventually(at_least(accepted, broker, "http", 7), "all seven")
        (repeat,) = await eventually(at_least(rejected, broker, "http", 1), "the repeat")

        async def at_noon() -> bool:
            return bool((await described(found, "http", headers))["events"]["watermark"] == "2013-01-01T12:00:00Z")

        await eventually(at_noon, "the heartbeat on both partitions")
    assert sorted(e.data.event_id for e in events) == [f"h-{n}" for n in range(1, 8)]
    assert (repeat.data.rule, repeat.data.event_id) == ("duplicate", "h-1")
    assert {e.data.raw.topic for e in events} == {declared.topic}
    assert "http" in [stream["stream"] for stream in listed["streams"]]


async def test_http_refuses_the_whole_request_and_names_every_fault(broker: str, tmp_path: Path) -> None:
    declared = await declare(broker, "door")
    headers = bearer(tmp_path)
    at = "2013-01-01T11:00:00Z"
    async with ingest(broker, tmp_path) as found, Producer(broker) as producer:
        await producer.send(declared.topic, order("d-0", at))
        await eventually(at_least(accepted, broker, "door", 1), "an event before")
        async with httpx2.AsyncClient(base_url=found.url, headers=headers) as client:
            url = "/v1/streams/door/events"
            items = [order("d-1", at), order("d-2", at, amount=-1), order("d-3", at, channel="fax"), order("d-0", "")]
            refused = await client.post(url, json=items)
            assert refused.status_code == 422
            assert refused.headers["content-type"] == "application/problem+json"
            errors = [(e["index"], e["id"], e["rule"], e["field"]) for e in refused.json()["errors"]]
            assert errors == [
                (1, "d-2", "range", "amount"),
                (2, "d-3", "category", "channel"),
                (3, "d-0", "event_time", "ordered_at"),
            ]
            assert all(e["reason"] and e["fix"] for e in refused.json()["errors"])
            for body, rule in [
                (b"{", "json"),
                (b"[]", "shape"),
                (b"5", "shape"),
                (b"[" + b"{}," * 3000 + b"{}]", "size"),
                (b"[" + b"[" * 500 + b"]" * 500 + b"]", "json"),
                (orjson.dumps(order("d-0", at, amount=9)), "id_conflict"),
                (orjson.dumps(order("d-9", "2014-01-01T00:00:00Z")), "too_far_ahead"),
            ]:
                answer = await client.post(url, content=body)
                assert (answer.status_code, answer.json()["errors"][0]["rule"]) == (422, rule), answer.text
            media = await client.post(url, content=b"a,b", headers={"Content-Type": "text/csv"})
            assert (media.status_code, media.json()["field"]) == (422, "Content-Type")
            unknown = await client.post("/v1/streams/doors/events", json=items[0])
            assert unknown.status_code == 404
            assert "door" in unknown.json()["detail"]
            assert (await client.post("/v1/streams/door/heartbeat", json={"time": "noon"})).status_code == 422
            assert (await client.get(url.removesuffix("/events"))).json()["events"]["accepted"] == 1
        async with httpx2.AsyncClient(base_url=found.url) as stranger:
            assert (await stranger.post(url, json=items[0])).status_code == 401
    assert sum(r.topic == declared.topic for r in await read_topic(broker, declared.topic)) == 1, "nothing was written"


async def test_http_without_a_broker_says_so_in_time_and_a_retry_is_safe(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    await declare(kafka.address, "outage")
    headers = bearer(tmp_path)
    sent = order("x-1", "2013-01-01T11:00:00Z")
    async with (
        ingest(kafka.address, tmp_path, IngestSettings(acknowledge_seconds=0.5)) as found,
        httpx2.AsyncClient(base_url=found.url, headers=headers, timeout=60) as client,
    ):
        kafka.kill()
        try:
            away = await client.post("/v1/streams/outage/events", json=sent)
        finally:
            kafka.start()
        assert (away.status_code, away.headers["retry-after"]) == (503, "1")
        assert away.headers["content-type"] == "application/problem+json"

        async def taken() -> bool:
            return (await client.post("/v1/streams/outage/events", json=sent)).status_code == 202

        await eventually(taken, "the broker to be back", 60)
        await eventually(at_least(accepted, kafka.address, "outage", 1), "the event", 60)
    assert len(await accepted(kafka.address, "outage")) == 1
    assert {e.data.rule for e in await rejected(kafka.address, "outage")} <= {"duplicate"}


async def test_what_was_rejected_is_listed_shown_and_sent_again_with_its_id(broker: str, tmp_path: Path) -> None:
    declared = await declare(broker, "redriven")
    headers = {"Authorization": f"Bearer {write_token(tmp_path, 'operator', 'producer')}"}
    bad, original = order("late-1", "2013-01-01T06:00:00Z", channel="fax"), [("x-trace", b"\x00\xff")]
    async with ingest(broker, tmp_path) as found, Producer(broker) as producer:
        await producer.send(declared.topic, order("good", "2013-01-01T05:00:00Z"), partition=0)
        await producer.send(declared.topic, order("good", "2013-01-01T05:00:00Z"), partition=0)
        sent = await producer.send(declared.topic, bad, key=b"\xffkey", partition=0, headers=original)
        await eventually(at_least(rejected, broker, "redriven", 2), "the rejections")
        async with httpx2.AsyncClient(base_url=found.url, headers=headers) as http:
            listed = (await http.get("/v1/rejected", params={"stream": "redriven"})).json()["rejected"]
            assert [(line["rule"], line["event_id"]) for line in listed] == [("category", "late-1")]
            repeats = (await http.get("/v1/rejected", params={"rule": "duplicate", "stream": "redriven"})).json()
            assert [line["event_id"] for line in repeats["rejected"]] == ["good"]
            number = listed[0]["number"]
            shown = (await http.get(f"/v1/rejected/{number}")).json()
            assert orjson.loads(shown["original_text"]) == bad
            assert (shown["raw"]["partition"], shown["raw"]["offset"]) == sent
            # The producer was right: the contract is widened, and the very same record is sent again.
            before = (await described(found, "redriven", headers))["events"]["declaration"]
            fields = declared.model_dump(mode="json", by_alias=True)["fields"]
            fields["channel"]["values"] = ["web", "store", "fax"]
            await declare(broker, "redriven", fields=fields)

            async def is_wider() -> bool:
                return bool((await described(found, "redriven", headers))["events"]["declaration"] > before)

            await eventually(is_wider, "the wider contract")
            again = (await http.post(f"/v1/rejected/{number}/redrive")).json()
            assert again["sent_to"] == {"topic": declared.topic, "partition": 0}
            events = await eventually(at_least(accepted, broker, "redriven", 2), "the redriven record")
            missing = await http.post("/v1/rejected/999999/redrive")
            assert missing.status_code == 404
            assert "evenkeel rejected list" in missing.json()["fix"]
    assert {event.data.event_id for event in events} == {"good", "late-1"}
    raw = await read_topic(broker, declared.topic)
    first, second = (r for r in raw if r.key == b"\xffkey")
    assert (first.value, first.partition, first.headers) == (second.value, second.partition, second.headers)
