"""`evenkeel doctor`: looks at this machine and a data folder, running or not, and says what to do about what it finds.

It changes nothing. Each check is a function that yields findings; `CHECKS` is the table of them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer
from rich.console import Console

from evenkeel.apps.cli.lifecycle import AsJson, DataDir
from evenkeel.contracts.topics import SERVICES, TOPICS
from evenkeel.libs.bus.kafka import KafkaBus
from evenkeel.libs.client.clients import Client
from evenkeel.libs.client.errors import ServiceError
from evenkeel.libs.client.local import addresses_of
from evenkeel.libs.disk import bytes_below, stats_below
from evenkeel.libs.errors import Retry
from evenkeel.libs.extras import ExtraMissing, require_extras
from evenkeel.libs.keys import KeyFolderError, signing_key, verification_keys
from evenkeel.libs.process.listeners import listening_process
from evenkeel.libs.process.ports import port_is_free
from evenkeel.libs.process.supervised import running_supervisor

State = Literal["ok", "note", "wrong"]
LOW_BYTES: Final = 2 * 2**30
FULL_BYTES: Final = 256 * 2**20
CLOCK_SECONDS: Final = 5.0
CHECKED_BYTES: Final = 2 * 2**30
"""Databases up to this size are checked page by page."""
_COLOURS: Final = {"ok": "green", "note": "yellow", "wrong": "red"}
_MARKS: Final = {"ok": "ok   ", "note": "note ", "wrong": "WRONG"}


@dataclass(frozen=True, slots=True)
class Finding:
    """`do` says what to do, unless the state is ok."""

    check: str
    state: State
    detail: str
    do: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """What is examined. `supervisor` is what a running `evenkeel up` says of itself."""

    data_dir: Path
    port_base: int
    broker: str
    supervisor: dict[str, Any] | None

    @property
    def runs(self) -> bool:
        return self.supervisor is not None


def doctor(
    data_dir: DataDir = Path(".evenkeel"),
    port_base: Annotated[
        int, typer.Option(envvar="EVENKEEL_PORT_BASE", help="The services' ports begin behind it.")
    ] = 8100,
    broker: Annotated[
        str | None, typer.Option(envvar=["BROKER", "EVENKEEL_BROKER"], help="host:port of the Kafka to look at.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check Python, versions, disk, clock, ports, broker, topics, stores, keys and services. Exit code 1 if one is wrong."""
    supervisor = running_supervisor(data_dir)
    where = broker or str((supervisor or {}).get("broker") or "127.0.0.1:9092")
    patient = Patient(data_dir.absolute(), port_base, where, supervisor)
    console, wrong = Console(highlight=False, soft_wrap=True), False
    for check in CHECKS:
        for finding in check(patient):
            wrong |= finding.state == "wrong"
            if as_json:
                print(json.dumps(asdict(finding)))
                continue
            console.print(_MARKS[finding.state], style=_COLOURS[finding.state], end=" ")
            console.print(f"{finding.check:<10}{finding.detail}", markup=False)
            if finding.do:
                console.print(f"{'':<16}→ {finding.do}", markup=False)
    if wrong:
        raise typer.Exit(1)


def python(patient: Patient) -> Iterator[Finding]:
    version = sys.version.split()[0]
    if sys.platform != "linux":
        yield Finding("python", "note", f"Python {version} on {sys.platform}", "Linux is what is tested.")
    else:
        yield Finding("python", "ok", f"Python {version}")


def versions(patient: Patient) -> Iterator[Finding]:
    """Every pinned dependency, as it is installed."""
    pins = Path(__file__).parents[3] / "requirements.txt"
    if not pins.exists():
        yield Finding("versions", "ok", f"evenkeel {metadata.version('evenkeel')}")
        return
    other = []
    for name, pinned in re.findall(
        r"^([A-Za-z0-9._-]+)(?:\[[^]]*\])?==([^\s;\\]+) *\\?$", pins.read_text(), re.MULTILINE
    ):
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found = "missing"
        if found != pinned:
            other.append(f"{name} {found} instead of {pinned}")
    if other:
        detail = f"{len(other)} packages are not as pinned: {', '.join(other[:5])}"
        yield Finding("versions", "note", detail, "Set the environment up again: rm .venv/ready; make .venv/ready")
    else:
        yield Finding("versions", "ok", f"evenkeel {metadata.version('evenkeel')}, every package as pinned")


def extras(patient: Patient) -> Iterator[Finding]:
    """What `evenkeel up` needs beyond the core."""
    try:
        require_extras("evenkeel up", "services", "embedded")
    except ExtraMissing as error:
        detail, _, command = str(error).partition(": ")
        yield Finding("extras", "note", detail, f"{command}, unless services and broker run elsewhere")


def disk(patient: Patient) -> Iterator[Finding]:
    folder = next(path for path in (patient.data_dir, *patient.data_dir.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK):
        yield Finding("disk", "wrong", f"{folder} cannot be written", "Give it to the user that runs the services.")
    elif free < FULL_BYTES:
        yield Finding("disk", "wrong", f"{_size(free)} free under {folder}", "Free space: writes will be refused.")
    elif free < LOW_BYTES:
        yield Finding("disk", "note", f"{_size(free)} free under {folder}", "Free some space before it is full.")
    else:
        yield Finding("disk", "ok", f"{_size(free)} free")
    if patient.data_dir.exists():
        parts = {part.name: bytes_below(part) for part in sorted(patient.data_dir.iterdir())}
        largest = sorted(parts.items(), key=lambda item: -item[1])[:6]
        shown = ", ".join(f"{name} {_size(size)}" for name, size in largest)
        yield Finding("disk", "ok", f"data folder holds {_size(sum(parts.values()))}: {shown}")


def clock(patient: Patient) -> Iterator[Finding]:
    """A clock that was set back breaks leases and the order of wall times."""
    now = time.time()
    newest = max((stat.st_mtime for stat in stats_below(patient.data_dir)), default=0.0)
    ahead = newest - now
    if ahead > CLOCK_SECONDS:
        yield Finding(
            "clock",
            "wrong",
            f"the clock is {ahead:.0f} s behind the newest file of the data folder",
            "Set the clock (NTP) before starting: leases and approvals expire by it.",
        )
    else:
        yield Finding("clock", "ok", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now)))


def ports(patient: Patient) -> Iterator[Finding]:
    if patient.runs:
        return
    wanted = {name: patient.port_base + number for number, name in enumerate(SERVICES, 1)}
    taken = [(name, port) for name, port in wanted.items() if not port_is_free(port)]
    for name, port in taken:
        owner = listening_process(port) or "another process"
        yield Finding(
            "ports",
            "wrong",
            f"port {port} for {name} is in use by {owner}",
            "Stop that process, or choose other ports with EVENKEEL_PORT_BASE.",
        )
    if not taken:
        yield Finding("ports", "ok", f"{patient.port_base + 1} to {patient.port_base + len(SERVICES)} are free")


def broker(patient: Patient) -> Iterator[Finding]:
    """The broker and the map's topics on it."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # a broker that is away is a finding, told once
    try:
        counts = asyncio.run(_partition_counts(patient.broker))
    except Retry:
        if patient.runs:
            do = f"See {patient.data_dir / 'logs'}; `evenkeel up` restarts its own broker by itself."
            yield Finding("broker", "wrong", f"no Kafka answers on {patient.broker}", do)
        else:
            yield Finding("broker", "note", f"no Kafka answers on {patient.broker}", "Start it with `evenkeel up`.")
        return
    yield Finding("broker", "ok", f"Kafka answers on {patient.broker}")
    missing = [topic.name for topic in TOPICS if topic.name not in counts]
    other = [t for t in TOPICS if t.name in counts and counts[t.name] != t.partitions]
    if missing:
        detail = f"{len(missing)} topics of the map are missing, such as {missing[0]}"
        yield Finding("topics", "wrong", detail, f"Make them: evenkeel topics --broker {patient.broker}")
    for topic in other:
        detail = f"{topic.name} has {counts[topic.name]} partitions, the map says {topic.partitions}"
        yield Finding("topics", "wrong", detail, "The count never changes in place: use a new broker folder.")
    if not missing and not other:
        yield Finding("topics", "ok", f"{len(TOPICS)} topics of the map are there")


async def _partition_counts(broker: str) -> dict[str, int]:
    async with asyncio.timeout(20):
        return await KafkaBus(broker, "evenkeel-doctor").partition_counts([topic.name for topic in TOPICS])


def stores(patient: Patient) -> Iterator[Finding]:
    found = [name for name in SERVICES if (patient.data_dir / f"{name}.db").exists()]
    for name in found:
        yield _database(patient.data_dir / f"{name}.db", name)
    view = patient.data_dir / "serving.lmdb"
    if view.exists():
        yield _view(view)
    if not found and not view.exists():
        yield Finding("stores", "note", f"no store in {patient.data_dir} yet", "`evenkeel up` makes them.")


def _database(path: Path, name: str) -> Finding:
    rebuild = f"`evenkeel rebuild {name}` makes it again: docs/operations.md, a store is lost or damaged."
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=5.0)) as connection:
            if path.stat().st_size <= CHECKED_BYTES:
                (answer,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                if answer != "ok":
                    return Finding("stores", "wrong", f"{path.name} is damaged: {answer}", rebuild)
            there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            rows = {
                table: connection.execute(f"SELECT count(*) FROM runtime_{table}").fetchone()[0]  # noqa: S608
                for table in ("outbox", "pending", "parked")
                if f"runtime_{table}" in there  # an older release has made it, and the next start brings it up to date
            }
    except sqlite3.DatabaseError as error:
        locked = "locked" in str(error)
        do = "Find who holds it: no other program may open it for writing." if locked else rebuild
        return Finding("stores", "wrong", f"{path.name} cannot be read: {error}", do)
    shown = ", ".join(f"{count} {table}" for table, count in rows.items())
    if rows.get("parked"):
        return Finding("stores", "note", f"{path.name}: {shown}", "Look at `evenkeel parked list`.")
    return Finding("stores", "ok", f"{path.name}: {_size(path.stat().st_size)}, {shown}")


def _view(folder: Path) -> Finding:
    try:
        import lmdb

        with closing(lmdb.open(str(folder), readonly=True, lock=False, max_dbs=1)) as environment:
            used = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    except ImportError:
        return Finding("stores", "note", f"{folder.name} is not looked at", "pip install 'evenkeel[serving]'")
    except lmdb.Error as error:
        do = "Stop serving and remove the folder: it reads the view again from its topic."
        return Finding("stores", "wrong", f"{folder.name} cannot be read: {error}", do)
    return Finding("stores", "ok", f"{folder.name}: {_size(used)}")


def keys(patient: Patient) -> Iterator[Finding]:
    folder = Path(os.environ.get("EVENKEEL_KEYS_DIR", patient.data_dir / "keys"))
    if not folder.exists():
        yield Finding("keys", "note", f"no keys in {folder} yet", "They are made at the first start.")
        return
    try:
        for name in verification_keys(folder):
            if (folder / f"{name}.key").exists():
                signing_key(folder, name)
    except KeyFolderError as error:
        yield Finding("keys", "wrong", str(error), "Do as it says; see docs/operations.md.")
        return
    loose = [path.name for path in folder.iterdir() if path.suffix in (".key", "") and path.stat().st_mode & 0o077]
    if loose:
        names = ", ".join(sorted(loose))
        yield Finding(
            "keys", "wrong", f"others may read {names} in {folder}", f"chmod 600 them, and chmod 700 {folder}"
        )
    else:
        yield Finding("keys", "ok", f"{len(list(folder.glob('*.key')))} key pairs in {folder}")
    tokens = Path(os.environ.get("EVENKEEL_TOKENS_FILE", folder / "tokens.json"))
    try:
        known = len(json.loads(tokens.read_text()))
        yield Finding("keys", "ok", f"{known} tokens may call")
    except (OSError, ValueError) as error:
        yield Finding("keys", "wrong", f"{tokens} cannot be read: {error}", "Nobody may call: `evenkeel up` writes it.")


def services(patient: Patient) -> Iterator[Finding]:
    if not patient.runs:
        yield Finding("services", "note", f"nothing runs on {patient.data_dir}", "Start it with `evenkeel up`.")
        return
    client = Client(addresses_of(patient.data_dir), timeout_seconds=5.0, attempts=1)
    for name in SERVICES:
        try:
            reason = client.service(name).ready().reason
        except ServiceError:
            reason = "it does not answer"
        if reason is not None:
            log = patient.data_dir / "logs" / f"{name}.log"
            yield Finding("services", "wrong", f"{name} is not ready: {reason}", f"See docs/operations.md, and {log}")
        else:
            yield Finding("services", "ok", f"{name} is ready")


CHECKS: Final[tuple[Callable[[Patient], Iterator[Finding]], ...]] = (
    python,
    versions,
    extras,
    disk,
    clock,
    ports,
    broker,
    stores,
    keys,
    services,
)


def _size(count: int) -> str:
    """
    >>> _size(3 * 2**20)
    '3.0 MiB'
    """
    unit = min(3, max(0, (count.bit_length() - 1) // 10))
    return f"{count / 1024**unit:.{0 if unit < 2 else 1}f} {('B', 'KiB', 'MiB', 'GiB')[unit]}"
