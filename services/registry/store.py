"""Tables and named queries of the registry."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import sqlalchemy as sa

from evenkeel.contracts.declaration import StreamSpec
from evenkeel.contracts.registry import Declared
from evenkeel.libs.errors import Fenced
from evenkeel.libs.store.schema import read_migrations
from evenkeel.libs.store.sql import read_all, read_first, upsert
from evenkeel.services.registry import migrations
from evenkeel.services.registry.domain.promotion import Champion

tables: Final = sa.MetaData()

streams = sa.Table(
    "streams", tables, sa.Column("name", sa.Text, primary_key=True), sa.Column("spec", sa.JSON, nullable=False)
)
models = sa.Table(
    "models",
    tables,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("spec", sa.JSON, nullable=False),
    sa.Column("streams", sa.JSON, nullable=False),
    sa.Column("view_version", sa.Text, nullable=False),
    sa.Column("event_us", sa.BigInteger),
)
versions = sa.Table(
    "versions",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("package", sa.Text, nullable=False),
    sa.Column("package_uri", sa.Text, nullable=False),
    sa.Column("package_bytes", sa.BigInteger, nullable=False),
    sa.Column("view_version", sa.Text, nullable=False),
    sa.Column("run_id", sa.Text, nullable=False),
    sa.Column("dataset_version", sa.BigInteger, nullable=False),
    sa.Column("estimator", sa.Text, nullable=False),
    sa.Column("threshold", sa.Float),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("registered_us", sa.BigInteger, nullable=False),
    sa.Column("evidence", sa.JSON, nullable=False),
    sa.UniqueConstraint("model", "package"),
)
gates = sa.Table(
    "gates",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("gate", sa.Text, primary_key=True),
    sa.Column("passed", sa.Boolean, nullable=False),
    sa.Column("value", sa.Float),
    sa.Column("bar", sa.Float),
    sa.Column("detail", sa.Text, nullable=False),
)
_gates_of_run: Final = sa.Index("gates_of_run", gates.c.run_id)
champions = sa.Table(
    "champions",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("epoch", sa.Integer, primary_key=True),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("package", sa.Text, nullable=False),
    sa.Column("since_us", sa.BigInteger, nullable=False),
    sa.Column("previous_version", sa.Integer),
    sa.Column("cause", sa.Text, nullable=False),
    sa.Column("active", sa.Boolean, nullable=False),
)
sa.Index(
    "one_champion",
    champions.c.model,
    unique=True,
    sqlite_where=champions.c.active.is_(True),
    postgresql_where=champions.c.active.is_(True),
)
approvals = sa.Table(
    "approvals",
    tables,
    sa.Column("nonce", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("package", sa.Text, nullable=False),
    sa.Column("epoch", sa.Integer, nullable=False),
    sa.Column("expires_us", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("approver", sa.Text),
    sa.Column("comment", sa.Text),
)
receipts = sa.Table(
    "receipts",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("epoch", sa.Integer, primary_key=True),
    sa.Column("replica", sa.Text, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("recorded_us", sa.BigInteger, nullable=False),
)

MIGRATIONS: Final = read_migrations(migrations)


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A declared model. `event_us`: the latest event time folded for it."""

    name: str
    spec: Declared
    streams: dict[str, Declared]
    view_version: str
    event_us: int | None


@dataclass(frozen=True, slots=True)
class VersionRow:
    model: str
    version: int
    package: str
    package_uri: str
    package_bytes: int
    view_version: str
    run_id: str
    dataset_version: int
    estimator: str
    threshold: float | None
    state: str
    registered_us: int
    evidence: dict[str, object]


@dataclass(frozen=True, slots=True)
class GateRow:
    model: str
    version: int
    run_id: str
    gate: str
    passed: bool
    value: float | None
    bar: float | None
    detail: str


@dataclass(frozen=True, slots=True)
class ChampionRow:
    """A champion that is or was; `active` is the one that answers."""

    model: str
    epoch: int
    version: int
    package: str
    since_us: int
    previous_version: int | None
    cause: str
    active: bool


@dataclass(frozen=True, slots=True)
class ApprovalRow:
    """A request for approval. `expires_us` is wall time."""

    nonce: str
    model: str
    version: int
    package: str
    epoch: int
    expires_us: int
    state: str
    approver: str | None = None
    comment: str | None = None


@dataclass(frozen=True, slots=True)
class ReceiptRow:
    """What a replica said about an epoch."""

    model: str
    epoch: int
    replica: str
    state: str
    detail: str
    recorded_us: int


# Clients ask which version answers all the time, and a statement costs more to build than to run.
_OF_MODEL: Final[sa.BindParameter[str]] = sa.bindparam("model")
_HAS_MODEL: Final = sa.select(models.c.name).where(models.c.name == _OF_MODEL)
_CHAMPIONS: Final = sa.select(champions).where(champions.c.model == _OF_MODEL).order_by(champions.c.epoch)
_RECEIPTS: Final = (
    sa.select(receipts).where(receipts.c.model == _OF_MODEL).order_by(receipts.c.epoch, receipts.c.replica)
)


class RegistryStore:
    """The named queries, on the connection of the transaction at hand."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def streams(self) -> dict[str, StreamSpec]:
        return {r.name: StreamSpec.model_validate(r.spec) for r in self._connection.execute(sa.select(streams))}

    def put_stream(self, name: str, spec: Declared) -> None:
        upsert(self._connection, streams, ("name",), [{"name": name, "spec": spec}])

    def model(self, name: str) -> ModelRow | None:
        return read_first(self._connection, sa.select(models).where(models.c.name == name), ModelRow)

    def has_model(self, name: str) -> bool:
        return self._connection.execute(_HAS_MODEL, {"model": name}).first() is not None

    def models(self) -> dict[str, ModelRow]:
        found = read_all(self._connection, sa.select(models).order_by(models.c.name), ModelRow)
        return {row.name: row for row in found}

    def put_model(self, name: str, spec: Declared, used: dict[str, Declared], view_version: str) -> None:
        found = self.model(name)
        row = ModelRow(name, spec, used, view_version, found.event_us if found else None)
        upsert(self._connection, models, ("name",), [asdict(row)])

    def saw(self, model: str, event_us: int) -> None:
        """The latest event time folded for a model, which is the event time of commands about it."""
        later = sa.or_(models.c.event_us.is_(None), models.c.event_us < event_us)
        self._connection.execute(models.update().where(models.c.name == model, later).values(event_us=event_us))

    def find_version(self, model: str, version: int) -> VersionRow | None:
        where = (versions.c.model == model, versions.c.version == version)
        return read_first(self._connection, sa.select(versions).where(*where), VersionRow)

    def version(self, model: str, version: int) -> VersionRow:
        """A version that is known to be there; raises LookupError."""
        found = self.find_version(model, version)
        if found is None:
            raise LookupError(f"version {version} of {model} is not registered")
        return found

    def version_of_package(self, model: str, package: str) -> VersionRow | None:
        where = (versions.c.model == model, versions.c.package == package)
        return read_first(self._connection, sa.select(versions).where(*where), VersionRow)

    def add_version(self, row: dict[str, Any]) -> int:
        latest = sa.select(sa.func.max(versions.c.version)).where(versions.c.model == row["model"])
        number = (self._connection.execute(latest).scalar() or 0) + 1
        self._connection.execute(versions.insert(), row | {"version": number})
        return number

    def put_version(self, row: dict[str, Any]) -> None:
        """A version whose number is known."""
        self._connection.execute(versions.insert(), row)

    def put_evidence(self, model: str, run_id: str, evidence: dict[str, Any]) -> None:
        """What the run that a version was registered for brought."""
        where = (versions.c.model == model, versions.c.run_id == run_id)
        self._connection.execute(versions.update().where(*where).values(evidence=evidence))

    def has_decided(self, run_id: str) -> bool:
        """Whether the gates of this run are decided."""
        return self._connection.execute(sa.select(gates.c.gate).where(gates.c.run_id == run_id)).first() is not None

    def set_state(self, model: str, version: int, state: str) -> None:
        where = (versions.c.model == model, versions.c.version == version)
        self._connection.execute(versions.update().where(*where).values(state=state))

    def versions(self, model: str) -> list[VersionRow]:
        query = sa.select(versions).where(versions.c.model == model).order_by(versions.c.version)
        return read_all(self._connection, query, VersionRow)

    def put_gates(self, rows: list[dict[str, Any]]) -> None:
        upsert(self._connection, gates, ("model", "version", "run_id", "gate"), rows)

    def gates(self, model: str) -> list[GateRow]:
        order = (gates.c.version, gates.c.run_id, gates.c.gate)
        return read_all(self._connection, sa.select(gates).where(gates.c.model == model).order_by(*order), GateRow)

    def champion(self, model: str) -> Champion | None:
        row = self._connection.execute(
            sa.select(champions).where(champions.c.model == model, champions.c.active.is_(True))
        ).first()
        return (
            None if row is None else Champion(row.epoch, row.version, row.package, row.since_us, row.previous_version)
        )

    def champions(self, model: str) -> list[ChampionRow]:
        return read_all(self._connection, _CHAMPIONS, ChampionRow, {"model": model})

    def replace_champion(self, model: str, expected_epoch: int, row: dict[str, Any]) -> int:
        """Compare-and-set: the new epoch, if the champion's is still the expected one (0: none); raises Fenced."""
        if expected_epoch:
            where = (champions.c.model == model, champions.c.epoch == expected_epoch, champions.c.active.is_(True))
            if self._connection.execute(champions.update().where(*where).values(active=False)).rowcount != 1:
                raise Fenced(f"the champion of {model} is no longer that of epoch {expected_epoch}")
        epoch = expected_epoch + 1
        self._connection.execute(champions.insert(), row | {"model": model, "epoch": epoch, "active": True})
        return epoch

    def put_champion(self, model: str, epoch: int, row: dict[str, Any]) -> None:
        """A champion that was said before: the latest epoch answers."""
        self._connection.execute(champions.insert(), row | {"model": model, "epoch": epoch, "active": False})
        mine = champions.c.model == model
        latest = sa.select(sa.func.max(champions.c.epoch)).where(mine).scalar_subquery()
        self._connection.execute(champions.update().where(mine, champions.c.epoch < latest).values(active=False))
        self._connection.execute(champions.update().where(mine, champions.c.epoch == latest).values(active=True))

    def add_approval(self, row: dict[str, Any]) -> None:
        self._connection.execute(approvals.insert(), row)

    def approval(self, nonce: str) -> ApprovalRow | None:
        return read_first(self._connection, sa.select(approvals).where(approvals.c.nonce == nonce), ApprovalRow)

    def approvals(self, model: str) -> list[ApprovalRow]:
        query = sa.select(approvals).where(approvals.c.model == model)
        return read_all(self._connection, query.order_by(approvals.c.version, approvals.c.nonce), ApprovalRow)

    def close_approval(self, nonce: str, state: str, approver: str, comment: str) -> None:
        changed = {"state": state, "approver": approver, "comment": comment}
        self._connection.execute(approvals.update().where(approvals.c.nonce == nonce).values(changed))

    def put_receipt(self, row: dict[str, Any]) -> None:
        upsert(self._connection, receipts, ("model", "epoch", "replica"), [row])

    def receipts(self, model: str) -> list[ReceiptRow]:
        return read_all(self._connection, _RECEIPTS, ReceiptRow, {"model": model})
