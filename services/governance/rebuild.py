"""The audit log made again from the topics, leaf by leaf as it was: each checkpoint says in which order its leaves came."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from evenkeel.contracts.envelope import Event
from evenkeel.contracts.governance import CheckpointSigned
from evenkeel.libs.audit import merkle
from evenkeel.libs.audit.anchor import anchored_notes
from evenkeel.libs.audit.checkpoint import CheckpointError, read_checkpoint, verify_checkpoint
from evenkeel.libs.audit.log import SqlTiles, put_checkpoint
from evenkeel.libs.errors import Stop
from evenkeel.libs.keys import verification_keys
from evenkeel.libs.service import Order, Output, Rebuild
from evenkeel.services.governance.context import GovernanceContext


def checkpoints(published: Sequence[Event[Any]]) -> list[CheckpointSigned]:
    """What was signed, shortest first."""
    return sorted((e.data for e in published if isinstance(e.data, CheckpointSigned)), key=lambda signed: signed.size)


def fold(published: Sequence[Event[Any]], ctx: GovernanceContext) -> None:
    """The log's name, and its checkpoints, each verified."""
    signed = checkpoints(published)
    if not signed:
        return
    origin = read_checkpoint(signed[-1].note.encode()).origin
    key = verification_keys(ctx.settings.keys)[ctx.service]
    for one in signed:
        try:
            verify_checkpoint(one.note.encode(), key, origin)
        except CheckpointError as error:
            raise Stop(
                f"a checkpoint over {one.size:,} leaves on {ctx.service}'s topic is not its own: {error}"
            ) from error
        put_checkpoint(ctx.tx.connection, one.size, one.note.encode())
    anchored = [read_checkpoint(note) for note in anchored_notes(ctx.settings.data_dir)]
    longer = [one.size for one in anchored if one.origin == origin and one.size > signed[-1].size]
    if longer:
        raise Stop(
            f"the log cannot be made again as it was: the checkpoint over {longer[0]:,} leaves was anchored, but the store was "
            f"lost before it was published, and with it the order of the last {longer[0] - signed[-1].size:,} leaves. Restore "
            f"a copy of the store; or, to go on with another order of these, move the end of the anchor file from that "
            f"checkpoint on to a safe place"
        )
    ctx.store.put_origin(origin)
    ctx.load(ctx.tx)


def order(published: Sequence[Event[Any]]) -> Order:
    """The leaves under the newest checkpoint, run by run."""
    runs: list[tuple[str, int, int]] = []
    for signed in checkpoints(published):
        if signed.order is None:
            raise Stop(
                f"the log cannot be made again as it was: the checkpoint over {signed.size:,} leaves is of an earlier release "
                f"and does not say in which order they came. Restore a copy of the store"
            )
        runs += [(signed.order.topics[topic], partition, count) for topic, partition, count in signed.order.runs]
    return runs


def finished(ctx: GovernanceContext) -> Iterable[Output]:
    """The new log must be the signed one."""
    tiles = SqlTiles(ctx.tx.connection)
    for signed in checkpoints(ctx.published_before):
        root = merkle.root(tiles, signed.size)
        if root != read_checkpoint(signed.note.encode()).root:
            raise Stop(
                f"the topics do not hold what was signed: the first {signed.size:,} leaves have another root than their "
                f"checkpoint. Keep the anchor file, the topics and this store for whoever finds out why"
            )
    return ()


REBUILD: Final = Rebuild(fold=fold, finished=finished, order=order)
