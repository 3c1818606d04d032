"""Log every record as it is, fold the control plane into facts, and sign what has grown."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import Final

from evenkeel.contracts.envelope import Record
from evenkeel.contracts.governance import CheckpointSigned, LeafOrder
from evenkeel.libs.audit.log import Run
from evenkeel.libs.clock import SECOND_US
from evenkeel.libs.runtime.failpoints import failpoint
from evenkeel.libs.service import Cause, Derived, Output, Raw
from evenkeel.services.governance.context import GovernanceContext
from evenkeel.services.governance.domain.facts import Opaque, is_in_band, row_of

MAX_RUNS: Final = 20_000


def on_records(records: Sequence[Record], ctx: GovernanceContext) -> Iterable[Output]:
    """One leaf a record, whatever it holds; those of the control plane are facts besides."""
    appended = ctx.log.append(ctx.tx.connection, records)
    rows = []
    for leaf, record in enumerate(records, appended.first):
        if ctx.trace is not None:
            ctx.trace.logged(record, leaf)
        if record.topic in ctx.topics_with_facts and not is_in_band(record):
            try:
                rows.append(row_of(record, leaf))
            except Opaque as error:
                ctx.not_understood(leaf, error)
    ctx.store.put_facts(rows)
    ctx.appended(records)
    ctx.duplicates += len(appended.duplicates)
    # A checkpoint says in which order leaves came, and has to fit into one record.
    return sign(ctx) if len(ctx.order) >= MAX_RUNS else ()


def on_tick(ctx: GovernanceContext) -> Iterable[Output]:
    """Sign, if the log has grown and the last checkpoint is old enough."""
    if ctx.now_us - ctx.signed_us < ctx.own.checkpoint_seconds * SECOND_US:
        return ()
    return sign(ctx)


def sign(ctx: GovernanceContext) -> Iterable[Output]:
    """Sign the log as it stands, if it has grown."""
    if ctx.size <= ctx.signed_size:
        return ()
    signed = ctx.log.sign(ctx.tx.connection, ctx.key, ctx.origin, ctx.now_us)
    if signed is None:
        return ()
    checkpoint, note = signed
    order = leaf_order(ctx.order)
    ctx.signed(checkpoint.size, note)
    failpoint("checkpoint.signed")
    cause_id = f"{ctx.origin}/{checkpoint.size}"
    root = b64encode(checkpoint.root).decode()
    payload = CheckpointSigned(size=checkpoint.size, root=root, note=note.decode(), order=order)
    return (Derived(payload, Cause(cause_id, ctx.now_us, cause_id)),)


def leaf_order(runs: Sequence[Run]) -> LeafOrder:
    """Runs of records as a checkpoint says them."""
    numbers: dict[str, int] = {}
    numbered = [(numbers.setdefault(topic, len(numbers)), partition, count) for topic, partition, count in runs]
    return LeafOrder(topics=list(numbers), runs=numbered)


HANDLERS = (Raw(on_records, every_topic=True),)
