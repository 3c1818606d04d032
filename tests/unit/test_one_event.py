"""docs/one-event.md names three files for each step, and what they call: a walk through each step enters those alone.

What is called does its part and answers: it never goes back into the files that lead through the step, so that who reads
those three has followed it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Final

import pytest

from evenkeel.libs.clock import HOUR_US
from evenkeel.services.serving.context import ServingContext
from evenkeel.services.serving.domain.champions import Succession
from evenkeel.services.serving.handlers import on_vectors
from evenkeel.services.trainer.service import service as trainer
from tests.feature_log import START_US, Feature, Log
from tests.harness import Harness
from tests.tiny_packages import tiny_package
from tests.unit.governance.conftest import Governance
from tests.unit.ingest.test_handlers import Ingest, order
from tests.unit.monitor import scenes
from tests.unit.registry.test_handlers import Registry
from tests.unit.serving.test_dataplane import champion, vector
from tests.unit.trainer.test_handlers import cut, declared, drift

ROOT: Final = Path(__file__).parents[2]
Step = Callable[[Path], Callable[[], Any]]
"""Prepares a service in a folder; what it returns is the step itself."""
Entered = set[tuple[str | None, str]]
"""(file, file that it called): only files of services."""


def _ingest(folder: Path) -> Callable[[], Any]:
    ingest = Ingest(folder)
    ingest.declare()
    ingest.orders(order("a", "10:00"))
    return lambda: ingest.orders(order("b", "11:00"))


def _feature(folder: Path) -> Callable[[], Any]:
    log, feature = Log(), Feature(folder)
    log.declare(log.declaration.streams, log.declaration.models)
    for number in (1, 2):
        read = len(log.records) if number == 2 else 0
        at_us = START_US + number * HOUR_US
        log.event("flights", f"f{number}", at_us, {"origin": "JFK", "carrier": "AA", "load": 0.5})
        log.close(at_us)
        if number == 1:
            feature.consume(log.records)
    return lambda: feature.consume(log.records[read:])


def _serving(folder: Path) -> Callable[[], Any]:
    ctx = ServingContext()
    ctx.settled.set()
    ctx.successions = {"m": Succession(champion())}
    return lambda: on_vectors([vector([1.0, 0.0])], ctx)


def _monitor(folder: Path) -> Callable[[], Any]:
    monitor = scenes.Monitor(folder)
    ref = scenes.package(folder, scenes.steady_rows(500))
    monitor.declare()
    monitor.promote(ref)
    monitor.release(scenes.traffic(range(8)), scenes.day(8))
    return lambda: monitor.release(scenes.traffic(range(8, 9)), scenes.day(9))


def _governance(folder: Path) -> Callable[[], Any]:
    log, governance = Log(), Governance(folder)
    log.declare(log.declaration.streams, log.declaration.models)
    governance.log(log.records[:2])
    return lambda: governance.log(log.records[2:])


def _trainer(folder: Path) -> Callable[[], Any]:
    handled = Harness(trainer, folder)
    handled.hear(declared(), "2013-01-01T00:00:00Z")
    handled.hear(cut(6, rows=10), "2013-01-07T00:00:00Z")
    return lambda: handled.hear(drift(0), "2013-01-08T00:00:00Z")


def _registry(folder: Path) -> Callable[[], Any]:
    registry = Registry(folder, [tiny_package(folder / "artifacts", folder / "keys", seed=1)])
    registry.apply("m")
    return lambda: registry.run(0, 1.0)


STEPS: Final[dict[str, Step]] = {
    "raw record → accepted event": _ingest,
    "accepted event → vector": _feature,
    "vector → prediction": _serving,
    "vector, prediction, label → window": _monitor,
    "record → leaf": _governance,
    "signal → decision": _trainer,
    "run → version, gates, champion": _registry,
}


def walk(step: Callable[[], Any]) -> Entered:
    """Which file of the services called which, in one step."""
    entered: Entered = set()

    def home(frame: FrameType | None) -> str | None:
        while frame is not None:
            _, services, file = frame.f_code.co_filename.rpartition("/services/")
            if services and file.count("/") in (1, 2, 3) and not frame.f_code.co_name.startswith("<"):
                return f"services/{file}"
            frame = frame.f_back
        return None

    def note(frame: FrameType, what: str, _: object) -> None:
        if what == "call":
            mine = home(frame)
            if mine is not None and frame.f_code.co_filename.endswith(mine):
                entered.add((home(frame.f_back), mine))

    sys.setprofile(note)
    try:
        step()
    finally:
        sys.setprofile(None)
    return entered


def documented() -> dict[str, tuple[list[str], list[str]]]:
    """Step → the files that lead through it, and the files or folders that those call."""
    rows = [line.split("|")[1:-1] for line in (ROOT / "docs" / "one-event.md").read_text().splitlines() if "→" in line]
    path = re.compile(r"`((?:services|contracts|libs)/[\w/-]+(?:\.py|/))`")
    return {cells[0].strip(): (path.findall(cells[1]), path.findall(cells[2])) for cells in rows if len(cells) == 3}


def test_every_step_is_documented() -> None:
    assert documented().keys() == STEPS.keys()


@pytest.mark.parametrize("name", STEPS)
def test_three_files_lead_through_a_step(name: str, tmp_path: Path) -> None:
    lead, called = documented()[name]
    assert [path for path in (*lead, *called) if not (ROOT / path).exists()] == []
    assert len([path for path in lead if path != "libs/runtime/merge.py"]) <= 3
    entered = walk(STEPS[name](tmp_path))

    def documents(path: str, file: str) -> bool:
        return file == path or (path.endswith("/") and file.startswith(path))

    files = {mine for _, mine in entered}
    strange = {file for file in files if not any(documents(path, file) for path in (*lead, *called))}
    assert not strange, f"docs/one-event.md does not name {sorted(strange)}"
    unused = {path for path in (*lead, *called) if path.startswith("services/")} - {
        path for path in (*lead, *called) if any(documents(path, file) for file in files)
    }
    assert not unused, f"docs/one-event.md names {sorted(unused)}, which the step does not enter"
    back = {(caller, mine) for caller, mine in entered if mine in lead and caller is not None and caller not in lead}
    assert not back, f"what is called goes back into the files that lead: {sorted(back)}"
