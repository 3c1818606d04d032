"""Governance over HTTP, on a log without a broker: an id in a path may hold anything."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest

from evenkeel.libs.bus.kafka import KafkaBus
from evenkeel.libs.http.app import create_app
from evenkeel.libs.runtime.runtime import Runtime
from evenkeel.libs.settings import Settings
from evenkeel.services.governance.service import service
from evenkeel.services.governance.settings import GovernanceSettings
from tests.model_life import MODEL, Life
from tests.record_ids import RECORD_IDS
from tests.running import write_token
from tests.unit.governance.conftest import Governance

pytestmark = pytest.mark.anyio


async def test_an_id_of_any_text_is_found_by_its_path(tmp_path: Path) -> None:
    life = Life()
    life.declare()
    for event_id in RECORD_IDS:
        life.score(event_id, 2, 2, "2013-01-15T06:00:00Z", "2026-11-20T10:10:00Z")
    filled = Governance(tmp_path)
    filled.take(life.records)
    filled.close()

    runtime = Runtime(service, Settings(data_dir=tmp_path), GovernanceSettings(), KafkaBus("127.0.0.1:9", "governance"))
    headers = {"Authorization": f"Bearer {write_token(tmp_path, 'auditor')}"}
    transport = httpx2.ASGITransport(app=create_app(runtime))
    async with httpx2.AsyncClient(transport=transport, base_url="http://governance", headers=headers) as client:
        for event_id in RECORD_IDS:
            named = quote(event_id, safe="").replace(".", "%2E")  # a client drops the segments "." and ".."
            traced = (await client.get(f"/v1/trace/{named}")).json()
            assert (traced["id"], traced["kind"]) == (event_id, "event")
            lineage = (await client.get(f"/v1/lineage/predictions/{named}", params={"model": MODEL})).json()
            assert lineage["prediction"]["id"] == life.ids[f"{MODEL}-{event_id}"]
            absent = (await client.get(f"/v1/events/{named}")).json()
            assert absent["title"] == "Unavailable", (
                "this service has not caught up: what it does not find may still come"
            )
