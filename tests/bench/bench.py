"""One benchmark at work: where it may write, which peers it has, what it has measured so far."""

from __future__ import annotations

import hashlib
import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import orjson

from evenkeel.apps.cli.supervisor import PROCESS_SETTINGS
from evenkeel.libs.errors import EvenkeelError
from evenkeel.libs.process.child import ChildProcess
from tests.bench.figures import Quantity, Result

PEERS: Final = Path(__file__).with_name("peers")
INSTALL_SECONDS: Final = 300.0
ANSWER_SECONDS: Final = 60.0
TICKS: Final = os.sysconf("SC_CLK_TCK")
_FOLDERS: Final = re.compile(r"/(?:[^\s/\"']+/)+")
ONE_THREAD: Final = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",
}
"""For every contestant alike: threads of numerical libraries would only wait for each other on busy cores."""


class Unavailable(EvenkeelError):
    """A contestant cannot be measured here; the message says why, and goes onto the page in place of a figure."""


class Bench:
    """Collects the figures of one benchmark. A contestant that fails is left out of the rounds that follow."""

    keys: tuple[int, ...] = (10_000, 100_000)
    """How many keys the pipeline is measured with."""

    def __init__(self, result: Result, folder: Path, environments: Path, started: float) -> None:
        self.result, self.folder, self._environments, self._started = result, folder, environments, started
        self.rounds = result.rounds
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

    def say(self, text: str) -> None:
        print(f"{time.perf_counter() - self._started:6.0f} s  {self.result.name}: {text}", flush=True)

    def record(self, name: str, unit: str, contestant: str, value: float, *, less_is_better: bool = False) -> None:
        quantity = self.result.quantity(name)
        if quantity is None:
            quantity = Quantity(name, unit, less_is_better, {})
            self.result.quantities.append(quantity)
        quantity.values.setdefault(contestant, []).append(value)

    def leave_out(self, contestant: str, why: str) -> None:
        self.say(f"{contestant} is left out: {why}")
        self.result.missing[contestant] = why
        for quantity in self.result.quantities:
            quantity.values.pop(contestant, None)

    async def attempt(self, contestant: str, work: Callable[[], Awaitable[None]]) -> None:
        """Run one contestant's part of a round, unless it failed before."""
        if contestant in self.result.missing:
            return
        try:
            await work()
        except Unavailable as error:
            self.leave_out(contestant, str(error))

    def environment(self, name: str) -> Path:
        """Python of the virtual environment of `peers/<name>.txt`, made at first use. Raises Unavailable."""
        pins = PEERS / f"{name}.txt"
        folder = self._environments / name
        python, stamp = folder / "bin" / "python", folder / "pins"
        digest = hashlib.sha256(pins.read_bytes()).hexdigest()
        if not stamp.exists() or stamp.read_text() != digest:
            self.say(f"installing {name}")
            shutil.rmtree(folder, ignore_errors=True)
            uv = Path(sys.executable).with_name("uv")
            _install([uv, "venv", "--quiet", "--python", sys.executable, folder])
            _install([uv, "pip", "install", "--quiet", "--python", python, "-r", pins])
            stamp.write_text(digest)
        for line in pins.read_text().splitlines():
            package, _, version = line.partition(" ")[0].partition("==")
            if package in name.split("-") and version:
                self.result.versions[package] = version
        return python


def _install(command: list[str | Path]) -> None:
    try:
        subprocess.run(
            [str(part) for part in command], check=True, capture_output=True, text=True, timeout=INSTALL_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"its installation takes more than {INSTALL_SECONDS:.0f} s here.") from None
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"it cannot be installed here: {_last_words(error.stderr)}") from None


class Worker:
    """A program in another environment that measures on demand: a line of JSON in, a line of JSON out."""

    def __init__(self, python: Path, script: str, log: Path, *arguments: str | Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [python, PEERS / script, *map(str, arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                env={**os.environ, **ONE_THREAD},
            )
        self._answer()

    def ask(self, **question: object) -> dict[str, float]:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(orjson.dumps(question) + b"\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_SECONDS)
        if not ready:
            raise Unavailable(f"it did not answer within {ANSWER_SECONDS:.0f} s.")
        line = self._process.stdout.readline()
        if not line:
            raise Unavailable(f"it ended: {tail(self._log)}")
        answer: dict[str, float] = orjson.loads(line)
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def run_peer(python: Path, script: str, log: Path, seconds: float, *arguments: str | Path) -> dict[str, float]:
    """Run a peer's program to its end; the JSON of its last line. Raises Unavailable."""
    command = [str(python), str(PEERS / script), *map(str, arguments)]
    with log.open("wb") as output:
        try:
            done = subprocess.run(
                command,
                check=False,
                stdout=subprocess.PIPE,
                stderr=output,
                env={**os.environ, **ONE_THREAD},
                timeout=seconds,
            )
        except subprocess.TimeoutExpired:
            raise Unavailable(f"it was not done after {seconds:.0f} s.") from None
    if done.returncode:
        raise Unavailable(f"it ended with exit code {done.returncode}: {tail(log)}")
    answer: dict[str, float] = orjson.loads(done.stdout.strip().splitlines()[-1])
    return answer


def start_peer(command: list[str | Path], log: Path, folder: Path, **environment: str) -> ChildProcess:
    """A peer's server, in a session of its own that ends with this process."""
    return ChildProcess(command, log=log, environment={**os.environ, **ONE_THREAD, **environment}, folder=folder)


def start_service(name: str, data_dir: Path, broker: str, port: int, **environment: str) -> ChildProcess:
    """One of our services, as `evenkeel up` starts it."""
    own = {
        "EVENKEEL_DATA_DIR": str(data_dir),
        "EVENKEEL_BROKER": broker,
        "EVENKEEL_PORT": str(port),
        "EVENKEEL_LOG_LEVEL": "warning",
        "EVENKEEL_ACCEPT_NEW_STORE": "true",  # each round begins with an empty one
    }
    log = data_dir / "logs" / f"{name}.log"
    command = [sys.executable, "-m", "evenkeel.services", name]
    return ChildProcess(command, log=log, environment={**os.environ, **PROCESS_SETTINGS, **own, **environment})


def cpu_seconds(session: int) -> float:
    """CPU time so far of all living processes of a session: a server and its workers."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def tail(log: Path) -> str:
    """The end of a log, short enough for the page."""
    return _last_words(log.read_text(errors="replace")) or "(nothing said)"


def _last_words(text: str) -> str:
    """The last lines, on one, without this machine's folders."""
    lines = text.strip().splitlines()[-3:]
    return _FOLDERS.sub("…/", " ".join(line.strip(" ^~│") for line in lines))[-300:]


def machine() -> str:
    """What the figures were measured on."""
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 2**20
    python = ".".join(map(str, sys.version_info[:3]))
    return f"{os.cpu_count()} cores, {memory:.0f} GiB, Linux, CPython {python}, Apache Kafka {kafka_version()}."


def kafka_version() -> str:
    lock = (Path(__file__).parents[2] / "deploy" / "kafka" / "jgo.toml").read_text()
    _, _, after = lock.partition("org.apache.kafka:")
    return after.partition(":")[2].partition('"')[0].partition(":")[0] or "unknown"
