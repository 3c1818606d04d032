"""Runs jobs in processes of their own, one at a time, and keeps their leases."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog
from opentelemetry.trace import SpanKind
from pydantic import ValidationError

from evenkeel.libs.errors import Retry
from evenkeel.libs.service import Host
from evenkeel.services.trainer.commands import (
    FinishJob,
    KeepJob,
    StartedJob,
    TakeJob,
    on_finish_job,
    on_keep_job,
    on_take_job,
)
from evenkeel.services.trainer.domain.job import JobResult
from evenkeel.services.trainer.settings import TrainerSettings
from evenkeel.services.trainer.store import TrainerStore

log = structlog.get_logger(__name__)
LOOK_SECONDS: Final = 0.1
HEARTBEAT_SECONDS: Final = 5.0


async def run_jobs(runtime: Host[Any]) -> None:
    """Take jobs as long as the service lives. A running job dies with it, and is tried again by the next owner."""
    own: TrainerSettings = runtime.own
    standby: Process | None = None
    # A name of this run of the service: what an earlier one left as "running" under another name is taken over.
    owner = f"{runtime.instance}-{time.time_ns()}"
    try:
        while not runtime.stopping:
            if own.standby and standby is None and await runtime.query(lambda c: bool(TrainerStore(c).models())):
                standby = await _spawn("--standby")
            started = await _next(runtime, owner)
            if started is None:
                await asyncio.sleep(LOOK_SECONDS)
                continue
            process = standby if standby is not None and standby.returncode is None else await _spawn("--standby")
            standby = None
            await _carry_out(started, process, runtime)
    finally:
        if standby is not None:
            await _end(standby)


async def _next(runtime: Host[Any], owner: str) -> StartedJob | None:
    now_us = runtime.clock.now_us()
    with contextlib.suppress(Retry):
        if await runtime.query(lambda c: TrainerStore(c).next_job(owner, now_us)) is not None:
            return await runtime.command(partial(on_take_job, TakeJob(owner)), "job")
    return None


async def _spawn(*arguments: str) -> Process:
    """A training process; it lives no longer than this one, because its input ends with it."""
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        environment.pop(variable, None)
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "evenkeel.services.trainer.training_process", *arguments, stdin=PIPE, env=environment
    )


async def _carry_out(started: StartedJob, process: Process, runtime: Host[Any]) -> None:
    own: TrainerSettings = runtime.own
    began = time.monotonic()
    span = runtime.tracing.start("train", started.traceparent, SpanKind.INTERNAL, **{"evenkeel.run_id": started.run_id})
    with tempfile.TemporaryDirectory(prefix="evenkeel-job-") as folder:
        request, answer = Path(folder) / "request.json", Path(folder) / "result.json"
        request.write_text(started.request.model_dump_json())
        try:
            fault = await _wait(process, [str(request), str(answer)], started, runtime, own.timeout_seconds)
            result = _read(answer)
        finally:
            await _end(process)
            span.end()
    if result is None and not fault:
        fault = f"its process ended with status {process.returncode}"
    seconds = round(time.monotonic() - began, 3)
    log.info("job ended", run_id=started.run_id, attempt=started.attempt, seconds=seconds, fault=fault or None)
    finished = FinishJob(started, result, fault, seconds)
    while not runtime.stopping:
        try:
            await runtime.command(partial(on_finish_job, finished), "job")
            return
        except Retry:
            await asyncio.sleep(LOOK_SECONDS)


async def _wait(process: Process, paths: list[str], started: StartedJob, runtime: Host[Any], limit: float) -> str:
    """Until the process ends; why it was ended if it was."""
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps(paths).encode() + b"\n")
        await process.stdin.drain()
    except (BrokenPipeError, ConnectionResetError):
        return "its process ended before it was given the job"
    deadline = time.monotonic() + limit
    while process.returncode is None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), HEARTBEAT_SECONDS)
            break
        if time.monotonic() > deadline:
            return f"it ran into the time limit of {limit:.0f} s"
        with contextlib.suppress(Retry):
            if not await runtime.command(partial(on_keep_job, KeepJob(started.run_id, started.attempt)), "job"):
                return "another instance took it over"
    return ""


def _read(path: Path) -> JobResult | None:
    try:
        return JobResult.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


async def _end(process: Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
