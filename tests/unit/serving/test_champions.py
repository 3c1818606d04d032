"""The swap: the latest epoch wins, a failure changes nothing, a fallback is the last resort."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from evenkeel.services.serving.domain.champions import (
    Champion,
    ChampionDecision,
    Receipt,
    Succession,
    Target,
    next_receipt,
)


def champion(epoch: int, version: int = 0, *, is_fallback: bool = False) -> Champion:
    none: Any = None
    return Champion(
        model="m",
        stream="s",
        version=version or epoch,
        epoch=epoch,
        package=f"sha256:{version or epoch}",
        view_version="v",
        threshold=None,
        is_fallback=is_fallback,
        predict=none,
        rows=none,
        events=none,
        loaded_us=0,
        load_seconds=0.0,
        observe_seconds=none,
    )


def fact(epoch: int) -> ChampionDecision:
    rollback = Target(epoch - 1, f"sha256:{epoch - 1}", None)
    return ChampionDecision("m", epoch, Target(epoch, f"sha256:{epoch}", None), "v", rollback, "e", "c", 0, None)


def test_the_first_champion_is_wanted_and_takes_over() -> None:
    assert Succession().wants(fact(1))
    succession = Succession().succeeded_by(champion(1))
    assert succession == Succession(champion(1), None)
    assert not succession.wants(fact(1))


def test_the_previous_champion_stays_warm() -> None:
    succession = Succession(champion(1)).succeeded_by(champion(2))
    assert succession == Succession(champion(2), champion(1))
    assert succession.warm("sha256:1") == champion(1)
    assert succession.warm("sha256:9") is None


def test_a_rollback_is_a_later_epoch_with_an_older_version() -> None:
    succession = Succession(champion(2), champion(1))
    back = champion(3, version=1)
    assert succession.warm(back.package) == champion(1)
    assert succession.succeeded_by(back) == Succession(back, champion(2))


def test_an_older_epoch_is_history() -> None:
    succession = Succession(champion(5), champion(4))
    assert not succession.wants(fact(4))
    assert succession.succeeded_by(champion(4)) == succession
    assert succession.succeeded_by(champion(5)) == succession


def test_a_fallback_answers_only_if_nothing_does_and_gives_way_to_the_epochs_own_version() -> None:
    assert Succession().fallback(fact(3)) == fact(3).rollback
    assert Succession().fallback(replace(fact(3), rollback=None)) is None
    assert Succession(champion(1)).fallback(fact(3)) is None
    fallback = champion(3, version=2, is_fallback=True)
    succession = Succession().succeeded_by(fallback)
    assert succession.active == fallback
    assert succession.wants(fact(3))
    assert succession.succeeded_by(champion(3)) == Succession(champion(3), fallback)
    assert succession.succeeded_by(champion(2)) == succession
    assert Succession(champion(3)).succeeded_by(fallback) == Succession(champion(3))


@pytest.mark.parametrize(
    ("last", "outcome", "expected"),
    [
        (None, "activated", Receipt(3, "activated", 0)),
        (Receipt(2, "activated", 4), "digest", Receipt(3, "digest", 0)),
        (Receipt(3, "activated", 0), "activated", None),
        (Receipt(3, "not_found", 0), "activated", Receipt(3, "activated", 1)),
        (Receipt(3, "activated", 1), "digest", Receipt(3, "digest", 2)),
        (Receipt(4, "activated", 0), "digest", None),
    ],
)
def test_a_receipt_is_given_once_for_each_change_of_outcome(
    last: Receipt | None, outcome: Any, expected: Receipt | None
) -> None:
    assert next_receipt(fact(3), outcome, last) == expected
