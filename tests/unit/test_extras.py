"""Each service runs with nothing but its own extra: what its modules import on import is in the extra's closure."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

from evenkeel.contracts.topics import SERVICES

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def _file(module: str) -> Path | None:
    path = ROOT / Path(*module.split("."))
    return next((found for found in (path.with_suffix(".py"), path / "__init__.py") if found.exists()), None)


def _imported_on_import(nodes: list[ast.stmt]) -> Iterator[str]:
    """Names in import statements that run when the module is imported."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If):
            if "TYPE_CHECKING" not in ast.dump(node.test):
                yield from _imported_on_import(node.body)
            yield from _imported_on_import(node.orelse)
        elif isinstance(node, (ast.Try, ast.ClassDef, ast.With)):
            yield from _imported_on_import(node.body)


@cache
def _imports(module: str) -> frozenset[str]:
    path = _file(module)
    return frozenset(_imported_on_import(ast.parse(path.read_text()).body)) if path else frozenset()


def _third_party(*roots: str) -> dict[str, str]:
    """Top-level packages that importing the roots imports, each with one of our modules that asks for it."""
    found: dict[str, str] = {}
    seen: set[str] = set()
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        waiting += [parent for parent in (module.rpartition(".")[0],) if parent]
        for name in _imports(module):
            top = name.split(".")[0]
            if top == "evenkeel":
                waiting.append(name)
            elif top not in sys.stdlib_module_names:
                found[top] = module
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@cache
def _installed_by(extra: str) -> frozenset[str]:
    """Distributions that `pip install evenkeel[extra]` brings on this platform."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [("evenkeel", ""), ("evenkeel", extra)]
    while waiting:
        name, wanted = waiting.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        found.add(name)
        if name == "evenkeel":  # what is installed may be older than the file
            lines = PROJECT["optional-dependencies"][wanted] if wanted else PROJECT["dependencies"]
        else:
            lines = metadata.requires(name) or []
        for line in lines:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": wanted}):
                waiting += [(_normal(requirement.name), each) for each in ("", *requirement.extras)]
    return frozenset(found)


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_imports_only_what_its_extra_installs(name: str) -> None:
    assert _file(f"evenkeel.services.{name}.service")
    installed, distributions = _installed_by(name), metadata.packages_distributions()
    missing = {
        package: module
        for package, module in _third_party("evenkeel.services.__main__", f"evenkeel.services.{name}.service").items()
        if not {_normal(distribution) for distribution in distributions.get(package, [package])} & installed
    }
    assert not missing, f"{name} imports what evenkeel[{name}] does not install (package: our module): {missing}"


def test_the_closures_differ() -> None:
    assert "onnxruntime" in _installed_by("serving")
    assert not _installed_by("serving") & {"scikit-learn", "sqlalchemy", "deltalake", "pandas"}
    assert not _installed_by("ingest") & {"onnxruntime", "scikit-learn", "deltalake", "river"}
    assert "scikit-learn" in _installed_by("trainer")
