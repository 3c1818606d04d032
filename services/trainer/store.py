"""Tables and named queries of the trainer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Final

import sqlalchemy as sa

from evenkeel.contracts.registry import Declared
from evenkeel.libs.clock import DAY_US
from evenkeel.libs.store.schema import read_migrations
from evenkeel.libs.store.sql import read_all, read_first, upsert
from evenkeel.services.trainer import migrations
from evenkeel.services.trainer.domain.decision import Cut, History, Pause

tables: Final = sa.MetaData()

models = sa.Table(
    "models",
    tables,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("declaration", sa.BigInteger, nullable=False),
    sa.Column("spec", sa.JSON, nullable=False),
    sa.Column("streams", sa.JSON, nullable=False),
    sa.Column("view_version", sa.Text, nullable=False),
    sa.Column("champion_epoch", sa.Integer, nullable=False),
    sa.Column("champion_package", sa.Text),
    sa.Column("event_us", sa.BigInteger),
    sa.Column("pause", sa.JSON),
)
cuts = sa.Table(
    "cuts",
    tables,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("version", sa.BigInteger, primary_key=True),
    sa.Column("uri", sa.Text, nullable=False),
    sa.Column("view_version", sa.Text, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("cut_us", sa.BigInteger, nullable=False),
    sa.Column("span_us", sa.BigInteger, nullable=False),
    sa.Column("offsets", sa.JSON, nullable=False),
)
jobs = sa.Table(
    "jobs",
    tables,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("trigger", sa.Text, nullable=False),
    sa.Column("decided_us", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("owner", sa.Text),
    sa.Column("expires_us", sa.BigInteger),
    sa.Column("request", sa.JSON, nullable=False),
    sa.Column("correlation_id", sa.Text, nullable=False),
    sa.Column("traceparent", sa.Text),
    sa.Column("detail", sa.Text, nullable=False),
)
sa.Index(
    "one_active_job",
    jobs.c.model,
    unique=True,
    sqlite_where=jobs.c.state.in_(("queued", "running")),
    postgresql_where=jobs.c.state.in_(("queued", "running")),
)
_jobs_of_model: Final = sa.Index("jobs_of_model", jobs.c.model, jobs.c.decided_us)

ACTIVE: Final = ("queued", "running")

MIGRATIONS: Final = read_migrations(migrations)


@dataclass(frozen=True, slots=True)
class ModelRow:
    """A declared model. `declaration`: its offset; `event_us`: the latest event time folded for it."""

    name: str
    declaration: int
    spec: Declared
    streams: dict[str, Declared]
    view_version: str
    champion_epoch: int = 0
    champion_package: str | None = None
    event_us: int | None = None
    pause: Pause | None = None
    """None while its loop runs."""


@dataclass(frozen=True, slots=True)
class JobRow:
    """A run that was decided. `decided_us` is event time, `expires_us` the wall time at which its lease ends."""

    run_id: str
    model: str
    trigger: str
    decided_us: int
    state: str
    attempt: int
    owner: str | None
    expires_us: int | None
    request: dict[str, object]
    correlation_id: str
    traceparent: str | None
    detail: str


class TrainerStore:
    """The named queries, on the connection of the transaction at hand."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def model(self, name: str) -> ModelRow | None:
        row = self._connection.execute(sa.select(models).where(models.c.name == name)).mappings().first()
        return None if row is None else _model(row)

    def models(self) -> list[ModelRow]:
        return [_model(row) for row in self._connection.execute(sa.select(models).order_by(models.c.name)).mappings()]

    def put_model(
        self, name: str, declaration: int, spec: Declared, streams: dict[str, Declared], view_version: str
    ) -> None:
        """A declaration; what was known of the model beside it stays."""
        found = self.model(name) or ModelRow(name, declaration, spec, streams, view_version)
        row = replace(found, declaration=declaration, spec=spec, streams=streams, view_version=view_version)
        upsert(self._connection, models, ("name",), [asdict(row)])

    def saw(self, model: str, event_us: int) -> None:
        """The latest event time folded for a model, which is the event time of commands about it."""
        later = sa.or_(models.c.event_us.is_(None), models.c.event_us < event_us)
        self._connection.execute(models.update().where(models.c.name == model, later).values(event_us=event_us))

    def put_champion(self, model: str, epoch: int, package: str) -> None:
        where = (models.c.name == model, models.c.champion_epoch < epoch)
        changed = {"champion_epoch": epoch, "champion_package": package}
        self._connection.execute(models.update().where(*where).values(changed))

    def set_pause(self, model: str, pause: Pause | None) -> None:
        kept = None if pause is None else asdict(pause)
        self._connection.execute(models.update().where(models.c.name == model).values(pause=kept))

    def put_cut(self, model: str, cut: Cut) -> None:
        row = {
            "model": model,
            "version": cut.version,
            "uri": cut.uri,
            "view_version": cut.view_version,
            "rows": cut.rows,
            "cut_us": cut.cut_us,
            "span_us": cut.span_us,
            "offsets": cut.offsets,
        }
        upsert(self._connection, cuts, ("model", "version"), [row])

    def cuts(self, model: str) -> list[Cut]:
        rows = self._connection.execute(sa.select(cuts).where(cuts.c.model == model).order_by(cuts.c.version))
        return [_cut(row) for row in rows]

    def newest_cut(self, model: str, view_version: str, at_us: int) -> list[Cut]:
        """The last cut of a view at or before this event time, if there is one."""
        of_view = sa.select(cuts).where(cuts.c.model == model, cuts.c.view_version == view_version)
        newest = of_view.where(cuts.c.cut_us <= at_us).order_by(cuts.c.cut_us.desc(), cuts.c.version.desc()).limit(1)
        return [_cut(row) for row in self._connection.execute(newest)]

    def history(self, model: str, at_us: int) -> History:
        """What a decision at this event time looks at."""
        row = self.model(model)
        mine = sa.select(jobs.c.decided_us).where(jobs.c.model == model).order_by(jobs.c.decided_us.desc())
        last = self._connection.execute(mine.limit(1)).scalar()
        recent = [] if last is None else [last]
        if last is not None and last > at_us - DAY_US:
            recent = sorted(self._connection.execute(mine.where(jobs.c.decided_us > at_us - DAY_US)).scalars())
        active = sa.select(jobs.c.run_id).where(jobs.c.model == model, jobs.c.state.in_(ACTIVE))
        return History(
            recent,
            self._connection.execute(active).scalar(),
            row.champion_epoch if row else 0,
            row.pause if row else None,
        )

    def add_job(self, row: dict[str, Any]) -> None:
        self._connection.execute(jobs.insert(), row | {"state": "queued", "attempt": 0, "detail": ""})

    def end_job(self, run_id: str, state: str, detail: str) -> None:
        """How a run ended, as it was said before this store was made again."""
        self._connection.execute(jobs.update().where(jobs.c.run_id == run_id).values(state=state, detail=detail))

    def is_open(self, run_id: str) -> bool:
        where = (jobs.c.run_id == run_id, jobs.c.state.in_(ACTIVE))
        return self._connection.execute(sa.select(jobs.c.run_id).where(*where)).first() is not None

    def put_request(self, run_id: str, request: dict[str, Any]) -> None:
        self._connection.execute(jobs.update().where(jobs.c.run_id == run_id).values(request=request))

    def job(self, run_id: str) -> JobRow:
        """A run that was decided; raises LookupError."""
        found = read_first(self._connection, sa.select(jobs).where(jobs.c.run_id == run_id), JobRow)
        if found is None:
            raise LookupError(f"there is no run {run_id}")
        return found

    def jobs(self, model: str) -> list[JobRow]:
        query = sa.select(jobs).where(jobs.c.model == model).order_by(jobs.c.decided_us)
        return read_all(self._connection, query, JobRow)

    def next_job(self, owner: str, now_us: int) -> JobRow | None:
        """A job that waits, or whose lease ran out, or that an earlier owner left: one instance at a time is active."""
        lost = sa.and_(jobs.c.state == "running", sa.or_(jobs.c.owner != owner, jobs.c.expires_us < now_us))
        waiting = sa.select(jobs).where(sa.or_(jobs.c.state == "queued", lost)).order_by(jobs.c.decided_us)
        return read_first(self._connection, waiting.limit(1), JobRow)

    def take_job(self, run_id: str, attempt: int, owner: str, expires_us: int) -> bool:
        """Compare-and-set on the attempt: False if somebody else took it."""
        where = (jobs.c.run_id == run_id, jobs.c.attempt == attempt, jobs.c.state.in_(ACTIVE))
        taken = {"state": "running", "attempt": attempt + 1, "owner": owner, "expires_us": expires_us}
        return self._connection.execute(jobs.update().where(*where).values(taken)).rowcount == 1

    def keep_job(self, run_id: str, attempt: int, expires_us: int) -> bool:
        where = (jobs.c.run_id == run_id, jobs.c.attempt == attempt, jobs.c.state == "running")
        return self._connection.execute(jobs.update().where(*where).values(expires_us=expires_us)).rowcount == 1

    def close_job(self, run_id: str, attempt: int, state: str, detail: str) -> bool:
        """False for a zombie's finish: another attempt is under way, or done."""
        where = (jobs.c.run_id == run_id, jobs.c.attempt == attempt, jobs.c.state == "running")
        return self._connection.execute(jobs.update().where(*where).values(state=state, detail=detail)).rowcount == 1


def _cut(row: sa.Row[Any]) -> Cut:
    return Cut(row.uri, row.version, row.view_version, row.rows, row.cut_us, row.span_us, row.offsets)


def _model(row: sa.RowMapping) -> ModelRow:
    pause = row["pause"]
    return ModelRow(**{**row, "pause": None if pause is None else Pause(**pause)})
