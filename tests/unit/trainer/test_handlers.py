"""The handlers on a real store: every trigger is answered, event time rules, and a job has one owner."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from evenkeel.contracts.declaration import ModelSpec, StreamSpec
from evenkeel.contracts.envelope import format_us, parse_us
from evenkeel.contracts.feature import DatasetCommitted
from evenkeel.contracts.monitor import DriftDetected, PerformanceDegraded
from evenkeel.contracts.registry import ChampionChanged, ModelDeclared
from evenkeel.contracts.trainer import RetrainDecided, RunFailed, RunStarted
from evenkeel.libs.clock import DAY_US, SECOND_US
from evenkeel.libs.service import Derived, Reply
from evenkeel.services.trainer.commands import (
    LEASE_US,
    FinishJob,
    KeepJob,
    PauseLoop,
    ResumeLoop,
    StartedJob,
    TakeJob,
    Train,
    on_finish_job,
    on_keep_job,
    on_pause_loop,
    on_resume_loop,
    on_take_job,
    on_train,
)
from evenkeel.services.trainer.context import TrainerContext
from evenkeel.services.trainer.domain.job import JobResult
from evenkeel.services.trainer.service import service
from tests.harness import CALLER, Harness
from tests.makers import champion_changed, drift_detected, performance_degraded

STREAM = StreamSpec.model_validate(
    {
        "topic": "shop.orders",
        "id": "id",
        "time": "at",
        "fields": {"x": {"type": "number"}},
        "label": {
            "topic": "shop.returns",
            "id": "id",
            "joins": "id",
            "time": "at",
            "horizon": "1d",
            "fields": {"y": {"type": "boolean"}},
        },
    }
)


def declared(**retraining: Any) -> ModelDeclared:
    policy = {"first_after": {"rows": 100, "span": "5d"}, "cooldown": "10d", "triggers": ["drift"]} | retraining
    spec = {"task": "binary", "stream": "s", "label": "y", "features": [{"fields": ["x"]}], "retraining": policy}
    return ModelDeclared.of(name="m", spec=ModelSpec.model_validate(spec), streams={"s": STREAM}, view_version="v1")


def day(number: float) -> str:
    return format_us(parse_us("2013-01-01T00:00:00Z") + round(number * DAY_US))


def cut(number: int, version: int = 1, **changes: Any) -> DatasetCommitted:
    """Labels until midnight of this day."""
    fields: dict[str, Any] = {
        "model": "m",
        "uri": "tables/m",
        "version": version,
        "view_version": "v1",
        "declaration": 1,
        "rows": 100 * number,
        "added": 100,
        "first_event_time": day(0),
        "last_event_time": day(number),
        "label_cut": day(number),
        "offsets": {},
    }
    return DatasetCommitted.model_validate(fields | changes)


def drift(epoch: int = 1) -> DriftDetected:
    return drift_detected(epoch=epoch, version=epoch, window_start=day(0), window_end=day(1))


def degraded() -> PerformanceDegraded:
    return performance_degraded(window_start=day(0), window_end=day(1))


def promoted(epoch: int) -> ChampionChanged:
    return champion_changed(
        epoch=epoch,
        package="sha256:" + str(epoch) * 64,
        package_uri="artifacts",
        view_version="v1",
        cause_id="x",
        run_id="r",
    )


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[Harness[TrainerContext]]:
    handled = Harness(service, tmp_path)
    yield handled
    handled.close()


@pytest.fixture
def lived(trainer: Harness[TrainerContext]) -> Harness[TrainerContext]:
    """Its first model was decided on day 6, trained, and promoted with epoch 1."""
    trainer.hear(declared(), day(0))
    (first,) = trainer.hear(cut(6), day(6))
    assert (first.retrain, first.trigger) == (True, "first_data")
    finish(trainer, take(trainer))
    trainer.hear(promoted(1), day(6.5))
    return trainer


def take(trainer: Harness[TrainerContext], owner: str = "a") -> StartedJob:
    started = trainer.reply(partial(on_take_job, TakeJob(owner))).answer
    assert started is not None
    return started


def finish(trainer: Harness[TrainerContext], started: StartedJob, detail: str = "too few") -> Reply[None]:
    result = JobResult(outcome="refused", run_id=started.run_id, reason="too_few_rows", detail=detail)
    return trainer.reply(partial(on_finish_job, FinishJob(started, result, "", 1.0)))


def payloads(reply: Reply[Any]) -> list[Any]:
    return [output.payload for output in reply.outputs if isinstance(output, Derived)]


def given(outputs: list[RetrainDecided]) -> tuple[bool, str]:
    (decided,) = outputs
    return decided.retrain, decided.reason


def test_a_trigger_is_answered_also_with_no_and_in_event_time(lived: Harness[TrainerContext]) -> None:
    lived.hear(cut(15, 2), day(15))
    assert given(lived.hear(drift(), day(15.9))) == (False, "cooldown")
    (decided,) = lived.hear(drift(), day(16))
    assert (decided.retrain, decided.as_of, decided.dataset.version) == (True, day(16), 2)
    assert given(lived.hear(drift(), day(30))) == (False, "busy")


def test_a_signal_about_an_older_champion_is_answered_with_superseded(lived: Harness[TrainerContext]) -> None:
    lived.hear(promoted(2), day(8))
    assert given(lived.hear(drift(epoch=1), day(30))) == (False, "superseded")
    lived.hear(promoted(1), day(9))  # read again, as after a rebuild: the highest epoch stays
    assert given(lived.hear(drift(epoch=2), day(30))) == (True, "accepted")


def test_a_trigger_that_the_policy_does_not_name_is_none(lived: Harness[TrainerContext]) -> None:
    assert lived.hear(degraded(), day(30)) == []


def test_a_pause_outlives_another_declaration_but_stops_no_command(lived: Harness[TrainerContext]) -> None:
    (paused,) = payloads(lived.reply(partial(on_pause_loop, PauseLoop("m", "me", "a freeze", CALLER))))
    assert (paused.by, paused.caller) == ("me", CALLER), "who asked, as he called himself and as the door knew him"
    lived.hear(declared(cooldown="1d"), day(7))
    assert given(lived.hear(drift(), day(30))) == (False, "paused")
    reply = lived.reply(partial(on_train, Train("m", CALLER)))
    assert reply.answer.retrain is True
    (decided,) = payloads(reply)
    assert decided.caller == CALLER
    assert decided.as_of == day(30), "a click counts at the event time that was read, not in this year"
    (resumed,) = payloads(lived.reply(partial(on_resume_loop, ResumeLoop("m", "me", "thawed", CALLER))))
    assert (resumed.state, resumed.caller) == ("running", CALLER)
    finish(lived, take(lived))
    assert given(lived.hear(drift(), day(40))) == (True, "accepted")


def test_the_schedule_asks_from_data_to_data(trainer: Harness[TrainerContext]) -> None:
    trainer.hear(declared(triggers=["schedule"], schedule="20d"), day(0))
    assert trainer.hear(cut(4), day(4)) == []
    assert given(trainer.hear(cut(6, 2), day(6))) == (True, "accepted")
    finish(trainer, take(trainer))
    trainer.hear(promoted(1), day(6.5))
    assert trainer.hear(cut(25, 3), day(25)) == []
    assert given(trainer.hear(cut(26, 4), day(26))) == (True, "accepted")


def test_a_job_whose_lease_ran_out_is_taken_over_and_its_zombie_changes_nothing(
    trainer: Harness[TrainerContext],
) -> None:
    trainer.hear(declared(), day(0))
    trainer.hear(cut(6), day(6))
    first = take(trainer)
    assert trainer.reply(partial(on_take_job, TakeJob("a"))).answer is None
    assert trainer.reply(partial(on_keep_job, KeepJob(first.run_id, first.attempt))).answer is True
    trainer.clock.us += LEASE_US + SECOND_US
    second = take(trainer)
    assert (second.run_id, second.attempt) == (first.run_id, first.attempt + 1)
    assert second.request == first.request
    assert trainer.reply(partial(on_keep_job, KeepJob(first.run_id, first.attempt))).answer is False
    assert payloads(finish(trainer, first, "the zombie's")) == []
    (failed,) = payloads(finish(trainer, second, "the owner's"))
    assert isinstance(failed, RunFailed)
    assert (failed.attempt, failed.detail) == (2, "the owner's")
    assert payloads(finish(trainer, second)) == []
    assert trainer.reply(partial(on_take_job, TakeJob("a"))).answer is None


def test_two_that_saw_the_same_job_do_not_both_get_it(trainer: Harness[TrainerContext]) -> None:
    trainer.hear(declared(), day(0))
    trainer.hear(cut(6), day(6))
    seen = trainer.ask(lambda ctx: ctx.store.next_job("a", ctx.now_us))
    expires_us = trainer.clock.us + LEASE_US
    taken = [
        trainer.ask(lambda ctx, owner=owner: ctx.store.take_job(seen.run_id, seen.attempt, owner, expires_us))  # type: ignore[misc]
        for owner in "ab"
    ]
    assert taken == [True, False]


def test_a_job_left_by_an_earlier_owner_is_tried_three_times_and_then_given_up_with_an_answer(
    trainer: Harness[TrainerContext],
) -> None:
    trainer.hear(declared(), day(0))
    trainer.hear(cut(6), day(6))
    for attempt, owner in enumerate("abc", 1):
        reply = trainer.reply(partial(on_take_job, TakeJob(owner)))  # type: ignore[misc]
        (started,) = payloads(reply)
        assert isinstance(started, RunStarted)
        assert started.attempt == attempt
    reply = trainer.reply(partial(on_take_job, TakeJob("d")))
    (failed,) = payloads(reply)
    assert (reply.answer, failed.reason, failed.attempt) == (None, "crashed", 3)
    assert given(trainer.hear(drift(epoch=0), day(30))) == (True, "accepted")
