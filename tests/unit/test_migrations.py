"""Each store's history of migrations ends in the tables as they are now, from whatever point of it a store comes."""

from __future__ import annotations

import importlib
import shutil
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest
import sqlalchemy as sa

from evenkeel.contracts.topics import SERVICES
from evenkeel.libs.errors import Stop
from evenkeel.libs.store import sql
from evenkeel.libs.store.schema import Migration, differences, draft, migrate, read_migrations
from evenkeel.libs.store.sql import SqlStore
from evenkeel.services.registry.store import MIGRATIONS, tables

WITHOUT_SQL: Final = {"serving"}
STORES: Final[dict[str, ModuleType]] = {
    "runtime": sql,
    **{
        name: importlib.import_module(f"evenkeel.services.{name}.store") for name in SERVICES if name not in WITHOUT_SQL
    },
}
REVISIONS: Final = [
    pytest.param(store, done, id=f"{name}-{done}")
    for name, store in STORES.items()
    for done in range(len(read_migrations(store.migrations)) + 1)
]


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    url: str = f"sqlite:///{tmp_path}/store.db" if request.param == "sqlite" else request.getfixturevalue("postgres")
    return url


def opened(url: str, service: str, migrations: Sequence[Migration]) -> SqlStore:
    store = SqlStore(url, service, migrations)
    store.open()
    return store


@pytest.mark.parametrize(("store", "done"), REVISIONS)
def test_a_store_of_each_revision_becomes_todays(database: str, store: ModuleType, done: int) -> None:
    schema, migrations = f"s{uuid.uuid4().hex}", read_migrations(store.migrations)
    before = SqlStore(database, schema, ())
    if database.startswith("postgres"):
        before.connection.execute(sa.schema.CreateSchema(schema))
        before.connection.commit()
    migrate(before.connection, "runtime" if store is sql else schema, migrations[:done])
    before.close()
    after = opened(database, schema, () if store is sql else migrations)
    with after.reading() as connection:
        assert differences(connection, store.tables) == []
        assert differences(connection, sql.tables) == []
    after.close()


@pytest.mark.parametrize("name", [name for name in STORES if name != "runtime"])
def test_indexes_have_the_conditions_that_the_tables_say(tmp_path: Path, name: str) -> None:
    """Alembic does not compare what a partial index is about."""

    def indexes(url: str) -> set[str]:
        with sa.create_engine(url).connect() as connection:
            found = connection.execute(
                sa.text("SELECT sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
            )
            return {" ".join(text.replace(f"{name}.", "").split()) for text in found.scalars()}

    migrated, direct = f"sqlite:///{tmp_path}/migrated.db", f"sqlite:///{tmp_path}/direct.db"
    opened(migrated, name, read_migrations(STORES[name].migrations)).close()
    STORES[name].tables.create_all(sa.create_engine(direct))
    assert indexes(migrated) == indexes(direct)


def test_at_most_one_champion_a_model_answers(database: str) -> None:
    store = opened(database, f"s{uuid.uuid4().hex}", MIGRATIONS)
    row = {"model": "m", "version": 1, "package": "p", "since_us": 0, "cause": "gates"}
    champions = tables.tables["champions"]
    with store.begin() as tx:
        tx.connection.execute(champions.insert(), [row | {"epoch": n, "active": n == 3} for n in (1, 2, 3)])
    with pytest.raises(sa.exc.IntegrityError), store.begin() as tx:
        tx.connection.execute(champions.insert(), row | {"epoch": 4, "active": True})
    store.close()


def test_a_store_of_a_later_release_is_left_alone(database: str) -> None:
    schema = f"s{uuid.uuid4().hex}"

    def later(op: Any) -> None:
        op.create_table("later", sa.Column("key", sa.Text, primary_key=True))

    opened(database, schema, (*MIGRATIONS, later)).close()
    with pytest.raises(Stop, match=f"tables of {schema} are at version 000{len(MIGRATIONS) + 1}.*start the release"):
        opened(database, schema, MIGRATIONS)


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A copy of the registry's migrations, as a package of its own."""
    name = f"history_{uuid.uuid4().hex}"
    shutil.copytree(Path(STORES["registry"].migrations.__path__[0]), tmp_path / name)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module(name)
    for module in [one for one in sys.modules if one.startswith(name)]:
        del sys.modules[module]


def test_a_draft_has_what_is_new_and_keeps_what_is_there(history: ModuleType, tmp_path: Path) -> None:
    changed = sa.MetaData()
    for table in tables.sorted_tables:
        table.to_metadata(changed)
    changed.tables["receipts"].append_column(sa.Column("invented", sa.Float))
    sa.Table("notes", changed, sa.Column("model", sa.Text, primary_key=True))
    store = opened(f"sqlite:///{tmp_path}/store.db", "registry", read_migrations(history))
    receipt = {"model": "m", "epoch": 1, "replica": "r", "state": "activated", "detail": "", "recorded_us": 5}
    with store.begin() as tx:
        tx.connection.execute(tables.tables["receipts"].insert(), receipt)
    store.close()

    path = draft(changed, history, "invent_a_column")
    assert path is not None
    assert path.name == f"{len(MIGRATIONS) + 1:04}_invent_a_column.py"
    store = opened(f"sqlite:///{tmp_path}/store.db", "registry", read_migrations(history))
    with store.reading() as connection:
        assert differences(connection, changed) == []
        (row,) = connection.execute(sa.select(changed.tables["receipts"])).mappings()
    assert row.items() >= (receipt | {"invented": None}).items()
    store.close()


def test_nothing_is_drafted_where_nothing_differs(history: ModuleType) -> None:
    assert draft(tables, history, "nothing") is None


def test_a_column_without_a_migration_is_a_difference(tmp_path: Path) -> None:
    store = opened(f"sqlite:///{tmp_path}/store.db", "registry", MIGRATIONS)
    changed = sa.MetaData()
    tables.tables["receipts"].to_metadata(changed).append_column(sa.Column("invented", sa.Float))
    with store.reading() as connection:
        assert [found[0] for found in differences(connection, changed)] == ["add_column"]
    store.close()


@pytest.mark.parametrize("name", ["8888_skips_some", "later", "0001_again"])
def test_files_are_numbered_without_a_gap(history: ModuleType, name: str) -> None:
    (Path(history.__path__[0]) / f"{name}.py").write_text("def upgrade(op): ...\n")
    with pytest.raises(ValueError, match=r"expected a file \d{4}_….py"):
        read_migrations(history)


def test_a_drafts_name_is_one_of_a_file(history: ModuleType) -> None:
    changed = sa.MetaData()
    sa.Table("notes", changed, sa.Column("model", sa.Text, primary_key=True))
    with pytest.raises(ValueError, match="'Add seconds' is no name of a migration"):
        draft(changed, history, "Add seconds")
