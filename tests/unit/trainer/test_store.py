"""A decision asks the store for what it looks at only, and decides as it would if it saw everything."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.operations import Operations
from hypothesis import given, settings
from hypothesis import strategies as st

from evenkeel.libs.clock import DAY_US
from evenkeel.libs.store.sql import SqlStore
from evenkeel.services.trainer.domain.decision import Cut, History, TriggerEvent, decide, is_due
from evenkeel.services.trainer.store import MIGRATIONS, TrainerStore
from tests.unit.trainer.test_decision import SPEC

HALF_DAYS = st.integers(0, 40).map(lambda n: n * DAY_US // 2)
DECIDED = st.lists(st.tuples(st.sampled_from(["m", "other"]), HALF_DAYS), max_size=12)
CUTS = st.lists(st.tuples(st.sampled_from(["v1", "v0"]), HALF_DAYS), max_size=8)


@given(DECIDED, CUTS, HALF_DAYS, st.sampled_from([0, 10 * DAY_US]))
@settings(max_examples=60, deadline=None)
def test_what_is_asked_for_decides_like_everything_there_is(
    decided: list[tuple[str, int]], cuts: list[tuple[str, int]], at_us: int, cooldown_us: int
) -> None:
    retraining = SPEC.retraining.model_copy(update={"cooldown_us": cooldown_us, "budget_per_day": 1})
    spec = SPEC.model_copy(update={"retraining": retraining})
    known = [Cut("t", n, view, 5000, cut_us, 39 * DAY_US, {}) for n, (view, cut_us) in enumerate(cuts)]
    with sa.create_engine("sqlite://").connect() as connection:
        store = opened(connection)
        for number, (model, decided_us) in enumerate(decided):
            store.add_job(
                {
                    "run_id": f"r{number}",
                    "model": model,
                    "trigger": "drift",
                    "decided_us": decided_us,
                    "request": {},
                    "correlation_id": "c",
                    "traceparent": None,
                }
            )
            store.end_job(f"r{number}", "completed", "")
        for cut in known:
            store.put_cut("m", cut)
        history, newest = store.history("m", at_us), store.newest_cut("m", "v1", at_us)
    everything = History(sorted(us for model, us in decided if model == "m"), None, 0)
    asked = TriggerEvent("drift", at_us)
    assert decide(asked, spec, "v1", newest, history) == decide(asked, spec, "v1", known, everything)
    assert is_due(at_us, spec, history) == is_due(at_us, spec, everything)
    assert len(newest) <= 1


def opened(connection: sa.Connection) -> TrainerStore:

    for upgrade in MIGRATIONS:
        upgrade(Operations(MigrationContext.configure(connection)))
    return TrainerStore(connection)


def test_a_decision_uses_indexes(tmp_path: Path) -> None:
    store = SqlStore(f"sqlite:///{tmp_path}/trainer.db", "trainer", MIGRATIONS)
    store.open()
    with store.begin() as tx:
        seen: list[str] = []

        @sa.event.listens_for(tx.connection, "before_cursor_execute")
        def note(conn: object, cursor: object, statement: str, *_: object) -> None:
            seen.append(statement)

        TrainerStore(tx.connection).history("m", 0)
        plans = [
            str(row[-1])
            for statement in list(seen)
            if "FROM jobs" in statement
            for row in tx.connection.exec_driver_sql(
                f"EXPLAIN QUERY PLAN {statement}", ("m", "queued", "running", 1, 1)[: statement.count("?")]
            )
        ]
    store.close()
    assert plans
    assert all("USING" in plan and "INDEX" in plan for plan in plans), plans
