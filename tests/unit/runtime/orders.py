"""A small service under the runtime, on either kind of store: it folds orders and their labels in event-time order.

It takes the place of feature in the map: `StreamDeclared` one by one, `EventAccepted` and `LabelAccepted` merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import sqlalchemy as sa
from alembic.operations import Operations

from evenkeel.contracts.envelope import Event, format_us
from evenkeel.contracts.ingest import EventAccepted, LabelAccepted
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.registry import StreamDeclared
from evenkeel.libs.clock import SECOND_US
from evenkeel.libs.errors import NotYet
from evenkeel.libs.service import Cause, Context, Derived, Each, Merge, Output, Released, Service, Watermark
from evenkeel.libs.settings import OwnSettings, Settings
from evenkeel.libs.store.lmdb import LmdbConnection, LmdbStore
from evenkeel.libs.store.protocol import Store, Transaction
from evenkeel.libs.store.sql import SqlStore
from tests.makers import event_accepted, vector_computed
from tests.records import ReadRecord, Topics

STREAM: Final = "orders"
EVENTS: Final = "ingest.event-accepted.v1"
STREAMS: Final = "registry.stream-declared.v1"
INPUTS: Final = frozenset({(EventAccepted, STREAM), (LabelAccepted, STREAM)})
SPEC: Final = {"topic": "shop.orders", "id": "id", "time": "at", "fields": {"n": {"type": "number"}}}

_tables = sa.MetaData()
_folded = sa.Table("folded", _tables, sa.Column("number", sa.Integer, primary_key=True), sa.Column("what", sa.Text))


class OrderContext(Context):
    """`folded` is a cache of the store; `broken` names what the handlers cannot take."""

    def __init__(self, broken: set[str]) -> None:
        self.broken = broken
        self.folded: list[str] = []

    def load(self, tx: Transaction) -> None:
        self.folded = kept(tx.connection)

    def keep(self, what: str) -> None:
        self.folded.append(what)
        connection = self.tx.connection
        if isinstance(connection, LmdbConnection):
            connection.put("folded", len(self.folded).to_bytes(8), what.encode())
        else:
            connection.execute(_folded.insert(), {"what": what})
        if what in self.broken:
            raise KeyError(what)

    def require(self, event: Event[Any]) -> None:
        if f"unaskable {event.id}" in self.broken:
            raise ValueError(event.id)
        if event.data.stream not in self.folded:
            raise NotYet(f"stream {event.data.stream} is not declared")

    def merge_groups(self) -> Iterable[frozenset[tuple[type[Payload], str]]]:
        return (INPUTS,)


def kept(connection: Any) -> list[str]:
    """What the store says was folded, in order."""
    if isinstance(connection, LmdbConnection):
        return [value.decode() for _, value in connection.scan("folded")]
    return list(connection.execute(sa.select(_folded.c.what).order_by(_folded.c.number)).scalars())


def on_declared(event: Event[StreamDeclared], ctx: OrderContext) -> Sequence[Output]:
    name = event.data.name
    if name.startswith("child-of-") and name.removeprefix("child-of-") not in ctx.folded:
        raise NotYet(f"the parent of {name} is not declared")
    ctx.keep(name)
    return ()


def on_released(released: Released, ctx: OrderContext) -> list[Output]:
    outputs: list[Output] = []
    for event in released.events:
        ctx.keep(event.id)
        data = event.data
        vector = vector_computed(stream=STREAM, event_id=data.event_id, view_version="5" * 64, values=[])
        outputs.append(Derived(vector, event, stream="m", order_us=event.order_us))
    return outputs


def _create(op: Operations) -> None:
    op.create_table("folded", sa.Column("number", sa.Integer, primary_key=True), sa.Column("what", sa.Text))


def _sqlite(settings: Settings) -> Store:
    return SqlStore(settings.database("feature"), "feature", (_create,))


def _lmdb(settings: Settings) -> Store:
    return LmdbStore(settings.data_dir / "feature.lmdb", ["folded"], 2**24)


def orders_service(engine: str, broken: set[str]) -> Service[OrderContext]:
    """On `sqlite` or `lmdb`."""
    return Service(
        name="feature",
        settings=OwnSettings,
        open_store={"sqlite": _sqlite, "lmdb": _lmdb}[engine],
        context=lambda settings, own: OrderContext(broken),
        handlers=(Each(StreamDeclared, on_declared), Merge((EventAccepted, LabelAccepted), on_released)),
    )


class Orders(Topics):
    """What registry and ingest have said; times are seconds of event time."""

    def declare(self, name: str = STREAM) -> list[ReadRecord]:
        return self.fact("registry", StreamDeclared(name=name, spec=SPEC), "2013-01-01T00:00:00Z")

    def order(self, order_id: str, at: int, *, partition: int | None = None, stream: str = STREAM) -> list[ReadRecord]:
        payload = event_accepted(stream=stream, event_id=order_id)
        derived = Derived(payload, Cause(f"raw-{order_id}", at * SECOND_US, order_id), id=order_id, stream=stream)
        return self.say("ingest", [derived], partition=partition)

    def advance(self, until: int) -> list[ReadRecord]:
        """Nothing before `until` follows, on any partition of either input."""
        marks = [Watermark(payload, STREAM, until * SECOND_US) for payload in (EventAccepted, LabelAccepted)]
        return self.say("ingest", marks)


def at(seconds: int) -> str:
    return format_us(seconds * SECOND_US)
