"""The history of a schema: numbered files, each of which brings a store one step on.

A folder `migrations` holds `0001_….py`, `0002_….py` and so on, each with a function `upgrade(op)` in alembic's
operations. Once a file is released it never changes: it names its columns itself and does not import today's tables, so
that an old store and a new one go the same way. A test holds the sum of all files equal to the tables as they are now.

`python -m evenkeel.libs.store.schema MODULE NAME` writes the next file of a module that has `tables` and `migrations`, from what
the tables have and the files have not: read it, and add what to do with rows that are there.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import sqlalchemy as sa
from alembic.autogenerate import compare_metadata, produce_migrations, render_python_code
from alembic.migration import MigrationContext
from alembic.operations import Operations

from evenkeel.libs.errors import Stop

Migration = Callable[[Operations], None]

_FILE: Final = re.compile(r"(\d{4})_[a-z0-9_]+")


def read_migrations(folder: ModuleType) -> tuple[Migration, ...]:
    """The `upgrade` of every file of a package, in order; raises ValueError if a number is missing or there twice."""
    names = sorted(found.name for found in pkgutil.iter_modules(folder.__path__))
    for number, name in enumerate(names, 1):
        match = _FILE.fullmatch(name)
        if match is None or int(match[1]) != number:
            raise ValueError(f"{folder.__name__}: expected a file {number:04}_….py, found {name}.py")
    return tuple(importlib.import_module(f"{folder.__name__}.{name}").upgrade for name in names)


def migrate(connection: sa.Connection, history: str, migrations: Sequence[Migration]) -> None:
    """Apply what the store has not had yet, in one transaction; raises Stop when it has had more than there is here."""
    with connection.begin():
        version = sa.Table(_versions(history), sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True))
        version.create(connection, checkfirst=True)
        stored = connection.execute(sa.select(version.c.version_num)).scalar()
        done = int(stored or 0)
        if done > len(migrations):
            raise Stop(
                f"the tables of {history} are at version {stored}, this release knows {len(migrations):04}: "
                "start the release that wrote them, or a later one"
            )
        for number, upgrade in enumerate(migrations[done:], done + 1):
            upgrade(Operations(MigrationContext.configure(connection)))
            connection.execute(version.delete())
            connection.execute(version.insert(), {"version_num": f"{number:04}"})


def differences(connection: sa.Connection, tables: sa.MetaData) -> list[Any]:
    """What the tables have and the database has not, or the other way round, as alembic says it; [] if they are equal.

    Of what the database has, only tables with the names of `tables` are looked at: the runtime's are beside the service's.
    """
    return list(compare_metadata(_comparing(connection, tables), tables))


def draft(tables: sa.MetaData, migrations: ModuleType, name: str) -> Path | None:
    """Write the next file of a history, from a store in memory that has had all the others; None if nothing differs."""
    existing = read_migrations(migrations)
    path = Path(next(iter(migrations.__path__))) / f"{len(existing) + 1:04}_{name}.py"
    if _FILE.fullmatch(path.stem) is None:
        raise ValueError(f"{name!r} is no name of a migration: small letters, digits and _ only")
    with sa.create_engine("sqlite://").connect() as connection:
        migrate(connection, "draft", existing)
        steps = produce_migrations(_comparing(connection, tables), tables).upgrade_ops
    assert steps is not None
    if steps.is_empty():
        return None
    body = "\n".join(
        line.rstrip()
        for line in render_python_code(steps, render_as_batch=True).splitlines()
        if not line.lstrip().startswith("#")
    )
    path.write_text(
        f'"""{name.replace("_", " ").capitalize()}."""\n\nfrom __future__ import annotations\n\n'
        "import sqlalchemy as sa\nfrom alembic.operations import Operations\n\n\n"
        f"def upgrade(op: Operations) -> None:\n    {body.strip()}\n"
    )
    return path


def _versions(history: str) -> str:
    return f"version_{history}"


def _comparing(connection: sa.Connection, tables: sa.MetaData) -> MigrationContext:
    def is_ours(name: str | None, kind: str, parents: Any) -> bool:
        return kind != "table" or name in tables.tables

    options = {"compare_type": True, "target_metadata": tables, "include_name": is_ours}
    return MigrationContext.configure(connection, opts=options)


def main(module: str, name: str) -> None:
    declared = importlib.import_module(module)
    path = draft(declared.tables, declared.migrations, name)
    print("nothing differs" if path is None else f"wrote {path}: read it, format it, run the tests")


if __name__ == "__main__":
    main(*sys.argv[1:])
