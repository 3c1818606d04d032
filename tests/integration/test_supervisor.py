"""The supervisor with small stand-in services: starting, restarting, stopping, and mistakes that harm nothing."""

from __future__ import annotations

import json
import os
import queue
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx2
import pytest

from evenkeel.apps.cli.supervisor import Notice, Supervisor, SupervisorError
from evenkeel.contracts.topics import SERVICES
from evenkeel.libs.process.child import ChildProcess
from evenkeel.libs.process.ports import free_port, free_port_base
from evenkeel.libs.process.supervised import running_supervisor

STAND_IN = """
import http.server, os, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers()
        self.wfile.write((sys.argv[1] + " " + os.environ["EVENKEEL_BROKER"]).encode())
    def log_message(self, *a): pass
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
http.server.HTTPServer(("127.0.0.1", int(os.environ["EVENKEEL_PORT"])), Handler).serve_forever()
"""
STAND_INS = {name: (sys.executable, "-c", STAND_IN, name) for name in SERVICES}


class Journal:
    """Notices in order; `expect` waits for the next one of a kind."""

    def __init__(self) -> None:
        self._notices: queue.Queue[Notice] = queue.Queue()

    def __call__(self, notice: Notice) -> None:
        self._notices.put(notice)

    def expect(self, what: str, process: str) -> Notice:
        while True:
            notice = self._notices.get(timeout=60)
            if (notice.what, notice.process) == (what, process):
                return notice


@pytest.fixture(scope="module")
def journal() -> Journal:
    return Journal()


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory, journal: Journal) -> Iterator[Supervisor]:
    with Supervisor(
        tmp_path_factory.mktemp("data"),
        port_base=free_port_base(),
        broker_port=free_port(),
        commands=STAND_INS,
        on_notice=journal,
    ) as supervisor:
        yield supervisor


def test_everything_answers_and_knows_the_broker(system: Supervisor) -> None:
    assert list(system.urls) == list(SERVICES)
    for name, url in system.urls.items():
        assert httpx2.get(f"{url}/health/ready").text == f"{name} {system.broker}"
    state = running_supervisor(system.data_dir)
    assert state == {"pid": os.getpid(), "ready": True, "broker": system.broker, "urls": system.urls, "lacking": {}}


def test_the_token_is_private_and_its_hash_has_every_role(system: Supervisor) -> None:
    token, tokens = system.data_dir / "keys" / "token", system.data_dir / "keys" / "tokens.json"
    assert token.read_text().strip() == system.token
    assert system.token_is_new
    assert system.token not in tokens.read_text()
    (holder,) = json.loads(tokens.read_text()).values()
    roles = ["producer", "client", "scientist", "auditor", "approver", "operator"]
    assert holder == {"name": "bootstrap", "roles": roles}
    assert {stat.S_IMODE(path.stat().st_mode) for path in (token, tokens)} == {0o600}


def test_a_killed_service_and_a_killed_broker_come_back(system: Supervisor, journal: Journal) -> None:
    before = system.pids
    system.kill("feature")
    assert "signal 9" in journal.expect("died", "feature").message
    journal.expect("starting", "feature")
    system.kill("kafka")
    journal.expect("died", "kafka")
    journal.expect("ready", "kafka")
    after = system.pids
    assert {name for name in before if before[name] != after[name]} == {"feature", "kafka"}
    assert system.restarts == {"kafka": 1, **dict.fromkeys(SERVICES, 0), "feature": 1}


def test_a_second_supervisor_on_the_folder_is_refused(system: Supervisor) -> None:
    second = Supervisor(system.data_dir, port_base=free_port_base(), broker_port=free_port(), commands=STAND_INS)
    with pytest.raises(SupervisorError, match=f"runs already on .*process {os.getpid()}"):
        second.start()
    assert httpx2.get(f"{system.urls['ingest']}/health/ready").status_code == 200
    assert system.kafka is not None
    assert system.kafka.is_running


def test_a_port_in_use_is_named_before_anything_starts(system: Supervisor, tmp_path: Path) -> None:
    journal: list[Notice] = []
    other = Supervisor(
        tmp_path, port_base=system.port_base, broker_port=free_port(), commands=STAND_INS, on_notice=journal.append
    )
    with pytest.raises(SupervisorError, match=rf"port {system.ports['ingest']} for ingest .*EVENKEEL_PORT_BASE"):
        other.start()
    assert journal == [Notice("stopped", "evenkeel", "stopped")]


def test_a_service_that_cannot_start_is_reported_with_its_last_words(system: Supervisor, tmp_path: Path) -> None:
    broken = {"registry": (sys.executable, "-c", "raise SystemExit('EVENKEEL_BROKER: no such setting')")}
    other = Supervisor(tmp_path, port_base=free_port_base(), broker=system.broker, commands=broken)
    with pytest.raises(SupervisorError, match="registry ended 3 times .*EVENKEEL_BROKER: no such setting"):
        other.start()
    assert running_supervisor(tmp_path) is None


def test_the_others_go_on_without_it_if_they_may(system: Supervisor, tmp_path: Path) -> None:
    """What is wrong with one store must not keep clients from their predictions; once it is mended, the service is back."""
    mended = tmp_path / "mended"
    program = f"import pathlib, sys; pathlib.Path({str(mended)!r}).exists() or sys.exit('the store is damaged'); "
    registry = (sys.executable, "-c", program + STAND_IN, "registry")
    with Supervisor(
        tmp_path,
        port_base=free_port_base(),
        broker=system.broker,
        commands={"registry": registry, "serving": STAND_INS["serving"]},
        needs_all=False,
        on_notice=(journal := Journal()),
    ) as other:
        assert other.is_ready("serving")
        assert list(other.lacking) == ["registry"]
        assert "the store is damaged" in other.lacking["registry"]
        mended.touch()
        journal.expect("ready", "registry")


def test_a_child_and_its_group_end_with_their_owner(tmp_path: Path) -> None:
    child = "import signal, subprocess, sys; subprocess.Popen(['sleep', '600'], close_fds=False);"
    child += "open(sys.argv[1], 'w').close(); signal.pause()"
    mark = tmp_path / "started"
    reader, writer = os.pipe()  # every process of the tree holds the write end: end of file means that all are gone
    process = ChildProcess(
        [sys.executable, "-c", child, str(mark)],
        log=tmp_path / "log",
        environment=os.environ,
        inherit=(writer,),
    )
    os.close(writer)
    while not mark.exists() and process.is_running:
        os.sched_yield()
    process.kill()
    assert process.exit_code == -signal.SIGKILL
    assert os.read(reader, 1) == b""
    os.close(reader)


def evenkeel(*arguments: str, environment: Mapping[str, str] | None = None) -> tuple[int, list[dict[str, object]]]:
    result = subprocess.run(
        [sys.executable, "-m", "evenkeel.apps.cli.main", *arguments, "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
        check=False,
    )
    assert not result.stderr, result.stderr
    return result.returncode, [json.loads(line) for line in result.stdout.splitlines()]


def test_down_and_reset_from_the_command_line(system: Supervisor, tmp_path: Path) -> None:
    running = str(system.data_dir)
    code, (answer,) = evenkeel("reset", "--yes", "--data-dir", running)
    assert code == 1
    assert "evenkeel down" in str(answer["error"])
    assert system.data_dir.exists()

    precious = tmp_path / "precious"
    precious.mkdir()
    code, (answer,) = evenkeel("reset", "--yes", "--data-dir", str(precious))
    assert code == 1
    assert "does not look like" in str(answer["error"])
    assert precious.exists()

    mine = tmp_path / "mine"
    owner = (
        "import sys, threading; from pathlib import Path; from evenkeel.apps.cli.supervisor import Supervisor;"
        f"s = Supervisor(Path(sys.argv[1]), port_base={free_port_base()}, broker={system.broker!r},"
        f" commands={{'serving': {STAND_INS['serving']!r}}}); s.start(); print('ready', flush=True);"
        "threading.Event().wait()"
    )
    with subprocess.Popen([sys.executable, "-c", owner, str(mine)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        code, (answer,) = evenkeel("down", "--data-dir", str(mine))
        assert code == 0
        assert answer == {"stopped": True, "killed": False, "pid": process.pid}
    assert evenkeel("down", "--data-dir", str(mine)) == (0, [{"stopped": False, "data_dir": str(mine)}])
    assert evenkeel("reset", "--data-dir", str(mine))[0] == 1
    assert mine.exists()
    assert evenkeel("reset", "--yes", "--data-dir", str(mine)) == (0, [{"deleted": True, "data_dir": str(mine)}])
    assert not mine.exists()
