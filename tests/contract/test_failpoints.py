"""Every failpoint is passed by some code, and the kill tests die at each of them in each service that passes it."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path

from evenkeel.contracts.topics import SERVICES
from evenkeel.libs.runtime.failpoints import NAMES
from evenkeel.libs.service import Merge, Stateless
from evenkeel.services.__main__ import service_named
from tests.kills import LOOP, STEPS

ROOT = Path(__file__).parents[2]


def passed_in(path: Path) -> set[str]:
    """The names that a module's code passes to `failpoint`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "failpoint":
            (argument,) = node.args
            assert isinstance(argument, ast.Constant), f"{path.name}: a failpoint is named literally"
            found.add(str(argument.value))
    return found


def passed_below(folder: str) -> set[str]:
    return {name for path in (ROOT / folder).rglob("*.py") for name in passed_in(path)}


def test_every_name_is_passed_somewhere_and_no_other() -> None:
    assert passed_below("libs") | passed_below("services") == NAMES


def test_every_step_of_every_service_has_its_kill() -> None:
    assert set(STEPS) == set(SERVICES)
    for name in SERVICES:
        handlers = service_named(name).handlers
        expected = set(LOOP) | passed_below(f"services/{name}")
        expected |= {"merge.released"} if any(isinstance(handler, Merge) for handler in handlers) else set()
        expected |= {"score.sent"} if any(isinstance(handler, Stateless) for handler in handlers) else set()
        assert set(STEPS[name]) == expected, name
    assert {step for steps in STEPS.values() for step in steps} == NAMES


def test_every_service_is_tried() -> None:
    """Each trial ends with `was_killed_at_every_step`, which holds it against the steps above."""
    tests = {name: f"tests.integration.kills.test_{name}" for name in SERVICES} | {
        "feature": "tests.integration.test_feature"
    }
    for name, module in tests.items():
        tried = import_module(module)
        assert tried.service.name == name
        assert "was_killed_at_every_step()" in Path(str(tried.__file__)).read_text()
