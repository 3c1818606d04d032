"""HTTP of the registry: declarations, versions, champions, approvals, rollback."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, TypeVar

import sqlalchemy as sa
from fastapi import Query, Request

from evenkeel.contracts.envelope import format_us
from evenkeel.contracts.http import registry as http
from evenkeel.libs.declaration import DeclarationError, load_declaration
from evenkeel.libs.declaration import schema as declared_schema
from evenkeel.libs.errors import Refused
from evenkeel.libs.http.caller import CalledBy
from evenkeel.libs.routes import Routes
from evenkeel.libs.service import Host
from evenkeel.services.registry.commands import (
    Apply,
    Approve,
    RollBack,
    answer_of,
    changes_of,
    on_apply,
    on_approve,
    on_roll_back,
)
from evenkeel.services.registry.store import ApprovalRow, ChampionRow, RegistryStore, VersionRow

T = TypeVar("T")


def routes(runtime: Host[Any]) -> Routes:
    found = Routes()

    @found.answer(http.APPLY)
    async def apply(request: Request, query: Annotated[http.ApplyQuery, Query()], caller: CalledBy) -> http.Applied:
        text, filename = await _text(request), request.headers.get("x-filename", "declaration")
        declared = await runtime.query(lambda c: RegistryStore(c).streams())
        try:
            declaration = load_declaration(text, filename, declared)
        except DeclarationError as error:
            raise _cannot_be_applied(error) from None
        if query.dry_run:
            return await runtime.query(lambda c: answer_of(changes_of(declaration, RegistryStore(c)), dry_run=True))
        return await runtime.command(partial(on_apply, Apply(declaration, caller)))

    @found.answer(http.SCHEMA)
    async def schema() -> http.JsonSchema:
        return http.JsonSchema.model_validate(declared_schema())

    @found.answer(http.STREAMS)
    async def streams() -> http.DeclaredStreams:
        declared = await runtime.query(lambda c: RegistryStore(c).streams())
        specs = {name: spec.written() for name, spec in declared.items()}
        return http.DeclaredStreams(streams=specs)

    @found.answer(http.MODELS)
    async def models() -> http.DeclaredModels:
        return http.DeclaredModels(models=await runtime.query(_models))

    @found.answer(http.MODEL)
    async def model(model: str) -> http.DeclaredModel:
        return await _of_model(runtime, model, _model)

    @found.answer(http.VERSIONS)
    async def versions(model: str) -> http.Versions:
        return await _of_model(runtime, model, _versions)

    @found.answer(http.CHAMPION)
    async def champion(model: str) -> http.ChampionHistory:
        return await _of_model(runtime, model, _champion)

    @found.answer(http.APPROVALS)
    async def approvals(model: str) -> http.Approvals:
        return await _of_model(runtime, model, _approvals)

    @found.answer(http.APPROVE)
    async def approve(model: str, body: http.ApprovalRequest, caller: CalledBy) -> http.ApprovalResult:
        command = Approve(model, body.nonce, body.package, body.approved, body.approver, body.comment, caller)
        return await runtime.command(partial(on_approve, command))

    @found.answer(http.ROLLBACK)
    async def rollback(model: str, body: http.RollbackRequest, caller: CalledBy) -> http.RollbackResult:
        return await runtime.command(partial(on_roll_back, RollBack(model, body.epoch, body.reason, caller)))

    return found


async def _text(request: Request) -> str:
    try:
        return (await request.body()).decode()
    except UnicodeDecodeError:
        raise Refused(422, "Not text", "The declaration is not UTF-8.", field="body", fix="Save it as UTF-8.") from None


def _cannot_be_applied(error: DeclarationError) -> Refused:
    first = error.problems[0]
    detail = f"{len(error.problems)} problem(s); the first: line {first.line}, {first.field}: {first.message}"
    more = {"problems": [problem._asdict() for problem in error.problems]}
    return Refused(422, "The declaration cannot be applied", detail, field=first.field, fix=first.fix, more=more)


async def _of_model(runtime: Host[Any], model: str, ask: Callable[[RegistryStore, str], T]) -> T:
    """The answer about a model that exists; Refused names the ones that do."""

    def question(connection: sa.Connection) -> T:
        store = RegistryStore(connection)
        if not store.has_model(model):
            known = ", ".join(store.models()) or "none"
            raise Refused(
                404, "Unknown model", f"There is no model {model}.", field="model", fix=f"Declared models: {known}."
            )
        return ask(store, model)

    return await runtime.query(question)


def _models(connection: sa.Connection) -> list[http.DeclaredModel]:
    store = RegistryStore(connection)
    return [_model(store, name) for name in store.models()]


def _model(store: RegistryStore, name: str) -> http.DeclaredModel:
    row, champion = store.model(name), store.champion(name)
    assert row is not None, "asked for models that are there"
    return http.DeclaredModel(
        model=name,
        spec=row.spec,
        view_version=row.view_version,
        event_time=format_us(row.event_us) if row.event_us else None,
        champion=None
        if champion is None
        else http.ChampionInShort(
            version=champion.version,
            epoch=champion.epoch,
            run_id=store.version(name, champion.version).run_id,
        ),
    )


def _versions(store: RegistryStore, model: str) -> http.Versions:
    gates: dict[int, list[http.GateVerdict]] = {}
    for row in store.gates(model):
        verdict = http.GateVerdict(
            run_id=row.run_id, gate=row.gate, passed=row.passed, value=row.value, bar=row.bar, detail=row.detail
        )
        gates.setdefault(row.version, []).append(verdict)
    return http.Versions(
        model=model, versions=[_version(row, gates.get(row.version, [])) for row in store.versions(model)]
    )


def _version(row: VersionRow, gates: list[http.GateVerdict]) -> http.Version:
    return http.Version(
        version=row.version,
        package=row.package,
        package_uri=row.package_uri,
        package_bytes=row.package_bytes,
        view_version=row.view_version,
        run_id=row.run_id,
        dataset_version=row.dataset_version,
        estimator=row.estimator,
        threshold=row.threshold,
        state=row.state,
        registered=format_us(row.registered_us),
        evidence=http.Evidence.model_validate(row.evidence) if row.evidence else None,
        gates=gates,
    )


def _champion(store: RegistryStore, model: str) -> http.ChampionHistory:
    receipts: dict[int, list[http.Receipt]] = {}
    for row in store.receipts(model):
        receipt = http.Receipt(
            replica=row.replica, state=row.state, detail=row.detail, recorded=format_us(row.recorded_us)
        )
        receipts.setdefault(row.epoch, []).append(receipt)
    history = [_epoch(row, receipts.get(row.epoch, [])) for row in store.champions(model)]
    return http.ChampionHistory(
        model=model, champion=next((epoch for epoch in history if epoch.active), None), history=history
    )


def _epoch(row: ChampionRow, receipts: list[http.Receipt]) -> http.ChampionEpoch:
    return http.ChampionEpoch(
        epoch=row.epoch,
        version=row.version,
        package=row.package,
        since=format_us(row.since_us),
        previous_version=row.previous_version,
        cause=row.cause,
        active=row.active,
        receipts=receipts,
    )


def _approvals(store: RegistryStore, model: str) -> http.Approvals:
    return http.Approvals(model=model, approvals=[_approval(row) for row in store.approvals(model)])


def _approval(row: ApprovalRow) -> http.Approval:
    return http.Approval(
        nonce=row.nonce,
        version=row.version,
        package=row.package,
        epoch=row.epoch,
        expires=format_us(row.expires_us),
        state=row.state,
        approver=row.approver,
        comment=row.comment,
    )
