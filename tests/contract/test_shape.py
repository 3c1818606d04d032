"""The seven services have the same rooms: what one file is for in one of them, it is for in all."""

from __future__ import annotations

import ast
import importlib
import re
from dataclasses import is_dataclass
from pathlib import Path
from typing import Final, get_origin, get_type_hints

import pytest

from evenkeel.contracts.topics import SERVICES
from evenkeel.libs.service import Reply

ROOT: Final = Path(__file__).parents[2] / "services"
EVERY: Final = {"__init__", "api", "context", "handlers", "service", "settings", "store"}
WHERE_NEEDED: Final = {"background", "commands", "metrics", "queries", "rebuild"}
OWN: Final = {
    "ingest": {"rejected"},
    "monitor": {"findings"},
    "serving": {"asgi", "recording"},
    "trainer": {"training_process", "training_run", "training_table"},
}
WITHOUT_SQL: Final = {"serving"}


@pytest.mark.parametrize("service", SERVICES)
def test_the_same_files(service: str) -> None:
    home = ROOT / service
    files = {path.stem for path in home.glob("*.py")}
    assert files >= EVERY
    assert files <= EVERY | WHERE_NEEDED | OWN.get(service, set())
    folders = {path.name for path in home.iterdir() if (path / "__init__.py").exists()}
    assert folders == {"domain"} | (set() if service in WITHOUT_SQL else {"migrations"})


@pytest.mark.parametrize("service", SERVICES)
def test_each_thing_is_where_it_is_looked_for(service: str) -> None:
    home = f"evenkeel.services.{service}"
    declared = importlib.import_module(f"{home}.service").service
    assert declared.handlers is importlib.import_module(f"{home}.handlers").HANDLERS
    assert declared.settings.__module__ == f"{home}.settings"
    assert {task.__module__ for task in declared.background} <= {f"{home}.background"}
    if declared.rebuild is not None:
        assert declared.rebuild is importlib.import_module(f"{home}.rebuild").REBUILD
    assert hasattr(importlib.import_module(f"{home}.context"), f"{service.capitalize()}Context")


@pytest.mark.parametrize("service", SERVICES)
def test_rows_come_out_of_a_store_as_what_they_are(service: str) -> None:
    tree = ast.parse((ROOT / service / "store.py").read_text())
    (store,) = (
        node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == f"{service.capitalize()}Store"
    )
    methods = [node for node in store.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
    for method in methods:
        assert method.returns is not None
        named = {node.id for node in ast.walk(method.returns) if isinstance(node, ast.Name)}
        assert not named & {"Any", "Row", "RowMapping"}, f"{service}: {method.name} answers rows of the database"


@pytest.mark.parametrize("service", sorted(path.parent.name for path in ROOT.glob("*/commands.py")))
def test_a_command_is_a_frozen_dataclass_with_a_function_of_its_name(service: str) -> None:
    """`on_<command>(command, ctx) -> Reply[Answer]`, and somebody gives it."""
    module = importlib.import_module(f"evenkeel.services.{service}.commands")
    functions = {name: found for name, found in vars(module).items() if name.startswith("on_")}
    assert functions
    callers = "".join(
        (ROOT / service / f"{name}.py").read_text()
        for name in ("api", "background")
        if (ROOT / service / f"{name}.py").exists()
    )
    for name, function in functions.items():
        hints = get_type_hints(function)
        command = hints.pop("command")
        assert name == "on_" + re.sub(r"(?<!^)(?=[A-Z])", "_", command.__name__).lower()
        assert is_dataclass(command) and command.__dataclass_params__.frozen and "__slots__" in vars(command), name
        assert (command.__doc__ or "").endswith("."), f"{command.__name__} says what it asks for"
        assert list(hints) == ["ctx", "return"], name
        assert get_origin(hints["return"]) is Reply, name
        assert f"partial({name}, " in callers, f"nobody gives {command.__name__}"
