"""A data folder of each format that this release reads, written by the release that began it, opens and goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from evenkeel.apps.cli.verify import verify_data_folder
from evenkeel.libs.process.ports import free_port, free_port_base
from evenkeel.libs.store.format import FORMAT
from tests.fixtures.data_folder import DAYS, packed, unpack
from tests.small_loop import MODEL, PER_DAY, SmallLoop, small_loop, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(FORMAT, tmp_path_factory.mktemp("former"))


@pytest.fixture(scope="module")
def loop(folder: Path) -> Iterator[SmallLoop]:
    yield from small_loop(folder, (free_port_base(), free_port()))


def test_this_format_has_its_folder() -> None:
    assert packed(FORMAT).exists(), "a new format needs its own: python -m tests.fixtures.data_folder"


def test_what_it_holds_is_there_and_goes_on(loop: SmallLoop) -> None:
    champion = until(loop.champion, "the champion of the former release to serve")
    assert (champion.epoch, champion.version) == (1, 1)
    states = {version.version: version.state for version in loop.client.registry.versions(MODEL).versions}
    assert states[1] == "champion"
    logged = loop.client.governance.checkpoint().leaves
    loop.fly([DAYS + 1])
    until(lambda: loop.client.governance.checkpoint().leaves > logged + PER_DAY, "a day's records to be logged")


def test_its_audit_log_verifies_with_what_came_since(folder: Path, loop: SmallLoop) -> None:
    loop.supervisor.stop()
    verified = verify_data_folder(folder)
    assert verified["ok"], verified
