"""What can be read: the Open Inference Protocol's health and metadata, and who answers here."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version as version_of
from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from evenkeel.contracts.envelope import format_us
from evenkeel.libs.errors import Refused, Retry
from evenkeel.libs.http.roles import role
from evenkeel.libs.http.routing import router
from evenkeel.libs.service import Host
from evenkeel.services.serving.context import ServingContext
from evenkeel.services.serving.domain.champions import Champion
from evenkeel.services.serving.domain.tensors import metadata


def routers(runtime: Host[ServingContext]) -> Sequence[APIRouter]:
    ctx = runtime.context
    protocol, own = router("/v2"), router("/v1")

    @protocol.get("", **role("client"))
    async def server() -> dict[str, Any]:
        return {"name": "evenkeel", "version": version_of("evenkeel"), "extensions": ["binary_tensor_data"]}

    @protocol.get("/health/live", **role("public"))
    async def live() -> dict[str, bool]:
        return {"live": True}

    @protocol.get("/health/ready", **role("public"))
    async def ready() -> JSONResponse:
        is_ready = runtime.not_ready_reason is None and ctx.settled.is_set()
        return JSONResponse({"ready": is_ready} if is_ready else {"error": "not ready"}, 200 if is_ready else 503)

    @protocol.get("/models/{model}", **role("client"))
    @protocol.get("/models/{model}/versions/{version}", **role("client"))
    async def model(model: str, version: str | None = None) -> dict[str, Any]:
        """The schema that the model's champion takes; of a declared model without one, the declared schema."""
        champion = _known(ctx, model, version)
        if champion is not None:
            return metadata(model, champion.version, champion.rows.names, champion.threshold is not None)
        latest = max((plan for (name, _), plan in ctx.plans.items() if name == model), key=lambda plan: plan.offset)
        return metadata(model, None, latest.features.names, True)

    @protocol.get("/models/{model}/ready", **role("client"))
    @protocol.get("/models/{model}/versions/{version}/ready", **role("client"))
    async def model_ready(model: str, version: str | None = None) -> dict[str, Any]:
        if _known(ctx, model, version) is None:
            raise Refused(503, "Not ready", f"No version of {model} answers here yet.", fix="Wait for a promotion.")
        return {"name": model, "ready": True}

    @own.get("/models", **role("client"))
    async def models() -> dict[str, Any]:
        """Every declared model: who answers here since when, and the latest epoch that was decided."""
        names = sorted({name for name, _ in ctx.plans})
        return {"models": [_described(ctx, name) for name in names]}

    return [protocol, own]


def _known(ctx: ServingContext, model: str, version: str | None) -> Champion | None:
    declared = sorted({name for name, _ in ctx.plans})
    if model not in declared:
        known = ", ".join(declared[:20]) or "none"
        raise Refused(
            404, "Unknown model", f"There is no model {model[:128]!r}.", field="model", fix=f"Known: {known}."
        )
    champion = ctx.champion(model)
    if version is not None and champion is None and not ctx.settled.is_set():
        raise Retry("champions are still being loaded")
    if version is not None and (champion is None or version != str(champion.version)):
        detail = f"Version {version[:128]!r} of {model} does not answer here."
        raise Refused(404, "Unknown version", detail, field="version", fix="Leave the version out.")
    return champion


def _described(ctx: ServingContext, model: str) -> dict[str, Any]:
    fact, champion = ctx.facts.get(model), ctx.champion(model)
    described: dict[str, Any] = {
        "model": model,
        "decided_epoch": None if fact is None else fact.epoch,
        "champion": None,
    }
    if champion is not None:
        described["champion"] = {
            "version": champion.version,
            "epoch": champion.epoch,
            "package": champion.package,
            "view_version": champion.view_version,
            "threshold": champion.threshold,
            "is_fallback": champion.is_fallback,
            "activated": format_us(champion.loaded_us),
            "load_seconds": champion.load_seconds,
        }
    return described
