"""From a prediction back to its raw record and to why its version answered; and what is said when a link is missing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from evenkeel.libs.bus.protocol import OutgoingRecord
from evenkeel.libs.errors import Refused
from evenkeel.services.governance.domain.champions import Reign, reign_at
from tests.model_life import MODEL, OTHER, Life, prediction
from tests.unit.governance.conftest import Governance

CHAIN = ["prediction", "champion", "activation", "version", "run", "dataset", "gates"]
INPUT = ["vector", "model declaration", "accepted event", "stream declaration", "raw record"]


@pytest.fixture
def life(governance: Governance) -> Life:
    told = Life().tell()
    governance.take(told.records)
    return told


def whats(governance: Governance, identifier: str, model: str | None = None) -> list[str]:
    walk = governance.walk(identifier, model)
    assert walk.missing == []
    return [step.what for step in walk.steps]


def test_a_promotion_by_drift_is_explained_to_the_raw_record(governance: Governance, life: Life) -> None:
    walk = governance.walk(life.ids[f"{MODEL}-o-1"])
    assert walk.missing == []
    assert [step.what for step in walk.steps] == [*CHAIN, "decision", "trigger", *INPUT]
    steps = {step.what: step for step in walk.steps}
    assert steps["trigger"].id == life.ids["drift"]
    assert steps["decision"].data["cause_id"] == life.ids["drift"]
    assert steps["dataset"].data["offsets"] == {"ingest.event-accepted.v1": {"0": 3900, "1": 4030}}
    assert [gate["passed"] for gate in steps["gates"].data["gates"]] == [True] * 3
    assert steps["raw record"].id == "shop.orders/1/41"
    assert steps["raw record"].leaf == steps["accepted event"].leaf
    assert "version 2 became champion of order-returned (epoch 2) by promotion" in steps["champion"].summary
    assert "amount with psi 0.310" in steps["trigger"].summary
    assert all(step.summary and "\n" not in step.summary for step in walk.steps)


def test_an_outside_id_finds_the_prediction_of_the_model_that_is_asked_for(governance: Governance, life: Life) -> None:
    assert governance.walk("o-1", MODEL).steps[0].id == life.ids[f"{MODEL}-o-1"]
    assert governance.walk("o-1", OTHER).steps[0].id == life.ids[f"{OTHER}-o-1"]


def test_an_approval_names_its_approver(governance: Governance, life: Life) -> None:
    assert whats(governance, "o-2", MODEL) == [*CHAIN, "approval", "decision", "trigger", *INPUT]
    steps = {step.what: step for step in governance.walk("o-2", MODEL).steps}
    assert steps["approval"].summary == "Ada approved version 3 against epoch 3: seen the evidence"
    assert steps["trigger"].summary == "somebody asked for the run"


def test_a_rollback_names_what_went_wrong_and_where_the_version_came_from(governance: Governance, life: Life) -> None:
    asked = life.ask("r-1", 1, 3, "2013-01-17T00:00:00Z", "2026-11-20T11:05:00Z")
    governance.take(life.records[-1:])
    assert whats(governance, asked) == [*CHAIN, "rollback", "decision", "trigger", "request"]
    steps = {step.what: step for step in governance.walk(asked).steps}
    assert steps["rollback"].id == life.ids["decay"]
    assert "auc of version 2 went from 0.7600 to 0.6600" in steps["rollback"].summary
    assert steps["trigger"].summary.startswith("version 7 of tables/order-returned")


def test_a_request_for_an_event_of_the_stream_leads_to_that_event(governance: Governance, life: Life) -> None:
    asked = life.ask("o-2", 3, 4, "2013-01-21T06:00:00Z", "2026-11-20T12:10:00Z")
    governance.take(life.records[-1:])
    assert whats(governance, asked)[-4:] == ["request", "accepted event", "stream declaration", "raw record"]


def topic(name: str) -> Callable[[OutgoingRecord], bool]:
    return lambda record: record.topic == name


@pytest.mark.parametrize(
    ("gone", "missing"),
    [
        ("feature.vector-computed.v1", {"vector"}),
        ("ingest.event-accepted.v1", {"accepted event"}),
        ("registry.champion-changed.v1", {"champion"}),
        ("registry.version-registered.v1", {"version"}),
        ("registry.gate-decided.v1", {"gates"}),
        ("registry.stream-declared.v1", {"stream declaration"}),
        ("registry.model-declared.v1", {"model declaration"}),
        ("trainer.run-completed.v1", {"run"}),
        ("trainer.retrain-decided.v1", {"decision"}),
        ("feature.dataset-committed.v1", {"dataset"}),
        ("monitor.drift-detected.v1", {"trigger"}),
    ],
)
def test_a_missing_link_is_named_and_the_rest_goes_on(governance: Governance, gone: str, missing: set[str]) -> None:
    life = Life().tell()
    governance.take([record for record in life.records if record.topic != gone])
    walk = governance.walk(life.ids[f"{MODEL}-o-1"])
    assert {miss["what"] for miss in walk.missing} == missing
    assert walk.steps[0].what == "prediction"
    assert len(walk.steps) > 6


def test_a_prediction_by_a_version_that_was_not_champion_is_not_complete(governance: Governance, life: Life) -> None:
    life.records.clear()
    (wrong,) = life.say(
        "serving", [prediction("x", 3, 2)], "request-x", "2013-01-15T00:00:00Z", "2026-11-20T10:00:00Z", "orders"
    )
    (fallback,) = life.say(
        "serving", [prediction("y", 1, 2)], "request-y", "2013-01-15T00:00:00Z", "2026-11-20T10:00:00Z", "orders"
    )
    governance.take(life.records)
    assert governance.walk(wrong).missing[0]["why"] == "epoch 2 is version 2, the prediction is by version 3"
    assert governance.walk(fallback).missing == []
    steps = {step.what: step for step in governance.walk(fallback).steps}
    assert steps["fallback"].summary.endswith("its named fallback 1 was")
    assert steps["run"].data["run_id"] == "run-1"


def test_a_promotion_past_a_failed_gate_is_not_complete(governance: Governance) -> None:
    life = Life().tell()
    changed = [
        record._replace(value=(record.value or b"").replace(b'"passed":true', b'"passed":false'))
        if record.topic == "registry.gate-decided.v1" and b"golden_rows" in (record.value or b"")
        else record
        for record in life.records
    ]
    governance.take(changed)
    (miss,) = governance.walk(life.ids[f"{MODEL}-o-1"]).missing
    assert miss["why"] == "promoted although golden_rows failed"


@pytest.mark.parametrize(
    ("identifier", "model", "detail"),
    [
        ("nobody", None, "The log has no event with this id"),
        ("nobody", MODEL, "no prediction of order-returned for an event nobody"),
        ("o-1", "unheard-of", "no declaration of a model unheard-of"),
    ],
)
def test_what_is_not_there_is_said_with_what_to_do(
    governance: Governance, life: Life, identifier: str, model: str | None, detail: str
) -> None:
    with pytest.raises(Refused, match=detail) as refused:
        governance.walk(identifier, model)
    assert refused.value.status == 404
    assert refused.value.field in ("id", "model")
    assert refused.value.fix


def test_another_events_id_is_told_from_a_prediction(governance: Governance, life: Life) -> None:
    with pytest.raises(Refused, match=r"It is an event of feature\.vector-computed\.v1"):
        governance.walk(life.ids["vector-o-1"])
    with pytest.raises(Refused, match="This prediction is of order-returned"):
        governance.walk(life.ids[f"{MODEL}-o-1"], OTHER)


def test_a_reign_ends_where_a_higher_epoch_begins() -> None:
    reigns = [Reign(1, 100, 10), Reign(2, 300, 20), Reign(3, 250, 30)]
    assert reign_at(reigns, 99, "event") is None
    assert reign_at(reigns, 100, "event") == (reigns[0], 250)
    assert reign_at(reigns, 260, "event") == (reigns[2], None)
    assert reign_at(reigns, 300, "event") == (reigns[2], None)
    assert reign_at(reigns, 25, "wall") == (reigns[1], 30)
    assert reign_at(reigns, None, "event") == (reigns[2], None)
