"""House rules, held by machine: who may import whom, and what may not be used at all."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

from evenkeel.contracts.topics import SERVICES
from evenkeel.libs.drift import DETECTORS, STATISTICS

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


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, lazily, for the type checker only, or as everybody does."""
    for node in ast.walk(ast.parse(path.read_text())):
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


def module_edges() -> dict[str, set[str]]:
    """Module → the modules that it imports."""
    modules = {module_of(path): path for path in FILES}
    return {
        mine: {name for name in imports(path) if name in modules and name != mine and not mine.startswith(name + ".")}
        for mine, path in modules.items()
    }


def folder_of(module: str) -> str:
    """The first name below a part: `evenkeel.libs.runtime`, `evenkeel.services.feature`."""
    return ".".join(module.split(".")[:3])


def first_cycle(edges: Mapping[str, Iterable[str]]) -> tuple[str, ...]:
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> tuple[str, ...]:
        if name in trail:
            return (*trail[trail.index(name) :], name)
        if name in done:
            return ()
        found = next((cycle for other in edges.get(name, ()) if (cycle := visit(other, (*trail, name)))), ())
        done.add(name)
        return found

    return next((cycle for name in edges if (cycle := visit(name, ()))), ())


def test_no_module_imports_itself_through_others() -> None:
    """Imports for the type checker count: two modules that need each other's names are one module."""
    cycle = first_cycle(module_edges())
    assert not cycle, "import cycle: " + " → ".join(cycle)


def test_no_folder_imports_itself_through_others() -> None:
    edges: dict[str, set[str]] = {}
    for mine, others in module_edges().items():
        edges.setdefault(folder_of(mine), set()).update({folder_of(other) for other in others} - {folder_of(mine)})
    cycle = first_cycle(edges)
    assert not cycle, "folder cycle: " + " → ".join(cycle)


def test_a_cycle_is_found_wherever_it_begins() -> None:
    assert first_cycle({"a": ["b"], "b": ["c"], "c": ["b"]}) == ("b", "c", "b")
    assert first_cycle({"a": ["b", "c"], "b": ["c"], "c": []}) == ()


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


def test_a_drift_statistic_is_known_by_name_only_in_its_file_and_its_row() -> None:
    """Everybody else speaks of a statistic or a detector by the word that the evidence or the policy carries."""
    names = {name for row in (*STATISTICS, *DETECTORS) for name in (row.name, getattr(row, "title", row.name))}
    known = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(names)))})\b", re.IGNORECASE)
    own = {ROOT / "libs/drift" / f"{row.name}.py" for row in (*STATISTICS, *DETECTORS)} | {
        ROOT / "libs/drift/catalogue.py"
    }
    told = [str(path.relative_to(ROOT)) for path in FILES if path not in own and known.search(path.read_text())]
    assert told == []
