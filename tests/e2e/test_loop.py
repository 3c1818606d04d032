"""The whole system in its own processes: sixty days of real flights, a turn of the loop, a forced rollback."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from evenkeel.apps.cli.supervisor import Supervisor
from evenkeel.apps.cli.verify import verify_data_folder
from evenkeel.apps.demo.replay import MODEL
from evenkeel.apps.demo.run import demo
from evenkeel.libs.process.ports import free_port, free_port_base

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]


def until(check: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := check()):
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.05)  # another process has to come to rest; there is no event to wait for
    return found


class Operator:
    """A person with a token."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._urls = supervisor.urls
        self._http = httpx2.Client(headers={"Authorization": f"Bearer {supervisor.token}"}, timeout=30)

    def get(self, service: str, path: str, **parameters: Any) -> Any:
        answer = self._http.get(self._urls[service] + path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def post(self, service: str, path: str, body: Any) -> Any:
        answer = self._http.post(self._urls[service] + path, json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def serving_epoch(self) -> int:
        shown = self.get("serving", "/v1/models")
        return int(next(m for m in shown["models"] if m["model"] == MODEL)["champion"]["epoch"])


def roll_back(supervisor: Supervisor, found: dict[str, Any]) -> None:
    operator = Operator(supervisor)
    before = operator.get("registry", f"/v1/models/{MODEL}/champion")["champion"]
    found["stale"] = operator.post("registry", f"/v1/models/{MODEL}/rollback", {"epoch": before["epoch"] - 1})
    found["rolled_back"] = operator.post("registry", f"/v1/models/{MODEL}/rollback", {"epoch": before["epoch"]})
    after = before["epoch"] + 1
    until(lambda: operator.serving_epoch() == after, "serving to take the old version back")
    found["before"], found["now"] = before, operator.get("registry", f"/v1/models/{MODEL}/champion")["champion"]
    found["versions"] = operator.get("registry", f"/v1/models/{MODEL}/versions")["versions"]
    event = {
        "flight_id": "after-rollback",
        "scheduled_departure": "2013-03-01T12:00:00Z",
        "origin": "JFK",
        "destination": "BOS",
        "carrier": "B6",
        "distance": 187.0,
        "scheduled_minute": 420,
    }
    found["prediction"] = operator.post("serving", f"/v1/models/{MODEL}/predict", {"event": event})
    until(
        lambda: operator.get("governance", "/v1/log/checkpoint") and governance_knows(operator, after),
        "governance to have logged the rollback",
    )


def governance_knows(operator: Operator, epoch: int) -> bool:
    answer = operator.get("governance", f"/v1/models/{MODEL}/champion", at="2099-01-01T00:00:00Z", clock="wall")
    return bool(f'"epoch": {epoch}' in str(answer).replace("'", '"'))


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
    assert run["stale"]["changed"] is False
    assert run["rolled_back"]["changed"] is True
    assert run["now"]["epoch"] == run["before"]["epoch"] + 1
    assert run["now"]["version"] == run["before"]["previous_version"]
    states = {version["version"]: version["state"] for version in run["versions"]}
    assert states[run["before"]["version"]] == "quarantined"
    assert states[run["now"]["version"]] == "champion"
    assert run["prediction"]["epoch"] == run["now"]["epoch"]


def test_the_log_verifies_offline(run: dict[str, Any]) -> None:
    assert run["summary"]["verified"]["ok"]
    assert run["verified"]["ok"], run["verified"]
