"""House rules, held by machine: who may import whom, and what may not be used at all."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from evenkeel.contracts.topics import SERVICES

ROOT = Path(__file__).parents[2]
PARTS = ("apps", "contracts", "libs", "services")
FILES = sorted(path for part in PARTS for path in (ROOT / "evenkeel" / part).resolve().rglob("*.py"))
FORBIDDEN_MODULES = {"pickle", "joblib", "dill", "cloudpickle", "shelve", "marshal"}
SQL_ENGINES = {"sqlalchemy", "sqlite3", "psycopg", "alembic"}


def module_of(path: Path) -> str:
    """Its import name; libs, services and contracts lie beside the package and are linked into it."""
    parts = ("evenkeel", *path.relative_to(ROOT).with_suffix("").parts)
    parts = parts[1:] if parts[1] == "evenkeel" else parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, type_checking: bool = True) -> Iterator[str]:
    """Every module that a file imports, lazily or not; without `type_checking`, only what runs."""
    skipped: set[ast.AST] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test) and not type_checking:
            skipped |= set(ast.walk(node))
        if node in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_each_part_imports_only_what_it_may(path: Path) -> None:
    mine = module_of(path)
    part = mine.split(".")[1]
    for name in imports(path):
        top, _, inner = name.partition(".")
        other = inner.split(".")[0] if top == "evenkeel" else ""
        if part == "contracts":
            assert other in ("", "contracts"), f"{mine} imports {name}: contracts know nobody"
        if part == "libs":
            assert other in ("", "libs", "contracts"), f"{mine} imports {name}: libs know no service and no app"
        if part == "services":
            own = ".".join(mine.split(".")[:3])
            allowed = other in ("", "libs", "contracts") or mine == "evenkeel.services.__main__" or name.startswith(own)
            assert allowed, f"{mine} imports {name}: services import only themselves, libs and contracts"
        if part == "apps":
            assert other != "services", f"{mine} imports {name}: apps start services, and speak to them as anybody does"
        assert top not in ("apps", "contracts", "deploy", "libs", "services", "tests"), f"{mine} imports {name}"
        assert top not in FORBIDDEN_MODULES, f"{mine} imports {name}: no pickle or joblib on any path"
        if mine.startswith("evenkeel.libs.runtime"):
            assert top not in SQL_ENGINES and not name.startswith("evenkeel.libs.store.sql"), (
                f"{mine} imports {name}: the runtime knows no SQL engine"
            )


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_no_unsafe_loading(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            called = f"{node.func.value.id}.{node.func.attr}"
            assert called not in {"yaml.load", "yaml.unsafe_load", "yaml.full_load"}, (
                f"{module_of(path)} calls {called}"
            )


def test_there_are_no_import_cycles() -> None:
    modules = {module_of(path): path for path in FILES}
    edges = {
        mine: {
            name
            for name in imports(path, type_checking=False)
            if name in modules and name != mine and not mine.startswith(name + ".")
        }
        for mine, path in modules.items()
    }
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, "import cycle: " + " → ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for other in edges[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in edges:
        visit(name, ())


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_loads_only_what_its_extra_installs(service: str) -> None:
    absent = {
        "ingest": {"onnxruntime", "sklearn", "deltalake", "lmdb", "river"},
        "feature": {"onnxruntime", "sklearn", "lmdb", "river"},
        "trainer": {"lmdb", "river"},
        "registry": {"sklearn", "deltalake", "lmdb", "river"},
        "serving": {"sqlalchemy", "sklearn", "deltalake", "river", "pandas"},
        "monitor": {"sklearn", "deltalake", "lmdb"},
        "governance": {"onnxruntime", "sklearn", "deltalake", "lmdb", "river"},
    }[service]
    code = f"import sys; import evenkeel.services.{service}.service; print(*(m for m in {sorted(absent)} if m in sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()
    assert loaded == []


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_schemas_come_from_frozen_files_only(path: Path) -> None:
    """A migration that used today's tables would be another one tomorrow."""
    tree = ast.parse(path.read_text())
    made = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr == "create_all"]
    assert not made, f"{module_of(path)} calls create_all: write a migration (evenkeel.libs.store.schema)"
    if path.parent.name == "migrations":
        used = {name.split(".")[0] for name in imports(path)} - set(sys.stdlib_module_names)
        assert used <= {"sqlalchemy", "alembic"}, f"{module_of(path)} imports {used}: a released file never changes"
