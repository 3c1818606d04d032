"""What serving keeps in LMDB, and its named queries.

Slots of the online view are one key each: `view number, series, ring slot, entity`, in that order, because the slots
that are being written belong to the same moment and so lie side by side: a batch touches few pages.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from evenkeel.contracts.registry import ModelDeclared
from evenkeel.libs.features.tiles import TileState
from evenkeel.libs.store.lmdb import LmdbConnection
from evenkeel.services.serving.domain.champions import ChampionDecision, Receipt

MODELS: Final = "models"
FACTS: Final = "champions"
RECEIPTS: Final = "receipts"
VIEWS: Final = "views"
SLOTS: Final = "slots"
PROGRESS: Final = "progress"
DATABASES: Final = (MODELS, FACTS, RECEIPTS, VIEWS, SLOTS, PROGRESS)

_PROGRESS_KEY: Final = b"view"
_HEAD: Final = struct.Struct(">HHB")
_NUMBER: Final = struct.Struct(">H")
_MAX_ENTITY_BYTES: Final = 400

_pack: Final = msgspec.msgpack.Encoder().encode
_unpack_fact: Final = msgspec.msgpack.Decoder(ChampionDecision).decode
_unpack_receipt: Final = msgspec.msgpack.Decoder(Receipt).decode
_unpack_slot: Final = msgspec.msgpack.Decoder(tuple[str, list[int | float | str]]).decode


class ViewRow(msgspec.Struct, array_like=True, frozen=True):
    """One view: its short number, which its slots' keys begin with, and how far its windows have come."""

    view: str
    view_version: str
    number: int
    watermark_us: int


class Progress(msgspec.Struct, array_like=True, frozen=True):
    """Up to where the view's topic is in the slots; `stamp` changes with every transaction that changed them."""

    stamp: int
    positions: dict[int, int]


class Declared(NamedTuple):
    offset: int
    model: ModelDeclared


_unpack_view: Final = msgspec.msgpack.Decoder(ViewRow).decode
_unpack_progress: Final = msgspec.msgpack.Decoder(Progress).decode


class ServingStore:
    """Queries on one transaction."""

    def __init__(self, connection: LmdbConnection) -> None:
        self._connection = connection

    # -- control plane ------------------------------------------------------------------------------------------------

    def put_model(self, declared: Declared) -> None:
        """The latest declaration of each view version of a model."""
        key = f"{declared.model.name}\0{declared.model.view_version}".encode()
        self._connection.put(MODELS, key, b"%020d" % declared.offset + declared.model.model_dump_json().encode())

    def models(self) -> list[Declared]:
        found = (
            Declared(int(value[:20]), ModelDeclared.model_validate_json(value[20:]))
            for _, value in self._connection.scan(MODELS)
        )
        return sorted(found, key=lambda declared: declared.offset)

    def put_fact(self, fact: ChampionDecision) -> None:
        self._connection.put(FACTS, fact.model.encode(), _pack(fact))

    def fact(self, model: str) -> ChampionDecision | None:
        found = self._connection.get(FACTS, model.encode())
        return None if found is None else _unpack_fact(found)

    def facts(self) -> dict[str, ChampionDecision]:
        return {fact.model: fact for fact in (_unpack_fact(value) for _, value in self._connection.scan(FACTS))}

    def put_receipt(self, model: str, receipt: Receipt) -> None:
        self._connection.put(RECEIPTS, model.encode(), _pack(receipt))

    def receipt(self, model: str) -> Receipt | None:
        found = self._connection.get(RECEIPTS, model.encode())
        return None if found is None else _unpack_receipt(found)

    # -- the online view ----------------------------------------------------------------------------------------------

    def views(self) -> list[ViewRow]:
        return [_unpack_view(value) for _, value in self._connection.scan(VIEWS)]

    def put_view(self, row: ViewRow) -> None:
        self._connection.put(VIEWS, _NUMBER.pack(row.number), _pack(row))

    def progress(self) -> Progress:
        found = self._connection.get(PROGRESS, _PROGRESS_KEY)
        return Progress(0, {}) if found is None else _unpack_progress(found)

    def put_progress(self, progress: Progress) -> None:
        self._connection.put(PROGRESS, _PROGRESS_KEY, _pack(progress))

    def put_slots(self, slots: dict[bytes, bytes]) -> None:
        self._connection.put_many(SLOTS, sorted(slots.items()))

    def slots(self, number: int) -> Iterator[tuple[str, TileState]]:
        """Every slot of a view as (slot, tile)."""
        return (_unpack_slot(value) for _, value in self._connection.scan(SLOTS, _NUMBER.pack(number)))

    def slots_from(self, start: bytes, limit: int) -> list[tuple[bytes, int, int, int]]:
        """At most `limit` slots from a key on, as (key, view number, series, tile start in microseconds)."""
        found: list[tuple[bytes, int, int, int]] = []
        for key, value in self._connection.scan_from(SLOTS, start):
            if len(found) == limit:
                break
            number, series, _ = _HEAD.unpack_from(key)
            start_us = _unpack_slot(value)[1][0]
            assert isinstance(start_us, int)
            found.append((key, number, series, start_us))
        return found

    def remove_slots(self, keys: Iterable[bytes]) -> None:
        for key in keys:
            self._connection.delete(SLOTS, key)


def slot_key(number: int, slot: str) -> bytes:
    """The key of `<series>|<entity>|<ring slot>` in view `number`; raises ValueError if it is not one."""
    series, _, rest = slot.partition("|")
    entity, _, ring = rest.rpartition("|")
    name = entity.encode()
    if len(name) > _MAX_ENTITY_BYTES:
        name = hashlib.sha256(name).digest()
    try:
        return _HEAD.pack(number, int(series), int(ring)) + name
    except struct.error as error:
        raise ValueError(f"slot {slot!r} is not `<series>|<entity>|<ring slot>`") from error


def slot_value(slot: str, tile: Sequence[Any]) -> bytes:
    return _pack((slot, tile))
