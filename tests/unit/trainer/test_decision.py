"""Every trigger gets an answer, and the answer says which rule gave it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from evenkeel.contracts.declaration import ModelSpec
from evenkeel.libs.clock import DAY_US
from evenkeel.services.trainer.domain.decision import Cut, History, Pause, TriggerEvent, decide, is_due

SPEC = ModelSpec.model_validate(
    {
        "task": "binary",
        "stream": "s",
        "label": "y",
        "features": [{"fields": ["x"]}],
        "retraining": {
            "first_after": {"rows": 1000, "span": "14d"},
            "cooldown": "10d",
            "budget_per_day": 2,
            "triggers": ["drift", "schedule"],
            "schedule": "30d",
        },
    }
)
CUT = Cut("tables/m", 7, "v1", 5000, 40 * DAY_US, 39 * DAY_US, {})
IDLE = History(accepted_us=[20 * DAY_US], busy_run=None, champion_epoch=2)
PAUSE = Pause("Ada", 40 * DAY_US, "snow")
DRIFT = TriggerEvent("drift", 41 * DAY_US, epoch=2)


def answer(asked: TriggerEvent = DRIFT, cuts: tuple[Cut, ...] = (CUT,), history: History = IDLE) -> Any:
    return decide(asked, SPEC, "v1", cuts, history)


def test_drift_leads_to_a_run_on_the_last_cut_before_it() -> None:
    later = replace(CUT, version=8, cut_us=42 * DAY_US)
    given = answer(cuts=(replace(CUT, version=6, cut_us=39 * DAY_US), CUT, later))
    assert (given.retrain, given.reason, given.cut.version) == (True, "accepted", 7)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"history": replace(IDLE, busy_run="r")}, "busy"),
        ({"asked": replace(DRIFT, epoch=1)}, "superseded"),
        ({"history": replace(IDLE, accepted_us=[32 * DAY_US])}, "cooldown"),
        ({"history": replace(IDLE, pause=PAUSE)}, "paused"),
        ({"cuts": ()}, "no_dataset"),
        ({"cuts": (replace(CUT, view_version="v0"),)}, "no_dataset"),
        ({"cuts": (replace(CUT, cut_us=42 * DAY_US),)}, "no_dataset"),
        ({"cuts": (replace(CUT, rows=999),)}, "insufficient_data"),
        ({"cuts": (replace(CUT, span_us=13 * DAY_US),)}, "insufficient_data"),
    ],
)
def test_each_no_has_its_reason(changes: dict[str, Any], reason: str) -> None:
    given = answer(**changes)
    assert (given.retrain, given.reason) == (False, reason)
    assert given.detail


def test_a_budget_counts_runs_within_a_day() -> None:
    spec = SPEC.model_copy(update={"retraining": SPEC.retraining.model_copy(update={"cooldown_us": 0})})
    busy_day = replace(IDLE, accepted_us=[41 * DAY_US - 2, 41 * DAY_US - 1])
    assert decide(DRIFT, spec, "v1", (CUT,), busy_day).reason == "budget"
    assert decide(replace(DRIFT, time_us=42 * DAY_US), spec, "v1", (CUT,), busy_day).retrain


def test_a_command_overrules_pause_and_cooldown_but_not_a_running_job() -> None:
    command = TriggerEvent("command", 41 * DAY_US)
    paused = replace(IDLE, pause=PAUSE, accepted_us=[40 * DAY_US])
    assert answer(command, history=paused).retrain
    assert answer(command, history=replace(paused, busy_run="r")).reason == "busy"


def test_the_schedule_counts_from_the_last_run_in_event_time() -> None:
    assert not is_due(50 * DAY_US - 1, SPEC, IDLE)
    assert is_due(50 * DAY_US, SPEC, IDLE)
    assert not is_due(50 * DAY_US, SPEC, replace(IDLE, accepted_us=[]))
