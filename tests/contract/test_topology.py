"""Services and map agree exactly: each consumes what the map says, and publishes nothing else."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from evenkeel.contracts.ingest import RawRecord
from evenkeel.contracts.payload import Fact, Payload
from evenkeel.contracts.runtime import RecordDeadLettered
from evenkeel.contracts.topics import BY_NAME, SERVICES, TOPICS, Plane, Topic, consumed_by, published_by
from evenkeel.libs.service import Batch, Each, Merge, Raw, Stateless
from evenkeel.services.__main__ import service_named
from evenkeel.services.governance.domain.facts import topics_with_facts

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_handles_exactly_what_the_map_lets_it_consume(name: str) -> None:
    service = service_named(name)
    handled = set()
    for handler in service.handlers:
        match handler:
            case Each(payload=payload) | Batch(payload=payload) | Stateless(payload=payload):
                handled.add(payload)
            case Merge(payloads=payloads):
                handled |= set(payloads)
            case Raw(every_topic=True):
                handled |= {topic.payload for topic in consumed_by(name)}
    assert handled == {topic.payload for topic in consumed_by(name)}


def built_by(call: ast.Call) -> set[str]:
    """The class that a call may make: `X(…)`, `X.checked(…)` or `X.of(…)`."""
    made = call.func
    if isinstance(made, ast.Attribute) and made.attr in ("checked", "of"):
        made = made.value
    return {made.id} if isinstance(made, ast.Name) else set()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_builds_exactly_the_payloads_that_the_map_lets_it_publish(name: str) -> None:
    """Payload classes that its code calls; dead letters are the runtime's."""
    every = {topic.payload.__name__ for topic in TOPICS}
    called = set()
    for path in (ROOT / "services" / name).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called |= {name for name in built_by(node) if name in every}
    expected = {topic.payload.__name__ for topic in published_by(name)} - {RecordDeadLettered.__name__}
    reserved = {"SubjectErased"} if name == "governance" else {"ApprovalDecided"} if name == "registry" else set()
    assert called <= expected, called - expected
    assert expected - called <= reserved, expected - called


def test_a_payload_that_is_not_validated_gets_all_its_fields_in_their_order() -> None:
    """`checked` takes what it is given, so that a forgotten default would be missing in the record."""
    payloads = {topic.payload.__name__: topic.payload for topic in TOPICS} | {RawRecord.__name__: RawRecord}
    wrong, found = [], 0
    for path in (ROOT / "services").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "checked":
                found += 1
                (name,) = built_by(node)
                if [keyword.arg for keyword in node.keywords] != list(payloads[name].model_fields):
                    wrong.append(f"{path.name}:{node.lineno}: {name}")
    assert found and wrong == []


def test_names_say_producer_and_major() -> None:
    assert len(BY_NAME) == len(TOPICS)
    for topic in TOPICS:
        producer, _, rest = topic.name.partition(".")
        assert producer == topic.producer
        assert re.search(r"\.v[1-9]\d*$", rest)
        assert set(topic.consumers) <= set(SERVICES)


def test_the_control_plane_is_kept_for_ever_on_one_partition() -> None:
    for topic in TOPICS:
        if topic.plane is Plane.CONTROL:
            assert (topic.partitions, topic.retention_ms, topic.compacted) == (1, -1, False), topic.name


def test_what_is_joined_by_event_is_partitioned_alike() -> None:
    """Labels meet predictions in one partition, and a prediction goes where its vector was."""
    joined = ("ingest.label-accepted.v1", "feature.vector-computed.v1", "serving.prediction-made.v1")
    counts = {BY_NAME[name].partitions for name in ("ingest.event-accepted.v1", *joined)}
    assert len(counts) == 1


def test_governance_logs_everything_but_its_own_topics_and_the_view() -> None:
    unlogged = {topic.name for topic in TOPICS if "governance" not in topic.consumers}
    own = {topic.name for topic in published_by("governance")}
    assert unlogged == own | {"feature.view-updated.v1"}


def untold(topic: Topic) -> list[str]:
    """What a row's payload does not say of itself. The control plane is named by numbers besides: one that has none says so."""
    wanted = ["what", "sentence", *(["number"] if topic.plane is Plane.CONTROL else [])]
    missing = [name for name in wanted if name not in vars(topic.payload)]
    return missing if issubclass(topic.payload, Fact) else ["Fact", *missing]


@pytest.mark.parametrize("topic", TOPICS, ids=lambda t: t.name)
def test_every_payload_tells_itself(topic: Topic) -> None:
    assert untold(topic) == [], (
        f"say it in {topic.payload.__module__}.{topic.payload.__name__}, see evenkeel.contracts.payload.Fact"
    )
    assert topic.payload.what.strip()


def test_every_word_is_one_payloads_own() -> None:
    words = {topic.payload: topic.payload.what for topic in TOPICS}
    assert len(set(words.values())) == len(words)


def test_lineage_knows_every_fact_of_the_control_plane() -> None:
    """Each is looked up by its payload, which therefore has one topic."""
    control = [topic for topic in TOPICS if topic.plane is Plane.CONTROL and topic.producer != "governance"]
    assert topics_with_facts() == {topic.name for topic in control}
    assert len({topic.payload for topic in control}) == len(control)


class Mute(Payload):
    model: str


class Unnumbered(Fact):
    what = "unnumbered"
    model: str

    def sentence(self) -> str:
        return f"something of {self.model}"


class Inherited(Unnumbered):
    extra: str = ""


@pytest.mark.parametrize(
    ("payload", "plane", "missing"),
    [
        (Mute, Plane.CONTROL, ["Fact", "what", "sentence", "number"]),
        (Unnumbered, Plane.CONTROL, ["number"]),
        (Unnumbered, Plane.DATA, []),
        (Inherited, Plane.DATA, ["what", "sentence"]),
    ],
)
def test_a_row_that_does_not_tell_itself_is_noticed(payload: type[Fact], plane: Plane, missing: list[str]) -> None:
    row = Topic("monitor.planted.v1", payload, "monitor", ("governance",), plane, lambda p: str(p.model))
    assert untold(row) == missing
