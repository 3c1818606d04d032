"""Starts the embedded broker and the seven services, waits until they are ready, restarts what died, stops them all."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Self

from evenkeel.apps.broker.embedded import EmbeddedKafka, EmbeddedKafkaError
from evenkeel.apps.cli.tokens import bootstrap_token
from evenkeel.contracts.topics import SERVICES
from evenkeel.libs.bus.topics import create_map_topics
from evenkeel.libs.errors import EvenkeelError, Retry
from evenkeel.libs.process.child import ChildProcess
from evenkeel.libs.process.listeners import listening_process
from evenkeel.libs.process.lock import FolderLock, FolderLocked
from evenkeel.libs.process.ports import LOOPBACK, port_is_free
from evenkeel.libs.process.supervised import running_supervisor
from evenkeel.libs.settings import SUPERVISOR_VARIABLES
from evenkeel.libs.store.format import claim_folder

BROKER: Final = "kafka"
TOPICS_TIMEOUT_SECONDS: Final = 30.0
READY_TIMEOUT_SECONDS: Final = 120.0
STOP_SERVICES_SECONDS: Final = 11.0
STOP_BROKER_SECONDS: Final = 3.5
_LOOK_EVERY_SECONDS: Final = 0.2
_FIRST_DELAY_SECONDS: Final = 0.5
_LONGEST_DELAY_SECONDS: Final = 30.0
_STABLE_AFTER_SECONDS: Final = 20.0
_STARTS_BEFORE_GIVING_UP: Final = 3
_LOG_LIMIT_BYTES: Final = 10_000_000
_LAST_WORDS_BYTES: Final = 16_384
PROCESS_SETTINGS: Final = {
    "ORT_DISABLE_TELEMETRY": "1",
    # Seven services share the cores: threads of numerical libraries would only wait for each other.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "2",
    # Left to itself, glibc raises this with each array that is freed and keeps their memory: twice governance's index.
    "MALLOC_MMAP_THRESHOLD_": "1048576",
    "MALLOC_TRIM_THRESHOLD_": "33554432",
    "PYTHONUNBUFFERED": "1",
}
"""How a service's process runs, here as in its image, unless the environment says otherwise."""


class SupervisorError(EvenkeelError):
    """The system cannot start or is not in the state that a command needs; the message says what to change."""


What = Literal["progress", "starting", "ready", "died", "restarting", "stopping", "stopped"]


@dataclass(frozen=True, slots=True)
class Notice:
    """Something the supervisor did or saw, for a person or a log."""

    what: What
    process: str
    message: str


@dataclass(slots=True)
class _Watched:
    """One process of the system and how it fared."""

    name: str
    failures: int = 0
    restarts: int = 0
    started_at: float = 0.0
    restart_at: float | None = None
    is_awaited: bool = False
    """Started, and not seen ready since."""
    answer: str = "no answer"

    def died(self, now: float) -> float:
        """Plan the next start; returns the delay in seconds: doubled with each failure, short again once it has lived a while."""
        if now - self.started_at > _STABLE_AFTER_SECONDS:
            self.failures = 0
        delay_seconds = min(_LONGEST_DELAY_SECONDS, _FIRST_DELAY_SECONDS * 2.0**self.failures)
        self.failures += 1
        self.restart_at = now + delay_seconds
        return delay_seconds


class Supervisor:
    """Owns the system's processes: none of them outlives it.

    Without `broker` (or BROKER / EVENKEEL_BROKER in the environment) it starts the embedded Kafka on `broker_port`.
    A service's port is `port_base` + its place in `evenkeel.contracts.topics.SERVICES`, from 1. `commands` replaces what is
    started (default: `python -m evenkeel.services <name>` for all seven), `environment` adds to what each process gets. Unless it
    `needs_all`, `start` goes on without services that cannot start, if there is one that can; they are tried again.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port_base: int = 8100,
        broker_port: int = 9092,
        broker: str | None = None,
        commands: Mapping[str, Sequence[str]] | None = None,
        environment: Mapping[str, str] | None = None,
        needs_all: bool = True,
        on_notice: Callable[[Notice], None] | None = None,
    ) -> None:
        self.data_dir, self.port_base = Path(data_dir).absolute(), port_base
        self._environment = {**PROCESS_SETTINGS, **os.environ, **(environment or {})}
        external = broker or self._environment.get("BROKER") or self._environment.get("EVENKEEL_BROKER")
        self.kafka: EmbeddedKafka | None = None
        if not external:
            self.kafka = EmbeddedKafka(
                self.data_dir, broker_port, on_progress=lambda text: self._notify("progress", BROKER, text)
            )
        self.broker: str = external or f"{LOOPBACK}:{broker_port}"
        """Kafka's bootstrap address."""
        self.commands = dict(commands or {name: (sys.executable, "-m", "evenkeel.services", name) for name in SERVICES})
        self.ports = {name: port_base + 1 + SERVICES.index(name) for name in self.commands}
        self.urls = {name: f"http://{LOOPBACK}:{port}" for name, port in self.ports.items()}
        """Base address of each service's HTTP port."""
        self.token = ""
        """The bootstrap token, known after `start`."""
        self.token_is_new = False
        self.lacking: dict[str, str] = {}
        """Services that `start` went on without, and why."""
        self._needs_all = needs_all
        self._on_notice = on_notice or (lambda notice: None)
        self._lock = FolderLock(self.data_dir / "supervisor.json")
        self.exit_codes: dict[str, int | None] = {}
        """How the services ended that `stop` has stopped; negative: ended by that signal."""
        self._processes: dict[str, ChildProcess] = {}
        self._watched = {name: _Watched(name) for name in (BROKER, *self.commands)}
        self._stopping = threading.Event()
        self._watch: list[threading.Thread] = []

    def start(self) -> None:
        """Start everything and wait until it is ready. Raises `SupervisorError`, or Stop for the folder of another
        release; nothing is left running then."""
        claim_folder(self.data_dir)
        self._own_folder()
        try:
            self._stopping.clear()
            self._require_free_ports()
            self._start_broker()
            self._make_topics()
            self._make_token()
            for name in self.commands:
                self._start_service(name)
            self._wait_until_ready()
            self._write_state(ready=True)
            loops = (self._watch_services, self._watch_broker) if self.kafka else (self._watch_services,)
            self._watch = [threading.Thread(target=loop, name=loop.__name__, daemon=True) for loop in loops]
            for thread in self._watch:
                thread.start()
        except EmbeddedKafkaError as error:
            self.stop()
            raise SupervisorError(str(error)) from error
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the services, then the broker, within 15 seconds; whoever does not go is killed."""
        self._stopping.set()
        running = {name: process for name, process in self._processes.items() if process.is_running}
        if running or (self.kafka and self.kafka.is_running):
            self._notify("stopping", "evenkeel", f"stopping {len(running)} services and the broker")
        for process in running.values():
            process.terminate()
        deadline = time.monotonic() + STOP_SERVICES_SECONDS
        for name, process in running.items():
            if not process.wait(max(0.0, deadline - time.monotonic())):
                process.kill()
                self._notify("died", name, f"{name} did not stop within {STOP_SERVICES_SECONDS:.0f} s and was killed")
        if self.kafka is not None:
            self.kafka.stop(STOP_BROKER_SECONDS)
        for thread in self._watch:
            if thread is not threading.current_thread():
                thread.join(STOP_BROKER_SECONDS)
        if self.kafka is not None:  # a restart may have been under way
            self.kafka.stop(STOP_BROKER_SECONDS)
        for process in self._processes.values():
            process.kill()
        self.exit_codes = {name: process.exit_code for name, process in running.items()}
        self._processes.clear()
        self._watch = []
        if self._lock.is_held:
            self._lock.release()
            self._notify("stopped", "evenkeel", "stopped")

    def kill(self, name: str) -> None:
        """`kill -9` a service or the broker ("kafka"); it is restarted like one that died."""
        if name == BROKER:
            if self.kafka is None:
                raise SupervisorError(f"the broker {self.broker} is not ours to kill")
            self.kafka.kill()
        else:
            self._processes[name].kill()

    @property
    def pids(self) -> dict[str, int]:
        """Process ids of what runs now, "kafka" included if it is embedded."""
        running = {name: process.pid for name, process in self._processes.items() if process.is_running}
        kafka_pid = self.kafka.pid if self.kafka else None
        return running if kafka_pid is None else {BROKER: kafka_pid, **running}

    @property
    def restarts(self) -> dict[str, int]:
        """How often each process was restarted since `start`."""
        return {name: watched.restarts for name, watched in self._watched.items()}

    def is_ready(self, name: str) -> bool:
        """Whether the service answers its readiness probe now."""
        watched = self._watched[name]
        ready, watched.answer = _probe(self.ports[name])
        return ready

    def log_path(self, name: str) -> Path:
        return self.data_dir / "logs" / f"{name}.log"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _notify(self, what: What, process: str, message: str) -> None:
        self._on_notice(Notice(what, process, message))

    def _own_folder(self) -> None:
        if self._lock.is_held:
            raise SupervisorError(f"this supervisor of {self.data_dir} is running already: stop it first")
        try:
            self._lock.acquire()
        except FolderLocked:
            state = running_supervisor(self.data_dir) or {}
            raise SupervisorError(
                f"Evenkeel runs already on {self.data_dir} (process {state.get('pid', 'unknown')}): stop it with "
                "`evenkeel down`, or choose another folder with EVENKEEL_DATA_DIR"
            ) from None
        self._write_state(ready=False)

    def _write_state(self, *, ready: bool) -> None:
        state = {"pid": os.getpid(), "ready": ready, "broker": self.broker, "urls": self.urls, "lacking": self.lacking}
        self._lock.write(json.dumps(state))

    def _require_free_ports(self) -> None:
        wanted = [(name, port, "EVENKEEL_PORT_BASE") for name, port in self.ports.items()]
        if self.kafka:
            wanted.insert(0, (BROKER, self.kafka.port, "EVENKEEL_BROKER_PORT"))
        for name, port, setting in wanted:
            if not port_is_free(port):
                owner = listening_process(port)
                raise SupervisorError(
                    f"port {port} for {name} is in use{f' by {owner}' if owner else ''}: stop that process, or choose "
                    f"another port with {setting}"
                )

    def _start_broker(self) -> None:
        watched = self._watched[BROKER]
        watched.started_at, watched.restart_at = time.monotonic(), None
        if self.kafka is not None:
            self.kafka.start()
            self._notify("ready", BROKER, f"Kafka answers on {self.broker}")
        else:
            host, _, port = self.broker.split(",")[0].rpartition(":")
            try:
                socket.create_connection((host, int(port)), timeout=5.0).close()
            except (OSError, ValueError) as error:
                raise SupervisorError(
                    f"no Kafka answers on {self.broker} ({error}): start it, or unset BROKER"
                ) from error

    def _make_topics(self) -> None:
        self._notify("progress", BROKER, "making the topics")
        deadline = time.monotonic() + TOPICS_TIMEOUT_SECONDS
        with ThreadPoolExecutor(1) as pool:  # the caller may have an event loop of its own
            while True:
                try:
                    pool.submit(lambda: asyncio.run(create_map_topics(self.broker))).result()
                    return
                except Retry as error:
                    if time.monotonic() > deadline:
                        raise SupervisorError(f"the topics could not be made on {self.broker}: {error}") from error
                self._stopping.wait(_LOOK_EVERY_SECONDS)

    def _make_token(self) -> None:
        keys = Path(self._environment.get("EVENKEEL_KEYS_DIR", self.data_dir / "keys"))
        tokens = Path(self._environment.get("EVENKEEL_TOKENS_FILE", keys / "tokens.json"))
        try:
            self.token, self.token_is_new = bootstrap_token(keys, tokens)
        except (OSError, ValueError) as error:
            raise SupervisorError(f"the bootstrap token in {keys} cannot be read or made: {error}") from error

    def _start_service(self, name: str) -> None:
        watched = self._watched[name]
        watched.started_at, watched.restart_at = time.monotonic(), None
        watched.is_awaited = True
        log = self.log_path(name)
        if log.exists() and log.stat().st_size > _LOG_LIMIT_BYTES:
            log.replace(log.with_suffix(".log.1"))
        inherited = {key: value for key, value in self._environment.items() if key not in SUPERVISOR_VARIABLES}
        own = {
            "EVENKEEL_DATA_DIR": str(self.data_dir),
            "EVENKEEL_BROKER": self.broker,
            "EVENKEEL_PORT": str(self.ports[name]),
        }
        self._processes[name] = ChildProcess(self.commands[name], log=log, environment={**inherited, **own})
        self._notify("starting", name, f"{name} started (process {self._processes[name].pid})")

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_SECONDS
        while waiting := self._awaited():
            self._tend_services()
            self.lacking = self._lacking(waiting, is_late=time.monotonic() > deadline)
            if self.lacking and (self._needs_all or len(self.lacking) == len(self.commands)):
                raise SupervisorError("; ".join(self.lacking.values()))
            if len(self.lacking) == len(waiting):
                for name, why in self.lacking.items():
                    self._notify("died", name, f"{why}. It is tried again; the others go on without it")
                return
            self._stopping.wait(_LOOK_EVERY_SECONDS)

    def _awaited(self) -> list[str]:
        """Look who is ready now; returns the others of those that were started."""
        waiting = [name for name in self.commands if self._watched[name].is_awaited]
        for name in filter(self.is_ready, list(waiting)):
            waiting.remove(name)
            self._watched[name].is_awaited = False
            self._notify("ready", name, f"{name} is ready on {self.urls[name]}")
        return waiting

    def _lacking(self, waiting: Sequence[str], *, is_late: bool) -> dict[str, str]:
        """Which of those that are waited for will not be ready soon, and why."""
        lacking = {}
        for name in waiting:
            log, watched = self.log_path(name), self._watched[name]
            if watched.failures >= _STARTS_BEFORE_GIVING_UP:
                lacking[name] = (
                    f"{name} ended {_STARTS_BEFORE_GIVING_UP} times while starting; {log} ends with: {_last_words(log)}"
                )
            elif is_late:
                lacking[name] = f"{name} is not ready after {READY_TIMEOUT_SECONDS:.0f} s: {watched.answer}; see {log}"
        return lacking

    def _watch_services(self) -> None:
        while not self._stopping.wait(_LOOK_EVERY_SECONDS):
            self._tend_services()
            waiting = self._awaited()
            if back := self.lacking.keys() - waiting:
                self.lacking = {name: why for name, why in self.lacking.items() if name not in back}
                self._write_state(ready=True)

    def _tend_services(self) -> None:
        now = time.monotonic()
        for name in self.commands:
            process, watched = self._processes[name], self._watched[name]
            if process.is_running or self._stopping.is_set():
                continue
            if watched.restart_at is None:
                delay_seconds = watched.died(now)
                how = f"{name} {_how(process.exit_code)}"
                self._notify("died", name, f"{how}; restarting in {delay_seconds:.1f} s, see {self.log_path(name)}")
            elif now >= watched.restart_at:
                watched.restarts += 1
                self._notify("restarting", name, f"restarting {name}")
                self._start_service(name)

    def _watch_broker(self) -> None:
        assert self.kafka is not None
        watched = self._watched[BROKER]
        while not self._stopping.wait(_LOOK_EVERY_SECONDS):
            if self.kafka.is_running:
                continue
            delay_seconds = watched.died(time.monotonic())
            self._notify("died", BROKER, f"Kafka ended; restarting in {delay_seconds:.1f} s, see {self.kafka.log}")
            if self._stopping.wait(delay_seconds):
                return
            watched.restarts += 1
            self._notify("restarting", BROKER, "restarting Kafka")
            try:
                self._start_broker()
            except EmbeddedKafkaError as error:
                self._notify("died", BROKER, str(error))


def _probe(port: int) -> tuple[bool, str]:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=2.0)
    try:
        connection.request("GET", "/health/ready")
        response = connection.getresponse()
        body = response.read(2000).decode(errors="replace")
        return response.status == 200, f"{response.status} {body}"
    except (OSError, http.client.HTTPException) as error:
        return False, f"no answer ({error})"
    finally:
        connection.close()


def _how(exit_code: int | None) -> str:
    return f"was ended by signal {-exit_code}" if exit_code and exit_code < 0 else f"ended with exit code {exit_code}"


def _last_words(path: Path) -> str:
    """What a process said when it ended: the line behind its JSON log, or the log's last."""
    end = b""
    if path.exists():
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - _LAST_WORDS_BYTES))
            end = log.read()
    lines = end.decode(errors="replace").strip().splitlines()
    plain = [line for line in lines[-20:] if not line.startswith("{")]
    return next(iter([*plain[-1:], *lines[-1:]]), "(nothing)").strip()
