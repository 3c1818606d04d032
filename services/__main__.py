"""Runs one service: `python -m evenkeel.services <name>`. The only composition root."""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import signal
import sys
import threading
from typing import Any, Final

import structlog
import uvicorn

from evenkeel.contracts.topics import SERVICES
from evenkeel.libs.bus.kafka import KafkaBus
from evenkeel.libs.errors import EvenkeelError, SettingsError, Stop
from evenkeel.libs.extras import require_extras
from evenkeel.libs.http.app import create_app
from evenkeel.libs.runtime import failpoints
from evenkeel.libs.runtime.runtime import Runtime
from evenkeel.libs.service import Service
from evenkeel.libs.settings import DEFAULT_PORTS, read_settings
from evenkeel.libs.store.format import claim_folder
from evenkeel.libs.telemetry.logs import configure_logging

log = structlog.get_logger("services")

STOP_SECONDS: Final = 10.0
STOP_SECONDS_WITHOUT_BROKER: Final = 15.0


def service_named(name: str) -> Service[Any]:
    """The declaration in `services/<name>/service.py`."""
    declared: Service[Any] = importlib.import_module(f"evenkeel.services.{name}.service").service
    return declared


def collect_seldom() -> None:
    """A batch makes thousands of objects that die with it: collecting as often as by default cost ingest a quarter of its
    CPU. What is there by now stays."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 10, 10)


async def run(name: str) -> None:
    service = service_named(name)
    settings, own = read_settings(name, service.settings)
    configure_logging(name, settings.log_level)
    claim_folder(settings.data_dir)
    failpoints.arm(settings.failpoints)
    bus = KafkaBus(settings.broker, f"evenkeel-{name}", f"evenkeel-{name}", service.fetch)
    runtime: Runtime[Any] = Runtime(service, settings, own, bus)
    collect_seldom()
    port = settings.port if settings.port is not None else DEFAULT_PORTS[name]
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(runtime),
            host=settings.host,
            port=port,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=3,
            server_header=False,
            proxy_headers=False,  # nobody here asks for a caller's address
        )
    )
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    loop = asyncio.get_running_loop()

    def stop() -> None:
        # A client call that never returns must not keep the process: guarantees.md, section 8, invariant 16.
        watchdog = threading.Timer(STOP_SECONDS_WITHOUT_BROKER - 1, os._exit, (1,))
        watchdog.daemon = True
        watchdog.start()
        runtime.stop()
        server.should_exit = True

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    serving = asyncio.create_task(server.serve())
    try:
        await runtime.run()
    finally:
        server.should_exit = True
        await serving


async def rebuild(name: str) -> None:
    """Make a service's store again, and tell how it goes in JSON lines: `evenkeel rebuild` shows them."""
    service = service_named(name)
    settings, own = read_settings(name, service.settings)
    configure_logging(name, "error")
    claim_folder(settings.data_dir)
    failpoints.arm(settings.failpoints)
    bus = KafkaBus(settings.broker, f"evenkeel-{name}", f"evenkeel-{name}", service.fetch)
    runtime: Runtime[Any] = Runtime(service, settings, own, bus)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, runtime.stop)
    note = await runtime.prepare_rebuild()
    _tell(service=name, aside=note.aside, forgotten=service.rebuild.forgotten if service.rebuild else "")
    running = asyncio.create_task(runtime.run())
    rebuilt = asyncio.create_task(runtime.rebuilt.wait())
    said = None
    while not (await asyncio.wait({running, rebuilt}, timeout=0.5, return_when=asyncio.FIRST_COMPLETED))[0]:
        if runtime.not_ready_reason != said:
            said = runtime.not_ready_reason
            _tell(doing=said)
    runtime.stop()
    await running
    rebuilt.cancel()
    if not runtime.rebuilt.is_set():
        raise Stop("not finished: run the same command again, it goes on from here")
    _tell(service=name, rebuilt=True, published=runtime.publisher.count)


def _tell(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def main() -> None:
    *verb, name = sys.argv[1:] or [""]
    if name not in SERVICES or verb not in ([], ["rebuild"]):
        sys.exit(f"usage: python -m evenkeel.services [rebuild] {{{'|'.join(SERVICES)}}}")
    import uvloop

    try:
        require_extras("the service", name)
        uvloop.run(rebuild(name) if verb else run(name))
    except SettingsError as error:
        sys.exit(f"{name}: {error}")
    except EvenkeelError as error:
        sys.exit(f"{name} {'was not rebuilt' if verb else 'stopped'}: {error}")


if __name__ == "__main__":
    main()
