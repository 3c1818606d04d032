"""The whole system in its own processes: sixty days of real flights, a turn of the loop, a forced rollback."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evenkeel import Client
from evenkeel.apps.cli.supervisor import Supervisor
from evenkeel.apps.cli.verify import verify_data_folder
from evenkeel.apps.demo.replay import MODEL
from evenkeel.apps.demo.run import demo
from evenkeel.contracts.http.registry import ChampionEpoch
from evenkeel.libs.process.ports import free_port, free_port_base

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def until(check: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.05)  # another process has to come to rest; there is no event to wait for
    return found


def roll_back(supervisor: Supervisor, found: dict[str, Any]) -> None:
    with Client(supervisor.urls, token=supervisor.token) as client:
        before = champion_of(client)
        found["stale"] = client.registry.rollback(MODEL, epoch=before.epoch - 1)
        found["rolled_back"] = client.registry.rollback(MODEL, epoch=before.epoch)
        after = before.epoch + 1
        until(lambda: serving_epoch(client) == after, "serving to take the old version back")
        found["before"], found["now"] = before, champion_of(client)
        found["versions"] = client.registry.versions(MODEL).versions
        event = {
            "flight_id": "after-rollback",
            "scheduled_departure": "2013-03-01T12:00:00Z",
            "origin": "JFK",
            "destination": "BOS",
            "carrier": "B6",
            "distance": 187.0,
            "scheduled_minute": 420,
        }
        found["prediction"] = client.serving.predict(MODEL, event=event)
        until(lambda: logged_epoch(client) == after, "governance to have logged the rollback")


def champion_of(client: Client) -> ChampionEpoch:
    champion = client.registry.champion(MODEL).champion
    assert champion is not None
    return champion


def serving_epoch(client: Client) -> int:
    champion = next(served for served in client.serving.models().models if served.model == MODEL).champion
    return 0 if champion is None else champion.epoch


def logged_epoch(client: Client) -> int:
    return client.governance.champion(MODEL, at="2099-01-01T00:00:00Z", clock="wall").champion.epoch


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("demo") / "data"
    found: dict[str, Any] = {}
    found["summary"] = demo(
        days=60,
        data_dir=folder,
        port_base=free_port_base(),
        broker_port=free_port(),
        at_end=lambda supervisor: roll_back(supervisor, found),
    )
    found["verified"] = verify_data_folder(folder)
    return found


def test_nothing_is_lost_and_nothing_is_there_twice(run: dict[str, Any]) -> None:
    counts = run["summary"]["counts"]
    assert counts["sent"] == counts["logged"]
    assert (counts["lost"], counts["duplicated"], counts["expired_waits"]) == (0, 0, 0)
    assert counts["predictions"] > 0


def test_drift_or_decay_leads_to_a_new_champion_on_every_replica(run: dict[str, Any]) -> None:
    turns = run["summary"]["turns"]
    assert turns[0]["trigger"] == "first_data"
    adaptive = [turn for turn in turns if turn["trigger"] in ("drift", "decay") and turn["outcome"] == "activated"]
    assert adaptive, turns
    for turn in adaptive:
        for step in ("decide", "train", "promote", "activate"):
            assert turn[f"time_to_{step}_seconds"] is not None


def test_clients_kept_getting_predictions(run: dict[str, Any]) -> None:
    client = run["summary"]["client"]
    assert client["failed"] == 0, client["failures"]
    assert client["by_features"] > 0
    assert client["by_keys"] > 0


def test_one_prediction_is_explained_back_to_its_raw_record(run: dict[str, Any]) -> None:
    history = run["summary"]["explained"]["history"]
    assert history["complete"], history.get("missing")
    steps = {step["what"] for step in history["steps"]}
    assert {
        "raw record",
        "accepted event",
        "vector",
        "prediction",
        "champion",
        "version",
        "gates",
        "run",
        "dataset",
    } <= steps


def test_a_forced_rollback_brings_the_predecessor_back_once(run: dict[str, Any]) -> None:
    assert run["stale"].changed is False
    assert run["rolled_back"].changed is True
    assert run["now"].epoch == run["before"].epoch + 1
    assert run["now"].version == run["before"].previous_version
    states = {version.version: version.state for version in run["versions"]}
    assert states[run["before"].version] == "quarantined"
    assert states[run["now"].version] == "champion"
    assert run["prediction"].epoch == run["now"].epoch


def test_the_log_verifies_offline(run: dict[str, Any]) -> None:
    assert run["summary"]["verified"]["ok"]
    assert run["verified"]["ok"], run["verified"]
