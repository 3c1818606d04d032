"""Puts champions to work: verifies, loads and checks a package away from the event loop, swaps one reference, tells it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal

import structlog
from opentelemetry.trace import SpanKind

from evenkeel.contracts.ids import random_id
from evenkeel.contracts.serving import ReplicaSeen
from evenkeel.libs.errors import EvenkeelError, Retry, Stop
from evenkeel.libs.features import FeaturePlan
from evenkeel.libs.features.plan import CategoryColumn
from evenkeel.libs.features.scalars import category_reader
from evenkeel.libs.keys import verification_keys
from evenkeel.libs.packages.errors import PackageError
from evenkeel.libs.runtime.failpoints import failpoint
from evenkeel.libs.service import Host, Reply
from evenkeel.libs.settings import DEFAULT_PORTS
from evenkeel.libs.telemetry.tracing import Tracing
from evenkeel.services.serving.commands import (
    AnnounceReplica,
    ReportActivation,
    on_announce_replica,
    on_report_activation,
)
from evenkeel.services.serving.context import ServingContext
from evenkeel.services.serving.domain.champions import Champion, ChampionDecision, Outcome, Predict, Succession, Target
from evenkeel.services.serving.domain.requests import EventReader, RowReader
from evenkeel.services.serving.handlers import replica_name

log = structlog.get_logger(__name__)

GOODBYE_SECONDS: Final = 2.0


class ViewVersionMismatch(Exception):
    """The package computes on other features than the fact or the declaration says."""


class DiskAway(Exception):
    """The artifacts or keys cannot be read now, which says nothing about the package."""


async def keep_champions(runtime: Host[ServingContext]) -> None:
    """Bring every model to its latest epoch, and again whenever a fact or a declaration comes."""
    activator = Activator(runtime)
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(activator.activate_for_ever())
            tasks.create_task(activator.tell_for_ever())
    finally:
        with contextlib.suppress(EvenkeelError, TimeoutError, asyncio.CancelledError):
            await asyncio.wait_for(runtime.command(activator.seen("stopping"), "replica"), GOODBYE_SECONDS)


class Activator:
    """Runs in the event loop; only here is `successions` written."""

    def __init__(self, runtime: Host[ServingContext]) -> None:
        self._runtime, self._ctx = runtime, runtime.context
        settings, own = runtime.settings, runtime.own
        port = settings.port if settings.port is not None else DEFAULT_PORTS["serving"]
        self._replica = replica_name(settings, own)
        self._url = own.url or f"http://{settings.host}:{port}"
        self._retry_seconds = own.retry_seconds
        self._artifacts, self._keys = settings.data_dir / "artifacts", settings.keys
        self._changed = asyncio.Event()
        self._to_tell: asyncio.Queue[Callable[[ServingContext], Reply[Any]]] = asyncio.Queue()
        self._told: dict[str, tuple[int, Outcome]] = {}

    async def activate_for_ever(self) -> None:
        loop = asyncio.get_running_loop()
        self._ctx.on_change = lambda: _wake(loop, self._changed)
        is_first = True
        while not self._runtime.stopping:
            self._changed.clear()
            has_failed = False
            for fact in list(self._ctx.facts.values()):
                has_failed |= not await self._activate(fact)
            self._ctx.settled.set()
            if is_first:
                self._to_tell.put_nowait(self.seen("ready"))
                is_first = False
            if self._runtime.stopping:  # the task group passes a cancellation on only once, and it may be lost
                break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), self._retry_seconds if has_failed else None)

    async def tell_for_ever(self) -> None:
        """Publishing waits for the broker; the next swap must not.

        The loops ask for `stopping`, because asyncio.wait_for, deep in a call, may lose a cancellation (bpo-37658).
        """
        while not self._runtime.stopping:
            handler = await self._to_tell.get()
            while not self._runtime.stopping:
                try:
                    await self._runtime.command(handler, "replica")
                    break
                except Retry as error:
                    log.warning("receipt waits", error=str(error))
                    await asyncio.sleep(1.0)

    def seen(self, state: Literal["ready", "stopping"]) -> Callable[[ServingContext], Reply[None]]:
        """This replica is there, or leaves."""
        epochs = {
            model: succession.active.epoch
            for model, succession in self._ctx.successions.items()
            if succession.active is not None
        }
        seen = ReplicaSeen(replica=self._replica, url=self._url, state=state, epochs=epochs)
        return partial(on_announce_replica, AnnounceReplica(seen, random_id()))

    async def _activate(self, fact: ChampionDecision) -> bool:
        """One attempt; False if it is to be tried again. Whatever happens, the champion that answers goes on."""
        succession = self._ctx.successions.get(fact.model, Succession())
        if not succession.wants(fact):
            return True
        started = time.perf_counter()
        about = {"evenkeel.model": fact.model, "evenkeel.epoch": fact.epoch, "evenkeel.replica": self._replica}
        span = self._runtime.tracing.start("activate", fact.traceparent, SpanKind.INTERNAL, **about)
        try:
            outcome, detail = await self._swap(fact, fact.target, started)
            if outcome != "activated":
                log.error("champion failed", model=fact.model, epoch=fact.epoch, reason=outcome, detail=detail)
                self._ctx.metrics.failures.labels(fact.model, outcome).inc()
                detail += await self._fall_back(fact, succession, started)
        except DiskAway as error:
            log.warning("package cannot be read now", model=fact.model, epoch=fact.epoch, error=str(error))
            return False
        finally:
            span.end()
        if self._told.get(fact.model) != (fact.epoch, outcome):
            self._told[fact.model] = (fact.epoch, outcome)
            seconds, trace = (
                time.perf_counter() - started,
                Tracing.inject(span) if self._runtime.tracing.enabled else None,
            )
            report = ReportActivation(fact, outcome, detail, seconds, self._replica, trace)
            self._to_tell.put_nowait(partial(on_report_activation, report))
        return outcome == "activated"

    async def _fall_back(self, fact: ChampionDecision, succession: Succession, started: float) -> str:
        target = succession.fallback(fact)
        if target is None:
            return ""
        outcome, why = await self._swap(fact, target, started)
        if outcome == "activated":
            return f"; its rollback target, version {target.version}, answers instead"
        return f"; its rollback target failed too: {why}"

    async def _swap(self, fact: ChampionDecision, target: Target, started: float) -> tuple[Outcome, str]:
        """Load one version and put it to work. Raises DiskAway."""
        succession = self._ctx.successions.get(fact.model, Succession())
        try:
            champion = await asyncio.to_thread(self._load, fact, target, succession, started)
        except ViewVersionMismatch as error:
            return "view_version", str(error)
        except PackageError as error:
            return error.reason, str(error)
        failpoint("swap.verified")
        self._ctx.successions = self._ctx.successions | {fact.model: succession.succeeded_by(champion)}
        failpoint("swap.done")
        self._ctx.metrics.swaps.labels(fact.model).inc()
        log.info("champion", model=fact.model, version=target.version, epoch=fact.epoch, fallback=champion.is_fallback)
        return "activated", ""

    def _load(self, fact: ChampionDecision, target: Target, succession: Succession, started: float) -> Champion:
        """In a thread: verify digest and signature, load those very bytes, check the golden rows. Raises what is wrong."""
        plan = self._ctx.plans.get((fact.model, fact.view_version))
        if plan is None:
            raise ViewVersionMismatch(
                f"no declaration of {fact.model} that can be computed here has view version {fact.view_version}"
            )
        warm = succession.warm(target.package)
        if warm is not None and warm.view_version == fact.view_version:
            predict, threshold = warm.predict, warm.threshold
        else:
            predict, threshold = self._verified(fact, target, plan.features)
        return Champion(
            model=fact.model,
            stream=plan.stream,
            version=target.version,
            epoch=fact.epoch,
            package=target.package,
            view_version=fact.view_version,
            threshold=threshold if target.threshold is None else target.threshold,
            is_fallback=target is not fact.target,
            predict=predict,
            rows=_row_reader(plan.features),
            events=EventReader(plan.stream, plan.spec, plan.features.request_fields),
            loaded_us=self._runtime.clock.now_us(),
            load_seconds=time.perf_counter() - started,
            observe_seconds=self._ctx.metrics.latency.labels(fact.model).observe,
        )

    def _verified(self, fact: ChampionDecision, target: Target, plan: FeaturePlan) -> tuple[Predict, float | None]:
        # Imported here, in the thread that loads: onnxruntime alone takes a third of a second, and a start need not.
        from evenkeel.libs.packages.package import read_package
        from evenkeel.libs.packages.scorer import Scorer

        try:
            package = read_package(self._artifacts, target.package, verification_keys(self._keys))
        except (OSError, Stop) as error:
            raise DiskAway(str(error)) from error
        manifest = package.manifest
        if manifest.model != fact.model:
            raise ViewVersionMismatch(f"{target.package} is a package of {manifest.model}, not of {fact.model}")
        if manifest.features.view_version != fact.view_version or manifest.features.names != plan.names:
            raise ViewVersionMismatch(
                f"{target.package} was trained on view version {manifest.features.view_version} with "
                f"{len(manifest.features.names)} features; the champion is declared on {fact.view_version} with {len(plan.names)}"
            )
        scorer = Scorer(package)
        scorer.check_golden()
        return scorer.predict, scorer.threshold


def _row_reader(plan: FeaturePlan) -> RowReader:
    columns = [column for column in plan.columns if isinstance(column, CategoryColumn)]
    return RowReader(plan.names, {c.name: category_reader(c.values, c.buckets) for c in columns})


def _wake(loop: asyncio.AbstractEventLoop, changed: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(changed.set)
