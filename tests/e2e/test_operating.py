"""Following and operating a running system: its commands, its traces as a collector gets them, and the walk of the docs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from evenkeel.apps.cli.main import app
from evenkeel.libs.process.child import ChildProcess
from evenkeel.libs.process.ports import free_port, free_port_base
from tests.otlp import Receiver, Span, edges, otlp_receiver, roots
from tests.running import Producer
from tests.small_loop import MODEL, SmallLoop, small_loop, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
FLIGHT = "201301080000-UA0-EWR-IAH"
BAD_FLIGHT = {"flight_id": "bad-1", "scheduled_departure": "2013-01-09T10:00:00Z", "origin": "BOS", "distance": 1.0}


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    with otlp_receiver() as found:
        yield found


@pytest.fixture(scope="module")
def system(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallLoop]:
    """After one turn of the loop, with two replicas of serving."""
    folder, base = tmp_path_factory.mktemp("operating") / "data", free_port_base(8)
    traced = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "EVENKEEL_TRACE_RATIO": "1"}
    for loop in small_loop(folder, (base, free_port()), **traced):
        second = second_replica(loop, base + 8, traced)
        try:
            loop.turn()
            yield loop
        finally:
            second.kill()


def second_replica(loop: SmallLoop, port: int, traced: dict[str, str]) -> ChildProcess:
    """Serving once more, with a store of its own, on the same packages and keys."""
    folder = loop.data_dir.parent / "replica"
    folder.mkdir()
    (loop.data_dir / "artifacts").mkdir(exist_ok=True)
    (folder / "artifacts").symlink_to(loop.data_dir / "artifacts")
    own = {
        "EVENKEEL_DATA_DIR": str(folder),
        "EVENKEEL_KEYS_DIR": str(loop.data_dir / "keys"),
        "EVENKEEL_BROKER": loop.supervisor.broker,
        "EVENKEEL_PORT": str(port),
        "EVENKEEL_SERVING_REPLICA": "second",
    }
    return ChildProcess(
        (sys.executable, "-m", "evenkeel.services", "serving"),
        log=folder / "serving.log",
        environment={**os.environ, **traced, **own},
    )


def evenkeel(system: SmallLoop, *command: str, code: int = 0) -> list[dict[str, Any]]:
    """What a command says with --json."""
    result = CliRunner().invoke(app, [*command, "--data-dir", str(system.data_dir), "--json"])
    assert result.exit_code == code, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def in_words(system: SmallLoop, *command: str) -> str:
    result = CliRunner().invoke(app, [*command, "--data-dir", str(system.data_dir)], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    return result.stdout


def turns(system: SmallLoop) -> list[dict[str, Any]]:
    history = system.client.governance.history(MODEL, limit=1000).steps
    return [step.data for step in history if step.what == "champion" and step.data["epoch"] > 1]


# -- traces --------------------------------------------------------------------------------------------------------------


def test_one_trace_leads_from_the_raw_event_to_the_prediction_and_its_leaf(
    system: SmallLoop, receiver: Receiver
) -> None:
    wanted = {"handle flights.scheduled", "log ingest.event-accepted.v1"}
    graph = {("ingest", "feature"), ("feature", "serving"), ("serving", "governance")}

    def connected() -> list[Span] | None:  # each service sends its spans when it likes
        for leaf in receiver.spans:
            if leaf.name == "log serving.prediction-made.v1":
                spans = receiver.trace(leaf.trace_id)
                if wanted <= {span.name for span in spans} and graph <= edges(spans):
                    return spans
        return None

    spans = until(connected, "a trace of one flight, from service to service")
    (root,) = roots(spans)
    assert (root.service, root.name) == ("ingest", "handle flights.scheduled")
    (leaf,) = (span for span in spans if span.name == "log serving.prediction-made.v1")
    shown = system.client.governance.leaf(leaf.attributes["evenkeel.leaf"])
    assert shown.topic == "serving.prediction-made.v1"
    assert shown.headers["traceparent"].split("-")[1] == leaf.trace_id


def test_one_trace_leads_from_drift_to_the_activation_on_every_replica(system: SmallLoop, receiver: Receiver) -> None:
    wanted = {"train", "activate", "log serving.version-activated.v1"}
    graph = {("monitor", "trainer"), ("trainer", "registry"), ("registry", "serving"), ("serving", "governance")}

    def connected() -> list[Span] | None:
        for start in receiver.spans:
            if start.name in ("begin monitor.drift-detected.v1", "begin monitor.performance-degraded.v1"):
                spans = receiver.trace(start.trace_id)
                replicas = {span.instance for span in spans if span.name == "activate"}
                if wanted <= {span.name for span in spans} and len(replicas) == 2 and graph <= edges(spans):
                    return spans
        return None

    spans = until(connected, "a trace of one turn of the loop on both replicas, from service to service")
    (root,) = roots(spans)
    assert root.service == "monitor"


# -- commands ------------------------------------------------------------------------------------------------------------


def test_status_shows_everything_on_one_screen(system: SmallLoop) -> None:
    (found,) = evenkeel(system, "status")
    assert [row["service"] for row in found["services"] if row["ready"]] == list(system.supervisor.urls)
    (model,) = found["models"]
    assert model["champion"]["epoch"] >= 2
    assert model["last_decision"]["model"] == MODEL
    assert model["last_window"]["vectors"] > model["last_window"]["unscored"] >= 0
    assert "governance" in in_words(system, "status")


def test_doctor_finds_nothing_wrong_and_then_what_is(system: SmallLoop) -> None:
    found = evenkeel(system, "doctor")
    assert {finding["check"] for finding in found} >= {
        "disk",
        "clock",
        "broker",
        "topics",
        "stores",
        "keys",
        "services",
    }
    assert [finding for finding in found if finding["state"] == "wrong"] == []
    key = system.data_dir / "keys" / "trainer.key"
    key.chmod(0o644)
    try:
        (wrong,) = (f for f in evenkeel(system, "doctor", code=1) if f["state"] == "wrong")
    finally:
        key.chmod(0o600)
    assert (wrong["check"], "trainer.key" in wrong["detail"], "chmod 600" in wrong["do"]) == ("keys", True, True)


def test_the_loop_is_paused_and_resumed(system: SmallLoop) -> None:
    evenkeel(system, "loop", "pause", "--by", "Ada", "--reason", "snow")
    assert "loop paused by Ada since" in in_words(system, "status")
    assert "paused" in evenkeel(system, "loop", "pause", MODEL, "--reason", "again", code=1)[0]["error"]
    (resumed,) = evenkeel(system, "loop", "resume")
    assert (resumed["model"], resumed["paused"]) == (MODEL, False)
    assert evenkeel(system, "loop", "resume", code=1) == [{"error": "no loop is paused"}]


def test_rejected_records_are_listed_shown_and_redriven(system: SmallLoop) -> None:
    async def send() -> None:
        async with Producer(system.supervisor.broker) as producer:
            await producer.send("flights.scheduled", BAD_FLIGHT)

    asyncio.run(send())
    (line,) = until(lambda: evenkeel(system, "rejected", "list", "--stream", "flights"), "the rejection")
    assert (line["rule"], line["field"], line["event_id"]) == ("category", "origin", "bad-1")
    number = str(line["number"])
    (shown,) = evenkeel(system, "rejected", "show", number)
    assert json.loads(shown["original_text"]) == BAD_FLIGHT
    (sent,) = evenkeel(system, "rejected", "redrive", number)
    assert sent["sent_to"]["topic"] == "flights.scheduled"
    until(lambda: len(evenkeel(system, "rejected", "list", "--rule", "category")) == 2, "its second rejection")
    assert "say which" in evenkeel(system, "rejected", "redrive", code=1)[0]["error"]


def test_nothing_is_parked_and_every_service_is_asked(system: SmallLoop) -> None:
    assert evenkeel(system, "parked", "list") == []
    assert in_words(system, "parked", "list") == "nothing is parked\n"
    assert "nothing is parked under x" in evenkeel(system, "parked", "release", "x", code=1)[0]["error"]


def test_an_event_a_prediction_and_a_turn_are_traced_through_the_log(system: SmallLoop) -> None:
    (of_event,) = evenkeel(system, "trace", FLIGHT)
    first, *_, vector, prediction = of_event["steps"]
    assert (first["what"], vector["what"], prediction["what"]) == ("raw record", "vector", "prediction")
    (of_prediction,) = evenkeel(system, "trace", prediction["id"])
    assert (of_prediction["kind"], of_prediction["steps"][0]["what"]) == ("prediction", "prediction")
    assert of_prediction["steps"][-1]["what"] in ("raw record", "stream declaration")
    run_id = turns(system)[0]["run_id"]
    (of_loop,) = evenkeel(system, "trace", run_id)
    steps = [step["what"] for step in of_loop["steps"]]
    assert steps[:3] == ["trigger", "decision", "run started"]
    assert steps[-3:] == ["champion", "activation", "activation"]
    (from_signal,) = evenkeel(system, "trace", of_loop["steps"][0]["id"])
    assert from_signal["steps"] == of_loop["steps"]
    assert "evenkeel rejected list" in evenkeel(system, "trace", "nobody", code=1)[0]["error"]


def test_the_commands_of_one_event_run_as_they_stand(system: SmallLoop) -> None:
    text = (ROOT / "docs" / "one-event.md").read_text()
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 5
    environment = {
        **os.environ,
        "EVENKEEL_DATA_DIR": str(system.data_dir),
        "FLIGHT": FLIGHT,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    script = "set -euo pipefail\n" + "\n".join(blocks)
    done = subprocess.run(
        ["bash", "-c", script], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("raw record", "vector", "prediction", "decision", "champion", "activation"):
        assert word in done.stdout
    for file in re.findall(r"`((?:libs|services|contracts)/[\w/]+\.py)`", text):
        assert (ROOT / file).exists(), file
