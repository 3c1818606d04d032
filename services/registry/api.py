"""HTTP of the registry: declarations, versions, champions, approvals, rollback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Final

import sqlalchemy as sa
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from evenkeel.contracts.envelope import format_us
from evenkeel.libs.declaration import DeclarationError, load_declaration
from evenkeel.libs.declaration import schema as declared_schema
from evenkeel.libs.errors import Refused
from evenkeel.libs.http.problems import problem
from evenkeel.libs.http.roles import role
from evenkeel.libs.http.routing import router
from evenkeel.libs.service import Host
from evenkeel.services.registry.handlers import Approval, Rollback, on_apply, on_approval, on_rollback
from evenkeel.services.registry.store import RegistryStore


class RollbackRequest(BaseModel):
    """Take the champion of `epoch` (or whichever answers) out of service."""

    model_config = ConfigDict(extra="forbid")

    epoch: int | None = Field(None, ge=1, le=2**63 - 1)
    reason: str = Field("by hand", max_length=1000)


class ApprovalRequest(BaseModel):
    """Answer one request for approval. `package` is repeated so that nobody approves what he has not looked at."""

    model_config = ConfigDict(extra="forbid")

    nonce: str = Field(max_length=100)
    package: str = Field(max_length=100)
    approved: bool
    approver: str = Field(min_length=1, max_length=200)
    comment: str = Field("", max_length=1000)


DECLARATION: Final = {"application/yaml": {"type": "string"}, "application/json": {"type": "object"}}


def routers(runtime: Host[Any]) -> Sequence[APIRouter]:
    routes = router()

    @routes.post("/v1/declarations", **role("scientist", body=DECLARATION))
    async def apply(request: Request, dry_run: Annotated[bool, Query()] = False) -> JSONResponse:
        try:
            text = (await request.body()).decode()
        except UnicodeDecodeError:
            raise Refused(
                422, "Not text", "The declaration is not UTF-8.", field="body", fix="Save it as UTF-8."
            ) from None
        filename = request.headers.get("x-filename", "declaration")
        declared = await runtime.query(lambda c: RegistryStore(c).streams())
        try:
            declaration = load_declaration(text, filename, declared)
        except DeclarationError as error:
            problems = [p._asdict() for p in error.problems]
            first = error.problems[0]
            detail = f"{len(problems)} problem(s); the first: line {first.line}, {first.field}: {first.message}"
            return problem(
                422, "The declaration cannot be applied", detail, field=first.field, fix=first.fix, problems=problems
            )
        if dry_run:
            return JSONResponse({"valid": True})
        return JSONResponse(await runtime.command(lambda ctx: on_apply(declaration, ctx)))

    @routes.get("/v1/declarations/schema", **role("scientist"))
    async def schema() -> dict[str, Any]:
        return declared_schema()

    @routes.get("/v1/streams", **role("scientist"))
    async def list_streams() -> dict[str, Any]:
        found = await runtime.query(lambda c: RegistryStore(c).streams())
        return {"streams": {name: spec.written() for name, spec in found.items()}}

    @routes.get("/v1/models", **role("scientist"))
    async def list_models() -> dict[str, Any]:
        return {"models": await runtime.query(_models)}

    @routes.get("/v1/models/{model}", **role("scientist"))
    async def show_model(model: str) -> dict[str, Any]:
        return await _found(runtime, model, _model)

    @routes.get("/v1/models/{model}/versions", **role("scientist"))
    async def list_versions(model: str) -> dict[str, Any]:
        return await _found(runtime, model, _versions)

    @routes.get("/v1/models/{model}/champion", **role("client"))
    async def champion(model: str) -> dict[str, Any]:
        return await _found(runtime, model, _champion)

    @routes.get("/v1/models/{model}/approvals", **role("approver"))
    async def list_approvals(model: str) -> dict[str, Any]:
        return await _found(runtime, model, lambda s, m: {"approvals": [_plain(row) for row in s.approvals(m)]})

    @routes.post("/v1/models/{model}/approvals", **role("approver", 409))
    async def approve(model: str, body: ApprovalRequest) -> dict[str, Any]:
        command = Approval(model, body.nonce, body.package, body.approved, body.approver, body.comment)
        return await runtime.command(lambda ctx: on_approval(command, ctx))

    @routes.post("/v1/models/{model}/rollback", **role("approver", 409))
    async def rollback(model: str, body: RollbackRequest) -> dict[str, Any]:
        command = Rollback(model, body.epoch, body.reason)
        return await runtime.command(lambda ctx: on_rollback(command, ctx))

    return (routes,)


async def _found(runtime: Host[Any], model: str, ask: Any) -> dict[str, Any]:
    """The answer about a model that exists; Refused names the ones that do."""

    def question(connection: sa.Connection) -> dict[str, Any]:
        store = RegistryStore(connection)
        if not store.has_model(model):
            known = ", ".join(store.models()) or "none"
            raise Refused(
                404, "Unknown model", f"There is no model {model}.", field="model", fix=f"Declared models: {known}."
            )
        answer: dict[str, Any] = ask(store, model)
        return answer

    return await runtime.query(question)


def _plain(row: Any) -> dict[str, Any]:
    return {name: format_us(value) if name.endswith("_us") and value else value for name, value in asdict(row).items()}


def _models(connection: sa.Connection) -> list[dict[str, Any]]:
    store = RegistryStore(connection)
    return [_model(store, name) for name in store.models()]


def _model(store: RegistryStore, name: str) -> dict[str, Any]:
    row, champion = store.model(name), store.champion(name)
    assert row is not None, "asked for models that are there"
    return {
        "name": name,
        "spec": row.spec,
        "view_version": row.view_version,
        "event_time": format_us(row.event_us) if row.event_us else None,
        "champion": None
        if champion is None
        else {
            "version": champion.version,
            "epoch": champion.epoch,
            "run_id": store.version(name, champion.version).run_id,
        },
    }


def _versions(store: RegistryStore, model: str) -> dict[str, Any]:
    by_version: dict[int, list[dict[str, Any]]] = {}
    for gate in store.gates(model):
        by_version.setdefault(gate.version, []).append(_plain(gate))
    return {"versions": [_plain(row) | {"gates": by_version.get(row.version, [])} for row in store.versions(model)]}


def _champion(store: RegistryStore, model: str) -> dict[str, Any]:
    receipts: dict[int, list[dict[str, Any]]] = {}
    for receipt in store.receipts(model):
        receipts.setdefault(receipt.epoch, []).append(_plain(receipt))
    history = [_plain(row) | {"receipts": receipts.get(row.epoch, [])} for row in store.champions(model)]
    return {"champion": next((row for row in history if row["active"]), None), "history": history}
