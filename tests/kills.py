"""Kill -9 at every step of a service, and what must be true afterwards.

A service's input is cut into parts. Copies of the service, one per kind of store, are killed once per part, each time at
another step; one more copy is never killed. All read the same topics, and what each tells is known by its store's id in
`ce_source`: all of them must tell the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

import orjson

from evenkeel.contracts.envelope import IN_BAND_TYPES, attributes_of, origin_of
from evenkeel.contracts.http.route import ROLES
from evenkeel.contracts.topics import SERVICES, published_by
from evenkeel.libs.client.clients import AsyncClient
from evenkeel.libs.client.errors import ServiceError
from evenkeel.libs.process.ports import LOOPBACK, free_port
from evenkeel.libs.service import Service, Stateless
from evenkeel.libs.settings import PREFIX
from evenkeel.services.__main__ import main
from tests.running import Running, eventually, read_topic, running, write_token

ROOT: Final = Path(__file__).parents[1]
LOOP: Final = (
    "loop.fetched",
    "loop.begun",
    "loop.handled",
    "loop.outbox",
    "loop.positions",
    "loop.committed",
    "publish.sent",
    "publish.deleted",
)
STEPS: Final[dict[str, tuple[str, ...]]] = {
    "ingest": LOOP,
    "feature": (*LOOP, "merge.released", "dataset.staged", "dataset.left", "dataset.committed"),
    "trainer": (*LOOP, "job.started", "job.finished"),
    "registry": (*LOOP, "promotion.decided"),
    "serving": (*LOOP, "score.sent", "swap.verified", "swap.done"),
    "monitor": (*LOOP, "merge.released"),
    "governance": (*LOOP, "checkpoint.signed"),
}
"""Where each service can be killed: every place that its code passes. A test kills it at all of them."""

KILL_SECONDS: Final = 120.0

# A service's imports cost more than its start. They are done once, in a process that the others are forked from.
_processes: Final = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["__main__", __name__, *(f"evenkeel.services.{name}.service" for name in SERVICES)])


def _serve(name: str, variables: dict[str, str], log: Path) -> None:
    """`python -m evenkeel.services NAME` with these settings alone, its output appended to `log`."""
    for variable in [variable for variable in os.environ if variable.startswith(PREFIX)]:
        del os.environ[variable]
    os.environ.update(variables)
    log.parent.mkdir(exist_ok=True)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    sys.argv = ["evenkeel.services", name]
    main()


Call = Callable[[AsyncClient], Awaitable[Any]]


@dataclass
class Copy:
    """One copy of a service, in a data folder and a database of its own."""

    service: Service[Any]
    broker: str
    data_dir: Path
    database_url: str | None = None
    killed_at: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.token = write_token(self.data_dir, *ROLES)

    async def killed(self, failpoint: str, call: Call | None = None) -> None:
        """Run the service's process until it dies at `name@n`. `call` is made of it meanwhile, over and over."""
        name, _, count = failpoint.partition("@")
        self.killed_at.append(name)
        port, log = free_port(), self.data_dir / "logs" / f"{self.service.name}.log"
        variables = {
            **{name: value for name, value in os.environ.items() if name.startswith(PREFIX)},
            "EVENKEEL_BROKER": self.broker,
            "EVENKEEL_DATA_DIR": str(self.data_dir),
            "EVENKEEL_PORT": str(port),
            "EVENKEEL_ACCEPT_NEW_STORE": "true",  # the copies publish side by side
            "EVENKEEL_FAILPOINTS": f"{name}=kill@{count}",
            **({"EVENKEEL_DATABASE_URL": self.database_url} if self.database_url else {}),
        }
        process = _processes.Process(target=_serve, args=(self.service.name, variables, log), daemon=True)
        process.start()
        try:
            calling = asyncio.create_task(self._call(f"http://{LOOPBACK}:{port}", call, process))
            await asyncio.to_thread(process.join, KILL_SECONDS)
            tail = log.read_text().splitlines()[-20:]
            assert process.exitcode is not None, f"{self.service.name} never came to {failpoint}: {tail}"
            assert process.exitcode == -signal.SIGKILL, f"{self.service.name} ended by itself: {tail}"
        finally:
            process.kill()
            process.join()
        await calling

    async def _call(self, url: str, call: Call | None, process: BaseProcess) -> None:
        async with self.client(url) as client:
            while call is not None and process.is_alive():
                with contextlib.suppress(ServiceError):  # not yet, or no more
                    if (await client.service(self.service.name).ready()).reason is None:
                        await call(client)
                await asyncio.sleep(0.02)

    def client(self, url: str) -> AsyncClient:
        """Each call is sent once: whoever is killed over it is asked anew by whoever asked."""
        return AsyncClient({self.service.name: url}, token=self.token, timeout_seconds=20, attempts=1)

    @contextlib.asynccontextmanager
    async def undisturbed(self) -> AsyncIterator[tuple[Running, AsyncClient]]:
        """The service in this process, once it has consumed everything that is on its topics."""
        settings = {} if self.database_url is None else {"database_url": self.database_url}
        # One that was killed goes on in the group that its processes were in, where that says what is done (scoring).
        group = f"evenkeel-{self.service.name}" if self.killed_at else None
        async with (
            running(self.service, self.broker, self.data_dir, http=True, group=group, **settings) as up,
            self.client(up.url) as client,
        ):
            await eventually(up.runtime.has_read_all, f"{self.data_dir.name} to consume its topics", KILL_SECONDS)
            yield up, client


@dataclass
class Trial:
    """The copies of one service: those that are killed, and the one that is not."""

    killed: list[Copy]
    quiet: Copy

    @property
    def copies(self) -> list[Copy]:
        return [*self.killed, self.quiet]

    async def kill(self, failpoint: str, call: Call | None = None) -> None:
        await asyncio.gather(*(copy.killed(failpoint, call) for copy in self.killed))

    async def settle(self, call: Call | None = None) -> list[Any]:
        """Let every copy consume all there is; what `call` got from each, which must be the same."""

        async def one(copy: Copy) -> Any:
            async with copy.undisturbed() as (_, client):
                return await call(client) if call is not None else None

        return list(await asyncio.gather(*(one(copy) for copy in self.copies)))

    def was_killed_at_every_step(self) -> None:
        service = self.quiet.service.name
        for copy in self.killed:
            assert set(copy.killed_at) == set(STEPS[service])
        assert not self.quiet.killed_at


def trial(
    service: Service[Any], broker: str, folder: Path, postgres_url: str | None = None, seed: Path | None = None
) -> Trial:
    """Copies on SQLite (or LMDB) and, with a URL, on PostgreSQL; each begins with the files of `seed`."""

    def copy(name: str, url: str | None = None) -> Copy:
        data_dir = folder / f"{service.name}-{name}"
        if seed is None:
            data_dir.mkdir()
        else:
            shutil.copytree(seed, data_dir)
        return Copy(service, broker, data_dir, url)

    killed = [copy("killed")] + ([copy("postgres", postgres_url)] if postgres_url else [])
    return Trial(killed, copy("quiet"))


# -- what was told -------------------------------------------------------------------------------------------------------

WALL_CLOCK: Final = frozenset(
    {
        "load_seconds",
        "duration_seconds",
        "activated",
        "expires",
        "expires_us",
        "recorded",
        "recorded_us",
        "prediction_id",
    }
)
"""Fields of answers and columns of tables that say when or how fast something happened here."""


def without_wall_clock(value: Any, more: Iterable[str] = ()) -> Any:
    """JSON without the fields that may differ between two runs on the same input."""
    left_out = WALL_CLOCK.union(more)
    if isinstance(value, dict):
        return {k: without_wall_clock(v, more) for k, v in value.items() if k not in left_out}
    return [without_wall_clock(one, more) for one in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Told:
    """One event as the broker has it, without what depends on the wall clock."""

    topic: str
    partition: int
    key: bytes | None
    time: bytes
    shard: bytes
    value: Any


async def stories(
    service: Service[Any],
    broker: str,
    *,
    apart: Iterable[str] = (),
    timeless: Iterable[str] = (),
    commands: Iterable[str] = (),
) -> dict[str, dict[str, Told]]:
    """Store id → event id → what was told, clock records aside. Asserts what holds on the wire for each store:

    a repeat is the same record again, on the same partition, under the same sequence; new records come in the order of
    their sequences on each partition; and no sequence of a shard is missing, so no row of the outbox was lost.

    Topics in `apart` are not part of the story, because what they hold depends on the wall clock or on restarts. Those in
    `timeless` have the wall clock's time or one that depends on batches. Shards in `commands` come from calls,
    which have a random id each: their events are known by their place in the story.
    """
    found: dict[str, dict[str, Told]] = {}
    records: dict[tuple[str, bytes], tuple[Any, ...]] = {}
    sequences: dict[tuple[str, bytes], set[int]] = {}
    highest: dict[tuple[str, bytes, str, int], int] = {}
    counts: Counter[tuple[str, bytes, str]] = Counter()
    stateless = {handler.output for handler in service.handlers if isinstance(handler, Stateless)}
    for topic in published_by(service.name):
        if topic.payload in stateless:
            continue
        for record in await read_topic(broker, topic.name):
            attributes = attributes_of(record.headers)
            origin = origin_of(attributes)
            assert origin is not None
            source, shard, sequence = origin
            name, store = source.decode().rsplit("/", 2)[-2:]
            assert name == service.name
            event_id = attributes["ce_id"]
            whole = (topic.name, record.partition, record.key, record.value, tuple(record.headers))
            if (store, event_id) in records:
                assert records[store, event_id] == whole, "a repeat is the same record again"
                continue
            records[store, event_id] = whole
            place = (store, shard, topic.name, record.partition)
            assert sequence > highest.get(place, 0), "new records keep their order"
            highest[place] = sequence
            assert sequence not in sequences.setdefault((store, shard), set()), "a sequence is given once"
            sequences[store, shard].add(sequence)
            if topic.name in apart or attributes["ce_type"] in IN_BAND_TYPES:
                continue
            is_command = shard.decode() in commands
            value = without_wall_clock(orjson.loads(record.value), ("cause_id",) if is_command else ())
            time = b"" if is_command or topic.name in timeless else attributes["ce_time"]
            number = counts[store, shard, topic.name] = counts[store, shard, topic.name] + 1
            name = f"{shard.decode()} {topic.name} {number}" if is_command else event_id.decode()
            told = Told(topic.name, record.partition, record.key, time, shard, value)
            found.setdefault(store, {})[name] = told
    for numbers in sequences.values():
        assert numbers == set(range(1, len(numbers) + 1)), "nothing of the outbox is lost"
    return found


def same(told: Sequence[Any], what: str) -> None:
    """All copies told the same as the last one, which is the quiet one."""
    assert told[-1], f"the quiet copy told nothing of {what}"
    for number, one in enumerate(told[:-1]):
        assert one == told[-1], f"{what} of killed copy {number}: {_difference(one, told[-1])}"


def _difference(one: Any, other: Any, path: str = "") -> str:
    """The first place where two values differ."""
    if isinstance(one, dict) and isinstance(other, dict) and one != other:
        for key in (*one, *other):
            if key not in one or key not in other:
                return f"{path}/{key} is only in {'the second' if key in other else 'the first'}: {(one | other)[key]}"
            if one[key] != other[key]:
                return _difference(one[key], other[key], f"{path}/{key}")
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        number = next(number for number, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1])
        return _difference(one[number], other[number], f"{path}/{number}")
    return f"{path}: {one!r} is not {other!r}"
