"""Each mutant of `make mutants` can be planted, and the test that is to notice it is there."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.mutants import COPIED, MUTANTS, ROOT, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: f"{Path(mutant.file).stem}-{mutant.old.strip()[:40]}")
def test_its_text_stands_exactly_once_and_its_test_exists(mutant: Mutant) -> None:
    assert mutant.file.split("/")[0] in COPIED
    found = (ROOT / mutant.file).read_text().count(mutant.old)
    assert found == 1, f"{mutant.file} has {mutant.old!r} {found} times: say anew where this mutant belongs"
    assert mutant.new != mutant.old
    path, _, name = mutant.test.partition("::")
    tree = ast.parse((ROOT / "tests" / path).read_text())
    names = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    assert name in names, f"tests/{path} has no test {name}"


def test_no_mutant_is_named_twice() -> None:
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS)
