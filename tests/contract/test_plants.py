"""Each planted bug fits the code as it stands: without this one would learn it from the longest tests only."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.invariants.plants import CARELESS, DOUBLED, LOSSY, RECKLESS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("file", "before", "after"), [*CARELESS, *LOSSY, *DOUBLED, *RECKLESS])
def test_a_plant_fits(file: str, before: str, after: str) -> None:
    text = (ROOT / file).read_text()
    assert text.count(before) == 1, f"{file} has {text.count(before)} times: {before}"
    compile(text.replace(before, after), file, "exec")
