"""What the routes ask: each a function of a connection. What is not there is Refused, with what to do."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from typing import Any, TypeVar

import orjson
import sqlalchemy as sa

from evenkeel.contracts.envelope import format_us, parse_us, text_headers
from evenkeel.contracts.http import governance as http
from evenkeel.contracts.registry import ChampionChanged, ModelDeclared
from evenkeel.libs.audit import merkle
from evenkeel.libs.audit.checkpoint import Checkpoint, read_checkpoint, verifier_key
from evenkeel.libs.audit.leaves import LoggedRecord
from evenkeel.libs.audit.log import AuditLog, Leaves, SqlTiles, head, latest_checkpoint
from evenkeel.libs.errors import Refused, Stop
from evenkeel.libs.keys import SigningKey
from evenkeel.services.governance.domain.champions import ClockName, Reign, reign_at
from evenkeel.services.governance.domain.lineage import explain_champion, explain_prediction
from evenkeel.services.governance.domain.steps import Step, step_of
from evenkeel.services.governance.domain.trace import find_prediction, follow
from evenkeel.services.governance.domain.walk import Walk, unknown_model
from evenkeel.services.governance.store import StoredGraph

Json = dict[str, Any]
T = TypeVar("T")

# -- the graph -----------------------------------------------------------------------------------------------------------


def prediction(
    connection: sa.Connection, log: AuditLog, identifier: str, model: str | None, proof: bool
) -> http.PredictionLineage:
    """Everything that a prediction rests on."""
    walk = Walk(StoredGraph(connection, log))
    found = find_prediction(walk.graph, identifier, model)
    explain_prediction(walk, found)
    logged = http.LoggedPrediction.model_validate({"id": found.event_id, **found.data.model_dump()})
    walked = _walked(walk)
    if not proof:
        return http.PredictionLineage(prediction=logged, **walked)
    signed, note = _newest(connection)
    walked["steps"] = [_with_proof(step, connection, signed) for step in walked["steps"]]
    return http.PredictionLineage(prediction=logged, checkpoint=_signed(signed, note), **walked)


def trace(connection: sa.Connection, log: AuditLog, identifier: str, model: str | None) -> http.Trace:
    """What an id leads to."""
    walk = Walk(StoredGraph(connection, log))
    kind = follow(walk, identifier, model)
    return http.Trace(id=identifier, kind=kind, **_walked(walk))


def champion(
    connection: sa.Connection, log: AuditLog, model: str, at_us: int | None, clock: ClockName
) -> http.ChampionThen:
    """Who was champion at a time on either clock (None: now), and why."""
    walk = Walk(StoredGraph(connection, log))
    changes = walk.graph.facts(ChampionChanged, model)
    if not changes and not walk.graph.facts(ModelDeclared, model):
        raise unknown_model(walk.graph, model)
    reigns = [Reign(fact.data.epoch, fact.event_us, fact.recorded_us) for fact in changes]
    found = reign_at(reigns, at_us, clock)
    if found is None:
        raise _no_champion(model, reigns, clock)
    reign, until_us = found
    changed = next(fact for fact in changes if fact.data.epoch == reign.epoch)
    explain_champion(walk, changed)
    return http.ChampionThen(
        model=model,
        clock=clock,
        at=None if at_us is None else format_us(at_us),
        champion=http.LoggedChampion.model_validate({"id": changed.event_id, **changed.data.model_dump()}),
        since=format_us(reign.since(clock)),
        until=None if until_us is None else format_us(until_us),
        since_event_time=format_us(reign.event_us),
        since_wall_time=format_us(reign.wall_us),
        **_walked(walk),
    )


def history(connection: sa.Connection, log: AuditLog, model: str, after: int, limit: int) -> http.History:
    """The facts about a model behind a leaf, in the order of the log."""
    graph = StoredGraph(connection, log)
    found = graph.history(model, after, limit)
    if not found and not graph.facts(ModelDeclared, model):
        raise unknown_model(graph, model)
    steps = [_step(step_of(fact)) for fact in found]
    return http.History(model=model, steps=steps, after=found[-1].leaf if len(found) == limit else None)


def time_of(text: str) -> int:
    """Microseconds of a time that a caller gave. Raises Refused."""
    try:
        return parse_us(text.replace(" ", "+"))  # a "+" of an offset that came unescaped in the query
    except (ValueError, OverflowError) as error:
        raise Refused(
            422, "Invalid time", str(error), field="at", fix="Give RFC 3339 with a zone: 2013-07-01T00:00:00Z."
        ) from None


def _walked(walk: Walk) -> Json:
    return {
        "steps": [_step(step) for step in walk.steps],
        "complete": not walk.missing,
        "missing": walk.missing,
    }


def _step(step: Step) -> http.Step:
    return http.Step(
        what=step.what,
        id=step.id,
        time=None if step.event_us is None else format_us(step.event_us),
        recorded=None if step.recorded_us is None else format_us(step.recorded_us),
        summary=step.summary,
        data=step.data,
        leaf=step.leaf,
    )


def _with_proof(step: http.Step, connection: sa.Connection, signed: Checkpoint) -> http.Step:
    """The step, and each gate in it, with its inclusion proof under the checkpoint; without one if it is not under it yet."""

    def proof(number: int | None) -> http.InclusionProof | None:
        return None if number is None or number >= signed.size else _proof(connection, number, signed)

    def proven(gate: Json) -> Json:
        found = proof(gate["leaf"])
        return gate | {"proof": None if found is None else found.model_dump()}

    data = step.data | {"gates": [proven(gate) for gate in step.data["gates"]]} if "gates" in step.data else step.data
    return step.model_copy(update={"proof": proof(step.leaf), "data": data})


def _no_champion(model: str, reigns: list[Reign], clock: ClockName) -> Refused:
    begins = min((reign.since(clock) for reign in reigns), default=None)
    first = "It never had one." if begins is None else f"Its first one came at {format_us(begins)}."
    return Refused(
        404,
        "No champion",
        f"{model} had no champion at that time on the {clock} clock. {first}",
        field="at",
        fix="Ask for a later time, or with the other clock (event, wall).",
    )


# -- records -------------------------------------------------------------------------------------------------------------


def event(connection: sa.Connection, log: AuditLog, identifier: str) -> http.LoggedEvent:
    """Every record with an id; repeats name the first."""
    found = log.find(connection, identifier)
    if not found:
        fix = "An outside id is not one: ask /v1/lineage/predictions for it, with ?model=."
        raise _unknown_event(identifier, "id", fix)
    first = found[0][0]
    records = [
        http.EventRecord(duplicate_of=first if number > first else None, **_shown(number, record))
        for number, record in found
    ]
    return http.LoggedEvent(id=identifier, records=records)


def leaf(connection: sa.Connection, number: int) -> http.Leaf:
    """One leaf: the record, the bytes that are hashed, and the hash."""
    size = head(connection).size
    if not 0 <= number < size:
        raise _no_leaf(number, size)
    leaves = Leaves(connection)
    data = leaves.leaf(number)
    shown = _shown(number, leaves.record(number))
    return http.Leaf(bytes=_base64(data), leaf_hash=_base64(merkle.leaf_hash(data)), **shown)


def _shown(number: int, record: LoggedRecord) -> Json:
    """A logged record for people; what is not text is shown in base64."""
    value = record.value or b""
    shown: Json = {
        "leaf": number,
        "topic": record.topic,
        "partition": record.partition,
        "offset": record.offset,
        "logged_by_broker": format_us(record.timestamp * 1000),
        "key": None if record.key is None else record.key.decode("utf-8", "backslashreplace"),
        "headers": text_headers(record.headers),
    }
    try:
        return shown | {"payload": orjson.loads(value) if value else None}
    except orjson.JSONDecodeError:
        return shown | {"payload": None, "value_base64": _base64(value)}


def _unknown_event(identifier: str | None, field: str, fix: str) -> Refused:
    detail = f"The log has no record with the CloudEvents id {identifier}."
    return Refused(404, "Unknown event", detail, field=field, fix=fix)


def _no_leaf(number: int, size: int) -> Refused:
    return Refused(
        404,
        "No such leaf",
        f"The log has no leaf {number}; it has {size}.",
        field="leaf",
        fix=f"Give a number from 0 to {size - 1}." if size else "Wait for the first record.",
    )


# -- proofs --------------------------------------------------------------------------------------------------------------


def checkpoint(connection: sa.Connection, key: Callable[[], SigningKey]) -> http.Checkpoint:
    """The newest checkpoint, and what verifies it; the key is there once one is signed."""
    signed, note = _newest(connection)
    verifier = verifier_key(signed.origin, key().verification_key)
    return http.Checkpoint(**_signed(signed, note).model_dump(), verifier_key=verifier, leaves=head(connection).size)


def inclusion(connection: sa.Connection, log: AuditLog, number: int | None, event_id: str | None) -> http.Inclusion:
    """That a leaf, named by its number or its event's id, is under the newest checkpoint."""
    signed, note = _newest(connection)
    named = _leaf_named(connection, log, number, event_id)
    if named >= signed.size:
        raise _not_signed_yet(named, signed.size, head(connection).size)
    proof = _proof(connection, named, signed)
    return http.Inclusion(leaf=named, checkpoint=_signed(signed, note), **proof.model_dump())


def consistency(connection: sa.Connection, old: int, new: int | None) -> http.Consistency:
    """That the log has only grown from `old` leaves to `new` ones (None: those of the newest checkpoint)."""
    size = head(connection).size
    end = new if new is not None else _newest(connection)[0].size
    if not 0 < old <= end <= size:
        raise Refused(
            422,
            "Invalid sizes",
            f"old is {old}, new is {end}, and the log has {size} leaves.",
            field="old" if not 0 < old <= end else "new",
            fix="Give sizes with 0 < old <= new <= the number of leaves.",
        )
    tiles = SqlTiles(connection)

    def prove() -> http.Consistency:
        return http.Consistency(
            old=old,
            new=end,
            old_root=_base64(merkle.root(tiles, old)),
            new_root=_base64(merkle.root(tiles, end)),
            proof=[_base64(node) for node in merkle.consistency_proof(tiles, old, end)],
        )

    return _from_tiles(prove)


def _newest(connection: sa.Connection) -> tuple[Checkpoint, str]:
    note = latest_checkpoint(connection)
    if note is None:
        raise Refused(404, "No checkpoint yet", "The log was not signed yet.", fix="Ask again in a few seconds.")
    return read_checkpoint(note), note.decode()


def _signed(signed: Checkpoint, note: str) -> http.SignedCheckpoint:
    return http.SignedCheckpoint(origin=signed.origin, size=signed.size, root=_base64(signed.root), note=note)


def _leaf_named(connection: sa.Connection, log: AuditLog, number: int | None, event_id: str | None) -> int:
    if (number is None) == (event_id is None):
        raise Refused(
            422, "Which leaf?", "Exactly one of leaf and event_id is needed.", field="leaf", fix="Give one of them."
        )
    if number is not None:
        return number
    found = log.find(connection, event_id or "")
    if not found:
        raise _unknown_event(event_id, "event_id", "Give the ce_id of a record on a topic of the map.")
    return found[0][0]


def _proof(connection: sa.Connection, number: int, signed: Checkpoint) -> http.InclusionProof:
    tiles = SqlTiles(connection)

    def prove() -> http.InclusionProof:
        proof = merkle.inclusion_proof(tiles, number, signed.size)
        place = number % merkle.TILE_HASHES * merkle.HASH_BYTES
        leaf_hash = tiles.tile(0, number // merkle.TILE_HASHES)[place : place + merkle.HASH_BYTES]
        nodes = [_base64(node) for node in proof]
        return http.InclusionProof(leaf_hash=_base64(leaf_hash), size=signed.size, proof=nodes)

    return _from_tiles(prove)


def _from_tiles(prove: Callable[[], T]) -> T:
    try:
        return prove()
    except KeyError as missing:
        raise Stop(f"the audit log lacks the tile {missing}: run `evenkeel verify`, then restore it") from missing


def _not_signed_yet(number: int, signed: int, size: int) -> Refused:
    if number >= size:
        return _no_leaf(number, size)
    return Refused(
        409,
        "Not signed yet",
        f"Leaf {number} is in the log, but the newest checkpoint covers {signed} leaves.",
        field="leaf",
        fix="Ask again in a few seconds.",
    )


def _base64(data: bytes) -> str:
    return b64encode(data).decode()
