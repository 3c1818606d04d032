"""Serving's store made again: facts and view are read again from their topics, receipts from what this replica said."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from evenkeel.contracts.envelope import Event
from evenkeel.contracts.serving import ActivationFailed, VersionActivated
from evenkeel.libs.service import Rebuild
from evenkeel.services.serving.context import ServingContext
from evenkeel.services.serving.domain.champions import Receipt
from evenkeel.services.serving.handlers import replica_name


def fold_receipts(published: Sequence[Event[Any]], ctx: ServingContext) -> None:
    """What this replica published about each model's latest epoch, so that it is not published again."""
    mine = replica_name(ctx.settings, ctx.own)
    for event in published:
        data = event.data
        if not isinstance(data, VersionActivated | ActivationFailed) or data.replica != mine:
            continue
        outcome = data.reason if isinstance(data, ActivationFailed) else "activated"
        last = ctx.store.receipt(data.model)
        number = last.number + 1 if last is not None and last.epoch == data.epoch else 0
        ctx.store.put_receipt(data.model, Receipt(data.epoch, outcome, number))


REBUILD: Final = Rebuild(
    fold=fold_receipts,
    forgotten="answers to requests that were not published yet when the store was lost; they are in no record",
)
