"""A registry made again from what it said itself: nothing of a whole decision is lost, nothing of half a one is believed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from evenkeel.contracts.envelope import Event, parse_us
from evenkeel.contracts.payload import Payload
from evenkeel.contracts.registry import GateDecided
from evenkeel.libs.packages.package import PackageRef
from evenkeel.services.registry.rebuild import fold
from tests.tiny_packages import tiny_package
from tests.unit.registry.test_handlers import Registry, day


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[PackageRef]]:
    folder = tmp_path_factory.mktemp("packages")
    return folder, [tiny_package(folder / "artifacts", folder / "keys", seed=seed) for seed in range(2)]


def told(transactions: Sequence[Sequence[Payload]]) -> list[Event[Any]]:
    """What these transactions said, as it is read again: each said its payloads at one moment and for one cause."""
    return [
        Event[Any](
            payload,
            f"{transaction}-{number}",
            parse_us(day(transaction)),
            "topic",
            0,
            0,
            {
                "ce_causationid": f"cause-{transaction}".encode(),
                "ce_recordedtime": f"2026-01-01T00:00:{transaction:02}Z".encode(),
            },
        )
        for transaction, said in enumerate(transactions)
        for number, payload in enumerate(said)
    ]


def with_another_gate(said: Sequence[Payload]) -> list[Payload]:
    """The same decision by a registry that knows one gate more."""
    gates = [payload for payload in said if isinstance(payload, GateDecided)]
    more = [payload.model_copy(update={"of": payload.of + 1}) for payload in gates]
    rest = [payload for payload in said if not isinstance(payload, GateDecided)]
    return [*rest, *more, more[0].model_copy(update={"gate": "cooldown_of_tomorrow"})]


@pytest.mark.parametrize(
    ("second_run", "versions", "champion"),
    [
        (lambda said: said, {1: "retired", 2: "champion"}, 2),
        (with_another_gate, {1: "retired", 2: "champion"}, 2),
        (
            lambda said: [p for p in said if not (isinstance(p, GateDecided) and p.gate == "cooldown")],
            {1: "champion"},
            1,
        ),
    ],
    ids=["whole", "with a gate more", "one gate was never published"],
)
def test_a_run_counts_when_all_of_its_gates_were_said(
    packages: tuple[Path, list[PackageRef]], tmp_path: Path, second_run: Any, versions: dict[int, str], champion: int
) -> None:
    folder, refs = packages
    for name in ("artifacts", "keys"):
        (tmp_path / name).symlink_to(folder / name)
    lived = Registry(tmp_path, refs)
    declared, first, second = lived.apply(), lived.run(0, 1), lived.run(1, 2, beats=0)
    lived.close()
    lost = Registry(tmp_path / "again", refs)
    lost.ask(lambda ctx: fold(told([declared, first, second_run(second)]), ctx))
    found = lost.ask(lambda ctx: ctx.store.champion("m"))
    assert lost.states() == versions
    assert found is not None
    assert (found.version, found.epoch) == (champion, champion)
    lost.close()
