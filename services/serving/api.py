"""What can be read: the Open Inference Protocol's health and metadata, and who answers here."""

from __future__ import annotations

from importlib.metadata import version as version_of

from evenkeel.contracts.envelope import format_us
from evenkeel.contracts.http import serving as http
from evenkeel.contracts.http.messages import ProtocolError
from evenkeel.libs.errors import Refused, Retry
from evenkeel.libs.routes import Other, Routes
from evenkeel.libs.service import Host
from evenkeel.services.serving.context import ServingContext
from evenkeel.services.serving.domain.champions import Champion
from evenkeel.services.serving.domain.tensors import metadata


def routes(runtime: Host[ServingContext]) -> Routes:
    ctx, found = runtime.context, Routes()

    @found.answer(http.SERVER)
    async def server() -> http.ServerMetadata:
        return http.ServerMetadata(name="evenkeel", version=version_of("evenkeel"), extensions=["binary_tensor_data"])

    @found.answer(http.SERVER_LIVE)
    async def live() -> http.ServerLive:
        return http.ServerLive(live=True)

    @found.answer(http.SERVER_READY)
    async def ready() -> http.ServerReady | Other:
        if runtime.not_ready_reason is None and ctx.settled.is_set():
            return http.ServerReady(ready=True)
        return Other(503, ProtocolError(error="not ready"))

    @found.answer(http.MODEL_METADATA)
    async def model_metadata(model: str) -> http.ModelMetadata:
        return _metadata(ctx, model, None)

    @found.answer(http.VERSION_METADATA)
    async def version_metadata(model: str, version: str) -> http.ModelMetadata:
        return _metadata(ctx, model, version)

    @found.answer(http.MODEL_READY)
    async def model_ready(model: str) -> http.ModelReady:
        return _ready(ctx, model, None)

    @found.answer(http.VERSION_READY)
    async def version_ready(model: str, version: str) -> http.ModelReady:
        return _ready(ctx, model, version)

    @found.answer(http.MODELS)
    async def models() -> http.ServedModels:
        names = sorted({name for name, _ in ctx.plans})
        return http.ServedModels(models=[_served(ctx, name) for name in names])

    return found


def _metadata(ctx: ServingContext, model: str, version: str | None) -> http.ModelMetadata:
    champion = _known(ctx, model, version)
    if champion is not None:
        return metadata(model, champion.version, champion.rows.names, champion.threshold is not None)
    latest = max((plan for (name, _), plan in ctx.plans.items() if name == model), key=lambda plan: plan.offset)
    return metadata(model, None, latest.features.names, True)


def _ready(ctx: ServingContext, model: str, version: str | None) -> http.ModelReady:
    if _known(ctx, model, version) is None:
        raise Refused(503, "Not ready", f"No version of {model} answers here yet.", fix="Wait for a promotion.")
    return http.ModelReady(name=model, ready=True)


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


def _served(ctx: ServingContext, model: str) -> http.ServedModel:
    fact, champion = ctx.facts.get(model), ctx.champion(model)
    return http.ServedModel(
        model=model,
        decided_epoch=None if fact is None else fact.epoch,
        champion=None if champion is None else _champion(champion),
    )


def _champion(champion: Champion) -> http.ServedChampion:
    return http.ServedChampion(
        version=champion.version,
        epoch=champion.epoch,
        package=champion.package,
        view_version=champion.view_version,
        threshold=champion.threshold,
        is_fallback=champion.is_fallback,
        activated=format_us(champion.loaded_us),
        load_seconds=champion.load_seconds,
    )
