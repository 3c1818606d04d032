"""Ids that follow from others: each from one function, for ever the same, and known to whoever walks from one to the next."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evenkeel.contracts import ids
from evenkeel.contracts.ingest import RawRecord
from tests.record_ids import RECORD_IDS

ROOT = Path(__file__).parents[2]


def example(name: str) -> tuple[dict[str, str], dict[str, Any]]:
    found = json.loads((ROOT / "contracts" / "examples" / f"{name}.json").read_text())
    return found["headers"], found["value"]


FOLLOWS: dict[str, Callable[[dict[str, str], dict[str, Any]], str]] = {
    "ingest.event-accepted.v1/flights": lambda h, v: ids.accepted_event_id(v["stream"], v["event_id"]),
    "ingest.event-accepted.v1/weather": lambda h, v: ids.accepted_event_id(v["stream"], v["event_id"]),
    "ingest.label-accepted.v1/first": lambda h, v: ids.accepted_label_id(v["stream"], v["label_id"]),
    "ingest.event-rejected.v1/first": lambda h, v: ids.rejected_record_id(RawRecord(**v["raw"]).place),
    "feature.vector-computed.v1/first": lambda h, v: ids.vector_id(
        ids.accepted_event_id(v["stream"], v["event_id"]), v["model"], v["view_version"]
    ),
    "serving.prediction-made.v1/stream": lambda h, v: ids.prediction_id(v["vector_id"]),
}


@pytest.mark.parametrize("name", FOLLOWS)
def test_an_examples_id_is_the_one_that_follows(name: str) -> None:
    headers, value = example(name)
    assert FOLLOWS[name](headers, value) == headers["ce_id"]


def test_ids_never_change() -> None:
    """Pinned: with other ids a merge would break ties otherwise, and lineage would not find what is in the log."""
    accepted = ids.accepted_event_id("flights", "20130101T1040-AA1141-JFK-MIA")
    assert accepted == "d6495b55-e989-52df-aaba-8b7ebc96fc4a"
    assert ids.accepted_label_id("flights", "20130101T1110-DL1743-JFK-ATL") == "bcb17f84-1239-5e93-a291-c7a6d66ef520"
    assert {
        "vector": ids.vector_id(accepted, "m", "v"),
        "prediction": ids.prediction_id("vector"),
        "rejected": ids.rejected_record_id("orders/0/1"),
        "run": ids.run_id("trigger"),
        "dataset": ids.dataset_committed_id("m", 3, 1_000_000),
        "receipt": ids.receipt_id("changed", "r1", 0),
    } == {
        "vector": "47def39e-c586-549d-8829-d1aab923cd04",
        "prediction": "8f7c3a7d-2c5a-50d7-ace5-081fa880f926",
        "rejected": "2f9bd1c5-86e5-58da-b4a3-fd99e0b08940",
        "run": "3f6602fa-5210-57ee-897e-52becdc44533",
        "dataset": "52b5ee2d-7440-5746-93f8-6839861374aa",
        "receipt": "1c1f0081-847a-5a6e-acb5-514d2f298008",
    }


@pytest.mark.parametrize("record_id", RECORD_IDS)
def test_any_record_id_gives_an_id_of_its_own(record_id: str) -> None:
    others = {ids.accepted_event_id("s", other) for other in RECORD_IDS if other != record_id}
    found = ids.accepted_event_id("s", record_id)
    assert found not in others
    assert found != ids.accepted_label_id("s", record_id)
    assert found != ids.accepted_event_id("t", record_id)


def test_two_views_of_a_model_have_vectors_and_predictions_of_their_own() -> None:
    old, new = (ids.vector_id("accepted", "m", view) for view in ("v1", "v2"))
    assert old != new
    assert ids.prediction_id(old) != ids.prediction_id(new)
    assert ids.view_stream("m", "v1") != ids.view_stream("m", "v2")


def test_no_id_is_made_beside_these_functions() -> None:
    """The runtime makes the default id of an output, and the ids of in-band records; others ask `contracts.ids`."""
    allowed = {"contracts/ids.py", "libs/runtime/outputs.py", "libs/runtime/stateless.py"}
    callers = {
        str(path.relative_to(ROOT))
        for folder in ("contracts", "libs", "services")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and "derived_id" in (getattr(node.func, "id", None), getattr(node.func, "attr", None))
    }
    assert callers <= allowed, f"{callers - allowed}: give the id a function of its own in contracts/ids.py"
