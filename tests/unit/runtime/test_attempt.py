"""What the loop does about a fault: when it tries again, how, and when it gives up."""

from __future__ import annotations

from pathlib import Path

import pytest
import structlog

from evenkeel.libs.errors import Retry, Storm
from evenkeel.libs.runtime.attempt import TRIES, Attempt, HandlerFailed
from tests.harness import Harness
from tests.unit.runtime.orders import EVENTS, OrderContext, Orders, kept, orders_service

WHERE = (EVENTS, 1, 7)


def test_a_record_is_poisoned_at_the_third_failure_and_the_next_one_is_counted_anew() -> None:
    attempt = Attempt([])
    failed = HandlerFailed("e", WHERE, KeyError("e"))
    assert [attempt.failed_at(failed) for _ in range(TRIES - 1)] == [1, 2]
    assert attempt.poison == {}
    assert attempt.failed_at(failed) == TRIES == 3
    assert attempt.poison == {WHERE: "KeyError: 'e'"}
    assert attempt.failed_at(HandlerFailed("f", (EVENTS, 1, 8), KeyError("f"))) == 1


def test_a_fault_about_no_event_is_tried_once_together_and_then_three_times_one_by_one() -> None:
    attempt = Attempt([])
    assert attempt.failed()
    assert attempt.isolate
    assert [attempt.failed() for _ in range(3)] == [True, True, False]


def test_facts_are_known_of_what_is_not_a_fact_and_of_facts_before_the_end() -> None:
    attempt = Attempt([])
    assert not attempt.knows_facts_of(WHERE)
    attempt.with_facts([], {("registry.stream-declared.v1", 0): 5})
    assert attempt.has_facts
    assert attempt.knows_facts_of(WHERE)
    assert attempt.knows_facts_of(("registry.stream-declared.v1", 0, 4))
    assert not attempt.knows_facts_of(("registry.stream-declared.v1", 0, 5)), "what follows may name what follows it"


def test_a_store_that_is_away_is_waited_for_and_the_batch_has_its_effect_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topics, away = Orders(), [True, True]
    harness = Harness(orders_service("sqlite", set()), tmp_path)

    def keep(ctx: OrderContext, what: str) -> None:
        original(ctx, what)
        if away.pop() if away else False:
            raise Retry("the database is locked")

    original = OrderContext.keep
    monkeypatch.setattr(OrderContext, "keep", keep)
    harness.process(topics.declare())
    assert harness.query(kept) == ["orders"]
    assert harness.metrics.retries.labels("store")._value.get() == 2
    harness.close()


def test_a_storm_is_not_tried_again(tmp_path: Path) -> None:
    topics, broken = Orders(), {f"s{n}" for n in range(30)}
    harness = Harness(orders_service("sqlite", broken), tmp_path)
    good, bad = topics.declare("good"), [one for n in range(30) for one in topics.declare(f"s{n}")]
    harness.process(good)
    with structlog.testing.capture_logs(), pytest.raises(Storm, match="30 of the last 500"):
        harness.process(bad)
    assert harness.query(kept) == ["good"]
    assert len(harness.said) == 0, "no dead letter of a storm is published"
    harness.close()
