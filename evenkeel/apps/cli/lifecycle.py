"""`evenkeel up`, `down` and `reset`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from evenkeel.apps.cli.supervisor import Notice, Supervisor, SupervisorError
from evenkeel.libs.extras import require_extras
from evenkeel.libs.process.lock import FolderLock, FolderLocked
from evenkeel.libs.process.supervised import running_supervisor

_DOWN_SECONDS = 25.0
_DETACHED_START_SECONDS = 600.0
_COLOURS = {"ready": "green", "died": "red", "restarting": "yellow"}

DataDir = Annotated[
    Path, typer.Option("--data-dir", envvar="EVENKEEL_DATA_DIR", help="Everything durable lives below it.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line instead of text for people.")]


def up(
    data_dir: DataDir = Path(".evenkeel"),
    port_base: Annotated[
        int, typer.Option(envvar="EVENKEEL_PORT_BASE", help="The services listen on this port + 1 to 7.")
    ] = 8100,
    broker_port: Annotated[int, typer.Option(envvar="EVENKEEL_BROKER_PORT", help="Port of the embedded Kafka.")] = 9092,
    broker: Annotated[
        str | None,
        typer.Option(envvar=["BROKER", "EVENKEEL_BROKER"], help="host:port of another Kafka, instead of the embedded."),
    ] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Go on in the background until `evenkeel down`.")] = False,
    as_json: AsJson = False,
) -> None:
    """Start the broker and the seven services, watch them, and restart what died. Ctrl-C stops them."""
    require_extras("evenkeel up", "services", *(() if broker else ("embedded",)))
    if detach:
        _detach(data_dir, port_base, broker_port, broker, as_json)
        return
    out = _Output(as_json)
    supervisor = Supervisor(
        data_dir,
        port_base=port_base,
        broker_port=broker_port,
        broker=broker,
        needs_all=False,
        on_notice=out.notice,
    )
    asked_to_stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        supervisor.start()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: asked_to_stop.set())
        out.running(supervisor)
        asked_to_stop.wait()
    except KeyboardInterrupt:  # while it started; `start` has stopped everything
        raise typer.Exit(130) from None
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        supervisor.stop()


def down(data_dir: DataDir = Path(".evenkeel"), as_json: AsJson = False) -> None:
    """Stop a running `evenkeel up`. Everything in the data folder stays."""
    out = _Output(as_json)
    state = running_supervisor(data_dir)
    if state is None:
        out.result(f"nothing runs on {data_dir}", stopped=False, data_dir=str(data_dir))
        return
    pid = int(str(state.get("pid", 0)))
    if pid <= 0:
        raise SupervisorError(f"{data_dir / 'supervisor.json'} names no process: stop the one that holds it by hand")
    out.progress(f"stopping process {pid}")
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _DOWN_SECONDS
    pause = threading.Event()
    killed = False
    while running_supervisor(data_dir) is not None:
        if time.monotonic() > deadline and not killed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)  # its processes end with it
            killed = True
        pause.wait(0.1)
    out.result(f"stopped{' (it had to be killed)' if killed else ''}", stopped=True, killed=killed, pid=pid)


def reset(
    data_dir: DataDir = Path(".evenkeel"),
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete the data folder: topics, databases, models, keys. Downloads stay, and so do topics in another Kafka."""
    out = _Output(as_json)
    if not data_dir.exists():
        out.result(f"{data_dir} does not exist", deleted=False, data_dir=str(data_dir))
        return
    if not (data_dir / "supervisor.json").exists() and not (data_dir / "kafka" / "lock").exists():
        raise SupervisorError(f"{data_dir} does not look like a data folder of Evenkeel: nothing was deleted")
    locks = [FolderLock(data_dir / "supervisor.json"), FolderLock(data_dir / "kafka" / "lock")]
    try:
        for lock in locks:
            lock.acquire()
    except FolderLocked as locked:
        raise SupervisorError(f"{data_dir} is in use ({locked}): run `evenkeel down` first") from None
    else:
        if not yes and (as_json or not typer.confirm(f"Delete {data_dir.absolute()} and everything in it?")):
            raise SupervisorError("nothing was deleted: confirm, or add --yes")
        shutil.rmtree(data_dir)
    finally:
        for lock in locks:
            lock.release()
    out.result(f"{data_dir} deleted", deleted=True, data_dir=str(data_dir))


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _detach(data_dir: Path, port_base: int, broker_port: int, broker: str | None, as_json: bool) -> None:
    """Start `evenkeel up` in a session of its own and wait until it is ready."""
    out = _Output(as_json)
    if running_supervisor(data_dir) is not None:
        raise SupervisorError(f"Evenkeel runs already on {data_dir}: stop it with `evenkeel down`")
    log = data_dir.absolute() / "logs" / "supervisor.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "evenkeel.apps.cli.main", "up", "--data-dir", str(data_dir.absolute())]
    command += ["--port-base", str(port_base), "--broker-port", str(broker_port)]
    command += ["--broker", broker] if broker else []
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    deadline = time.monotonic() + _DETACHED_START_SECONDS
    shown = 0
    while not (state := running_supervisor(data_dir) or {}).get("ready"):
        try:
            process.wait(0.2)
        except subprocess.TimeoutExpired:
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
            for line in lines[shown:]:
                out.progress(line)
            shown = len(lines)
            if time.monotonic() > deadline:
                process.terminate()
                raise SupervisorError(f"not ready after {_DETACHED_START_SECONDS:.0f} s, see {log}") from None
            continue
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["no output"]
        raise SupervisorError(f"it did not start: {lines[-1].removeprefix('error: ')} (see {log})")
    urls = state.get("urls")
    out.result(
        f"running in the background (process {process.pid}); its messages go to {log}",
        pid=process.pid,
        broker=state.get("broker"),
        urls=urls,
        log=str(log),
    )
    lacking = state.get("lacking")
    if isinstance(lacking, dict) and lacking:
        raise SupervisorError(f"it goes on without {', '.join(lacking)}: {'; '.join(lacking.values())}")


class _Output:
    """Text for people, or one JSON object a line."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._console = Console(soft_wrap=True, highlight=False)

    def notice(self, notice: Notice) -> None:
        if self._as_json:
            self._write({"notice": notice.what, "process": notice.process, "message": notice.message})
        else:
            colour = _COLOURS.get(notice.what, "default")
            stamp = time.strftime("%H:%M:%S")
            self._console.print(f"[dim]{stamp}[/dim] ", end="")
            self._console.print(notice.message, style=colour, markup=False)

    def progress(self, message: str) -> None:
        if not self._as_json:
            self._console.print(message, markup=False)

    def result(self, message: str, **fields: object) -> None:
        if self._as_json:
            self._write(fields)
        else:
            self._console.print(message, markup=False)

    def running(self, supervisor: Supervisor) -> None:
        token = {"token": supervisor.token} if supervisor.token_is_new else {}
        if self._as_json:
            ready = {"ready": not supervisor.lacking, "lacking": supervisor.lacking}
            self._write({**ready, "broker": supervisor.broker, "urls": supervisor.urls, **token})
            return
        table = Table("service", "address", box=None, header_style="bold")
        table.add_row("kafka", supervisor.broker)
        for name, url in supervisor.urls.items():
            table.add_row(name, f"{url}  [red]not ready[/red]" if name in supervisor.lacking else url)
        self._console.print(table)
        if token:
            self._console.print(f"Token with every role, shown once: {supervisor.token}", markup=False)
        self._console.print("Ctrl-C stops everything; the data folder stays.")

    def _write(self, fields: dict[str, object]) -> None:
        print(json.dumps(fields), flush=True)
