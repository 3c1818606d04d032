"""A short run of the chaos with a fixed seed: no fault loses a record, doubles one, or keeps the system from its rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import run

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]

CYCLES, SEED, RATE = 5, 3931, 100.0


async def test_a_short_run_finds_nothing(tmp_path: Path) -> None:
    report = await run(tmp_path / "data", CYCLES, SEED, RATE, print)
    assert report.violations == []
    assert len(report.cycles) == CYCLES
    assert report.statuses.get(200, 0) > 0
