"""The trainer folded from what it said itself: what it decided and how its runs ended. Who was at work is forgotten."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from evenkeel.contracts.envelope import Event, parse_us
from evenkeel.contracts.trainer import RetrainDecided, RunCompleted, RunFailed, RunStarted
from evenkeel.libs.service import Output, Rebuild
from evenkeel.services.trainer.context import TrainerContext
from evenkeel.services.trainer.domain.decision import Answer, Cut
from evenkeel.services.trainer.handlers import request_of, trainable

PROCESS_FAULTS: Final = frozenset({"timeout", "crashed"})


def fold(published: Sequence[Event[Any]], ctx: TrainerContext) -> None:
    """Every accepted decision is a job; one without an end is taken up again, under the next attempt."""
    store = ctx.store
    for event in published:
        data = event.data
        match data:
            case RetrainDecided(retrain=True, run_id=str()):
                store.add_job(
                    {
                        "run_id": data.run_id,
                        "model": data.model,
                        "trigger": data.trigger,
                        "decided_us": parse_us(data.as_of),
                        "request": {},
                        "correlation_id": event.correlation_id,
                        "traceparent": event.traceparent,
                    }
                )
            case RunStarted():
                store.take_job(data.run_id, data.attempt - 1, "lost", 0)
            case RunCompleted():
                store.end_job(data.run_id, "completed", "")
            case RunFailed():
                store.end_job(data.run_id, "failed" if data.reason in PROCESS_FAULTS else "refused", data.detail)


def finished(ctx: TrainerContext) -> Iterable[Output]:
    """What the unfinished jobs are to do follows from their decisions."""
    for event in ctx.published_before:
        decided = event.data
        if not isinstance(decided, RetrainDecided) or decided.run_id is None or decided.dataset is None:
            continue
        row, claim = ctx.store.model(decided.model), decided.dataset
        if row is None or not ctx.store.is_open(decided.run_id):
            continue
        cut = Cut(claim.uri, claim.version, row.view_version, claim.rows, parse_us(claim.label_cut), 0, claim.offsets)
        answer = Answer(True, "accepted", "", cut)
        request = request_of(row, trainable(row), answer, decided.run_id, parse_us(decided.as_of), ctx)
        ctx.store.put_request(decided.run_id, request.model_dump(mode="json"))
    return ()


REBUILD: Final = Rebuild(fold=fold, finished=finished, forgotten="which models' loops were paused: pause them again")
