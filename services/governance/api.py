"""HTTP of governance: why a prediction is as it is, who was champion when, what was logged, and proofs of it."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import orjson
import sqlalchemy as sa
from fastapi import APIRouter, Query

from evenkeel.contracts.envelope import format_us, parse_us, text_headers
from evenkeel.contracts.registry import ChampionChanged, ModelDeclared
from evenkeel.contracts.serving import VersionActivated
from evenkeel.libs.audit import merkle
from evenkeel.libs.audit.checkpoint import Checkpoint, read_checkpoint, verifier_key
from evenkeel.libs.audit.leaves import LoggedRecord
from evenkeel.libs.audit.log import Leaves, SqlTiles, head, latest_checkpoint
from evenkeel.libs.errors import Refused, Stop
from evenkeel.libs.http.roles import role
from evenkeel.libs.http.routing import router
from evenkeel.libs.runtime.runtime import Runtime
from evenkeel.services.governance.context import GovernanceContext, GovernanceMetrics
from evenkeel.services.governance.domain import ClockName, Reign, reign_at
from evenkeel.services.governance.lineage import Lineage, step_of, unknown_model
from evenkeel.services.governance.store import GovernanceStore

MAX_LEAF: Final = 2**62
Leaf = Annotated[int, Query(ge=0, le=MAX_LEAF)]


def routers(runtime: Runtime[Any]) -> Sequence[APIRouter]:
    ctx: GovernanceContext = runtime.context
    runtime.metrics.registry.register(GovernanceMetrics(ctx))
    return [_lineage(runtime, ctx), _log(runtime, ctx)]


def _lineage(runtime: Runtime[Any], ctx: GovernanceContext) -> APIRouter:
    routes = router("/v1")

    @routes.get("/lineage/predictions/{id}", **role("auditor"))
    async def prediction(id: str, model: str | None = None, proof: bool = False) -> dict[str, Any]:
        def question(connection: sa.Connection) -> dict[str, Any]:
            walk = Lineage(connection, ctx.log)
            found = walk.find_prediction(id, model)
            walk.explain(found)
            answer = {"prediction": {"id": found.event_id, **found.data.model_dump(mode="json")}} | _walked(walk)
            return _with_proofs(answer, connection) if proof else answer

        return await runtime.query(question)

    @routes.get("/trace/{id}", **role("auditor"))
    async def trace(id: str, model: str | None = None) -> dict[str, Any]:
        """Whatever the id names: an event to its predictions, a prediction back to its event, a turn of the loop."""

        def question(connection: sa.Connection) -> dict[str, Any]:
            walk = Lineage(connection, ctx.log)
            kind = walk.follow(id, model)
            return {"id": id, "kind": kind} | _walked(walk)

        return await runtime.query(question)

    @routes.get("/models/{model}/champion", **role("auditor"))
    async def champion(model: str, at: str | None = None, clock: ClockName = "event") -> dict[str, Any]:
        at_us = None if at is None else _time(at)
        return await runtime.query(lambda connection: _champion_at(Lineage(connection, ctx.log), model, at_us, clock))

    @routes.get("/models/{model}/history", **role("auditor"))
    async def history(
        model: str,
        after: Annotated[int, Query(ge=-1, le=MAX_LEAF)] = -1,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    ) -> dict[str, Any]:
        def question(connection: sa.Connection) -> dict[str, Any]:
            graph = GovernanceStore(connection)
            found = graph.history(model, after, limit)
            if not found and not graph.facts(ModelDeclared, model):
                raise unknown_model(graph, model)
            steps = [step_of(fact).as_json() for fact in found]
            return {"model": model, "steps": steps, "after": found[-1].leaf if len(found) == limit else None}

        return await runtime.query(question)

    return routes


def _log(runtime: Runtime[Any], ctx: GovernanceContext) -> APIRouter:
    routes = router("/v1")

    @routes.get("/events/{id}", **role("auditor"))
    async def event(id: str) -> dict[str, Any]:
        def question(connection: sa.Connection) -> dict[str, Any]:
            found = ctx.log.find(connection, id)
            if not found:
                raise Refused(
                    404,
                    "Unknown event",
                    f"The log has no record with the CloudEvents id {id}.",
                    field="id",
                    fix="An outside id is not one: ask /v1/lineage/predictions for it, with ?model=.",
                )
            first = found[0][0]
            records = [
                _shown(leaf, record) | {"duplicate_of": first if leaf > first else None} for leaf, record in found
            ]
            return {"id": id, "records": records}

        return await runtime.query(question)

    @routes.get("/log/checkpoint", **role("auditor", 404))
    async def checkpoint() -> dict[str, Any]:
        def question(connection: sa.Connection) -> dict[str, Any]:
            signed, note = _checkpoint(connection)
            key = verifier_key(signed.origin, ctx.key.verification_key)
            return _signed(signed, note) | {"verifier_key": key, "leaves": head(connection).size}

        return await runtime.query(question)

    @routes.get("/log/leaves/{leaf}", **role("auditor"))
    async def leaf(leaf: int) -> dict[str, Any]:
        def question(connection: sa.Connection) -> dict[str, Any]:
            size = head(connection).size
            if not 0 <= leaf < size:
                raise _no_leaf(leaf, size)
            leaves = Leaves(connection)
            data = leaves.leaf(leaf)
            shown = _shown(leaf, leaves.record(leaf))
            return shown | {"bytes": _base64(data), "leaf_hash": _base64(merkle.leaf_hash(data))}

        return await runtime.query(question)

    @routes.get("/log/inclusion", **role("auditor", 404, 409))
    async def inclusion(leaf: Leaf | None = None, event_id: str | None = None) -> dict[str, Any]:
        def question(connection: sa.Connection) -> dict[str, Any]:
            signed, note = _checkpoint(connection)
            number = _leaf_named(ctx, connection, leaf, event_id)
            if number >= signed.size:
                raise _not_signed_yet(number, signed.size, head(connection).size)
            return {"leaf": number, **_proof(connection, number, signed)} | {"checkpoint": _signed(signed, note)}

        return await runtime.query(question)

    @routes.get("/log/consistency", **role("auditor", 404))
    async def consistency(old: Leaf, new: Leaf | None = None) -> dict[str, Any]:
        def question(connection: sa.Connection) -> dict[str, Any]:
            size = head(connection).size
            end = new if new is not None else _checkpoint(connection)[0].size
            if not 0 < old <= end <= size:
                raise Refused(
                    422,
                    "Invalid sizes",
                    f"old is {old}, new is {end}, and the log has {size} leaves.",
                    field="old" if not 0 < old <= end else "new",
                    fix="Give sizes with 0 < old <= new <= the number of leaves.",
                )
            tiles = SqlTiles(connection)

            def prove() -> dict[str, Any]:
                return {
                    "old": old,
                    "new": end,
                    "old_root": _base64(merkle.root(tiles, old)),
                    "new_root": _base64(merkle.root(tiles, end)),
                    "proof": [_base64(node) for node in merkle.consistency_proof(tiles, old, end)],
                }

            return _from_tiles(prove)

        return await runtime.query(question)

    return routes


def _walked(walk: Lineage) -> dict[str, Any]:
    return {
        "steps": [step.as_json() for step in walk.steps],
        "complete": not walk.missing,
        "missing": walk.missing,
    }


def _champion_at(walk: Lineage, model: str, at_us: int | None, clock: ClockName) -> dict[str, Any]:
    graph = GovernanceStore(walk.connection)
    changes = graph.facts(ChampionChanged, model)
    if not changes and not graph.facts(ModelDeclared, model):
        raise unknown_model(graph, model)
    reigns = [Reign(fact.data.epoch, fact.event_us, fact.recorded_us) for fact in changes]
    found = reign_at(reigns, at_us, clock)
    if found is None:
        begins = min((reign.since(clock) for reign in reigns), default=None)
        first = "It never had one." if begins is None else f"Its first one came at {format_us(begins)}."
        raise Refused(
            404,
            "No champion",
            f"{model} had no champion at that time on the {clock} clock. {first}",
            field="at",
            fix="Ask for a later time, or with the other clock (event, wall).",
        )
    reign, until_us = found
    champion = next(fact for fact in changes if fact.data.epoch == reign.epoch)
    walk.steps.append(step_of(champion))
    walk.steps += map(step_of, graph.facts(VersionActivated, model, reign.epoch))
    walk.explain_version(model, champion.data.version, champion)
    return {
        "model": model,
        "clock": clock,
        "at": None if at_us is None else format_us(at_us),
        "champion": {"id": champion.event_id, **champion.data.model_dump(mode="json")},
        "since": format_us(reign.since(clock)),
        "until": None if until_us is None else format_us(until_us),
        "since_event_time": format_us(reign.event_us),
        "since_wall_time": format_us(reign.wall_us),
    } | _walked(walk)


def _time(text: str) -> int:
    try:
        return parse_us(text.replace(" ", "+"))  # a "+" of an offset that came unescaped in the query
    except (ValueError, OverflowError) as error:
        raise Refused(
            422, "Invalid time", str(error), field="at", fix="Give RFC 3339 with a zone: 2013-07-01T00:00:00Z."
        ) from None


# -- the log -------------------------------------------------------------------------------------------------------------


def _checkpoint(connection: sa.Connection) -> tuple[Checkpoint, str]:
    note = latest_checkpoint(connection)
    if note is None:
        raise Refused(404, "No checkpoint yet", "The log was not signed yet.", fix="Ask again in a few seconds.")
    return read_checkpoint(note), note.decode()


def _signed(signed: Checkpoint, note: str) -> dict[str, Any]:
    return {"origin": signed.origin, "size": signed.size, "root": _base64(signed.root), "note": note}


def _leaf_named(ctx: GovernanceContext, connection: sa.Connection, leaf: int | None, event_id: str | None) -> int:
    if (leaf is None) == (event_id is None):
        raise Refused(
            422, "Which leaf?", "Exactly one of leaf and event_id is needed.", field="leaf", fix="Give one of them."
        )
    if leaf is not None:
        return leaf
    found = ctx.log.find(connection, event_id or "")
    if not found:
        raise Refused(
            404,
            "Unknown event",
            f"The log has no record with the CloudEvents id {event_id}.",
            field="event_id",
            fix="Give the ce_id of a record on a topic of the map.",
        )
    return found[0][0]


def _proof(connection: sa.Connection, leaf: int, signed: Checkpoint) -> dict[str, Any]:
    tiles = SqlTiles(connection)

    def prove() -> dict[str, Any]:
        proof = merkle.inclusion_proof(tiles, leaf, signed.size)
        place = leaf % merkle.TILE_HASHES * merkle.HASH_BYTES
        leaf_hash = tiles.tile(0, leaf // merkle.TILE_HASHES)[place : place + merkle.HASH_BYTES]
        return {"leaf_hash": _base64(leaf_hash), "size": signed.size, "proof": [_base64(node) for node in proof]}

    return _from_tiles(prove)


def _from_tiles(prove: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return prove()
    except KeyError as missing:
        raise Stop(f"the audit log lacks the tile {missing}: run `evenkeel verify`, then restore it") from missing


def _with_proofs(answer: dict[str, Any], connection: sa.Connection) -> dict[str, Any]:
    """Each step, and each gate, with its inclusion proof under the newest checkpoint; null if it is not under it yet."""
    signed, note = _checkpoint(connection)
    for step in answer["steps"]:
        for part in (step, *step["data"].get("gates", ())):
            number = part["leaf"]
            is_signed = number is not None and number < signed.size
            part["proof"] = _proof(connection, number, signed) if is_signed else None
    return answer | {"checkpoint": _signed(signed, note)}


def _no_leaf(leaf: int, size: int) -> Refused:
    return Refused(
        404,
        "No such leaf",
        f"The log has no leaf {leaf}; it has {size}.",
        field="leaf",
        fix=f"Give a number from 0 to {size - 1}." if size else "Wait for the first record.",
    )


def _not_signed_yet(leaf: int, signed: int, size: int) -> Refused:
    if leaf >= size:
        return _no_leaf(leaf, size)
    return Refused(
        409,
        "Not signed yet",
        f"Leaf {leaf} is in the log, but the newest checkpoint covers {signed} leaves.",
        field="leaf",
        fix="Ask again in a few seconds.",
    )


def _shown(leaf: int, record: LoggedRecord) -> dict[str, Any]:
    """A logged record for people; what is not text is shown in base64."""
    value = record.value or b""
    shown: dict[str, Any] = {
        "leaf": leaf,
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


def _base64(data: bytes) -> str:
    return b64encode(data).decode()
