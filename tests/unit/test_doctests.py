"""Examples in docstrings hold: they are read as documentation, so they may not be wrong."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("contracts", "libs", "services")
WITH_EXAMPLES = sorted(
    path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if ">>> " in path.read_text()
)


def module_of(path: Path) -> str:
    return ".".join(("evenkeel", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=module_of)
def test_the_examples_of_a_module_hold(path: Path) -> None:
    found = doctest.testmod(import_module(module_of(path)))
    assert (found.failed, found.attempted > 0) == (0, True)
