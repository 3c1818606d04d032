"""What an id leads to: an event whatever its producer calls it, a turn of the loop, any record that tells itself."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from evenkeel.contracts import superseded
from evenkeel.contracts.envelope import parse_us
from evenkeel.contracts.ingest import RawRecord
from evenkeel.contracts.monitor import AlertChanged, WindowMeasured
from evenkeel.contracts.payload import Fact
from evenkeel.contracts.registry import ChampionChanged, ModelDeclared
from evenkeel.contracts.runtime import RecordDeadLettered
from evenkeel.contracts.serving import ReplicaSeen
from evenkeel.contracts.superseded import Superseded
from evenkeel.contracts.trainer import DatasetVersion, RetrainDecided, RunFailed, RunStarted
from evenkeel.libs.bus.protocol import OutgoingRecord
from evenkeel.services.governance.context import GovernanceContext
from tests.makers import event_rejected, label_accepted
from tests.model_life import MODEL, OTHER, Life, declaration
from tests.record_ids import RECORD_IDS
from tests.unit.governance.conftest import Governance

EVENT = ["raw record", "stream declaration", "accepted event", "vector", "prediction", "vector", "prediction"]
WHEN = ("2013-02-01T00:00:00Z", "2026-11-20T13:00:00Z")
RAW = RawRecord(topic="shop.orders", partition=0, offset=7, sha256="b" * 64)


@pytest.fixture
def life(governance: Governance) -> Life:
    told = Life().tell()
    governance.take(told.records)
    return told


def whats(governance: Governance, identifier: str, model: str | None = None) -> tuple[str, list[str]]:
    kind, walk = governance.trace(identifier, model)
    assert walk.missing == []
    return kind, [step.what for step in walk.steps]


@pytest.mark.parametrize("event_id", RECORD_IDS)
def test_an_event_is_followed_whatever_its_producer_calls_it(governance: Governance, event_id: str) -> None:
    assert len(event_id.encode()) <= 256
    life = Life()
    life.declare()
    for other in ("before", event_id, "behind"):
        life.score(other, 2, 2, "2013-01-15T06:00:00Z", "2026-11-20T10:10:00Z")
    governance.take(life.records)
    assert whats(governance, event_id) == ("event", EVENT)
    assert whats(governance, event_id, MODEL) == ("event", EVENT[:5])
    _, walk = governance.trace(event_id)
    steps = {step.what: step for step in walk.steps}
    assert steps["accepted event"].id == life.ids[f"accepted-{event_id}"]
    assert steps["accepted event"].data["event_id"] == event_id
    assert event_id in steps["accepted event"].summary
    predictions = [step.id for step in walk.steps if step.what == "prediction"]
    assert sorted(predictions) == sorted(life.ids[f"{model}-{event_id}"] for model in (MODEL, OTHER))
    for model in (MODEL, OTHER):
        assert governance.walk(event_id, model).steps[0].id == life.ids[f"{model}-{event_id}"]


def test_a_turn_is_told_as_it_went(governance: Governance, life: Life) -> None:
    """All that names the run is part of it, in the order in which it was said."""
    turn = ["trigger", "decision", "run started", "run", "version", "gate", "gate", "gate", "champion", "activation"]
    ids = [life.ids["drift"], life.ids["decision-2"], "run-2", life.ids["run-2"], life.ids["epoch-2"]]
    assert [whats(governance, one) for one in ids] == [("loop", turn)] * len(ids)
    approved = [*turn[1:8], "approval", *turn[8:]]
    assert whats(governance, life.ids["epoch-4"]) == ("loop", approved)
    assert whats(governance, life.ids["decay"]) == ("loop", ["decay"])


def test_each_attempt_of_a_run_is_followed_by_what_became_of_it(governance: Governance) -> None:
    life, run = Life(), {"model": MODEL, "run_id": "run-9"}
    dataset = DatasetVersion(uri="tables/m", version=7, rows=1, label_cut="2013-02-01T00:00:00Z")
    steps: list[Fact] = [
        RunStarted(**run, attempt=1, dataset=dataset),
        RunFailed(**run, attempt=1, reason="crashed", detail="out of memory"),
        RunStarted(**run, attempt=2, dataset=dataset),
    ]
    decided = {"retrain": True, "trigger": "command", "reason": "accepted", "detail": "", "cause_id": "click"}
    life.say("trainer", [RetrainDecided(model=MODEL, run_id="run-9", as_of=WHEN[0], **decided)], "click", *WHEN)
    for minute, step in enumerate(steps, 1):
        life.say("trainer", [step], f"step-{minute}", WHEN[0], f"2026-11-20T13:{minute:02}:00Z")
    # Topics are read side by side: what was said last may be logged first.
    governance.take(sorted(life.records, key=lambda record: record.topic, reverse=True))
    assert whats(governance, "run-9") == ("loop", ["decision", "run started", "run failed", "run started"])


def test_history_has_every_fact_about_a_model(governance: Governance, life: Life) -> None:
    """Also those that no walk names: what a service says of a model cannot be forgotten."""
    life.records.clear()
    window = WindowMeasured(
        model=MODEL,
        window_start="2013-01-01T00:00:00Z",
        window_end="2013-01-02T00:00:00Z",
        labelled=1,
        predictions=2,
        metrics={},
        drift=[],
    )
    life.say("monitor", [window, AlertChanged(model=MODEL, alert="decay", state="raised", detail="worse")], "w", *WHEN)
    life.say("serving", [ReplicaSeen(replica="r1", url="http://r1", state="ready", epochs={MODEL: 1})], "r", *WHEN)
    governance.take(life.records)
    assert [fact.data.what for fact in governance.history(MODEL)][-2:] == ["window", "alert"]
    assert [fact.data.what for fact in governance.history("r1")] == ["replica"]


def test_whatever_is_logged_tells_itself(governance: Governance, life: Life) -> None:
    life.records.clear()
    letter = RecordDeadLettered(
        service="feature",
        reason="no id",
        topic="ingest.event-accepted.v1",
        partition=1,
        offset=5,
        key=None,
        value=None,
        headers=[],
    )
    label = label_accepted(stream="orders", event_id="o-1", label_id="l 1", raw=RAW)
    rejected = event_rejected(stream="orders", rule="missing", reason="no amount", fix="send it", raw=RAW)
    ids = [*life.say("feature", [letter], "x", *WHEN), *life.say("ingest", [label, rejected], "y", *WHEN)]
    governance.take(life.records)
    said = []
    for one in [*ids, life.ids["vector-o-1"]]:
        kind, walk = governance.trace(one)
        (step,) = walk.steps
        assert kind == "fact"
        said.append((step.what, step.summary))
    assert said == [
        ("dead letter", "feature could not use the record ingest.event-accepted.v1/1/5: no id"),
        ("accepted label", "label l 1 of event o-1 of stream orders passed its contract, declaration 0"),
        ("rejected record", "event record shop.orders/0/7 broke the rule missing of stream orders: no amount"),
        ("vector", f"3 features, 1 of them missing, of event o-1 for model {MODEL}, view 555555555555, declaration 1"),
    ]


def test_a_comment_from_outside_stays_on_its_line(governance: Governance, life: Life) -> None:
    life.records.clear()
    alert = AlertChanged(model=MODEL, alert="decay", state="raised", detail="worse\nmissing: nothing\x1b[2J")
    (alert_id,) = life.say("monitor", [alert], "w", *WHEN)
    governance.take(life.records)
    _, walk = governance.trace(alert_id)
    assert walk.steps[0].summary == f"alert decay of {MODEL} was raised: worse missing: nothing [2J"


def test_a_model_with_another_view_keeps_what_the_former_one_made(governance: Governance, life: Life) -> None:
    life.records.clear()
    declared = declaration()
    anew = ModelDeclared.of(name=MODEL, spec=declared.models[MODEL], streams=declared.streams, view_version="6" * 64)
    life.say("registry", [anew], "apply-again", *WHEN)
    governance.take(life.records)
    assert whats(governance, "o-1", MODEL) == ("event", EVENT[:5])
    assert governance.walk("o-1", MODEL).steps[0].id == life.ids[f"{MODEL}-o-1"]


FORMER = "registry.champion-changed.v0"


class ChampionNamed(Fact):
    """What registry said before it named everything else."""

    what = "former champion"
    model: str
    champion: dict[str, object]

    def sentence(self) -> str:
        return "said by an earlier release"


def upcast(former: ChampionNamed) -> ChampionChanged:
    return ChampionChanged.model_validate(former.champion)


def said_under_a_former_major(records: Sequence[OutgoingRecord]) -> list[OutgoingRecord]:
    """The life of a model, but for champions that an earlier release announced."""
    return [_as_former(record) if record.topic == "registry.champion-changed.v1" else record for record in records]


def _as_former(record: OutgoingRecord) -> OutgoingRecord:
    value = b'{"model":"%s","champion":%s}' % (MODEL.encode(), record.value)
    headers = [(name, f"io.evenkeel.{FORMER}".encode() if name == "ce_type" else v) for name, v in record.headers]
    return record._replace(topic=FORMER, value=value, headers=headers)


def test_a_walk_goes_through_a_former_major(governance: Governance, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new major of a topic breaks no chain: what was said under the former one is found, and reads as today's."""
    row = Superseded(FORMER, ChampionNamed, "registry.champion-changed.v1", upcast)
    monkeypatch.setattr(superseded, "SUPERSEDED", (row,))
    governance.context.topics_with_facts = GovernanceContext().topics_with_facts
    life = Life().tell()
    governance.take(said_under_a_former_major(life.records))
    walk = governance.walk("o-2", MODEL)
    assert walk.missing == []
    assert [step.summary for step in walk.steps if step.what == "champion"] == [
        f"version 3 became champion of {MODEL} (epoch 4) by approval in place of version 1"
    ]
    kind, turn = governance.trace("run-2")
    assert kind == "loop"
    assert [step.what for step in turn.steps][-2:] == ["champion", "activation"]


def test_a_topic_that_is_not_known_is_shown_by_its_name(
    governance: Governance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older release again over the log of a newer one: the record is there as it is, and a walk says why it stops."""
    row = Superseded(FORMER, ChampionNamed, "registry.champion-changed.v1", upcast)
    with monkeypatch.context() as newer:
        newer.setattr(superseded, "SUPERSEDED", (row,))
        opened = Governance(governance.data_dir / "newer")
        life = Life().tell()
        opened.take(said_under_a_former_major(life.records))
    shown = [fact for fact in opened.history(MODEL) if fact.topic == FORMER]
    assert [fact.event_us for fact in shown][:1] == [parse_us("2013-01-08T00:00:00Z")]
    _, walk = opened.trace(life.ids["epoch-2"])
    (step,) = (step for step in walk.steps if step.id == life.ids["epoch-2"])
    assert (step.what, step.data["champion"]["epoch"]) == (FORMER, 2)
    assert step.summary == "this release does not know what such a record means"
    assert "champion" in {miss["what"] for miss in opened.walk("o-1", MODEL).missing}
    opened.close()
