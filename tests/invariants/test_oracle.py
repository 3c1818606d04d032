"""The oracle finds nothing on a sound system, and what was planted on one with a bug.

A plant is a patch of a copy of the product whose services run from there, unless the test's name says that the evidence was
tampered with. Bugs that do not touch each other share a run: the run is asserted to show exactly the planted invariants.
The sound run comes last, because it stays up for what is done to it.
"""

from __future__ import annotations

import ast
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from evenkeel.apps.broker.embedded import EmbeddedKafka
from evenkeel.libs.bus.topics import create_map_topics
from evenkeel.libs.process.ports import free_port
from tests.invariants.oracle import Oracle, Violation
from tests.invariants.plants import CARELESS, DOUBLED, LOSSY, RECKLESS
from tests.invariants.shop import VISITS, Shop, declared, patched, until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
APPROVAL = ", risk: approval"


@dataclass
class Found:
    """What the oracle said of one run."""

    shop: Shop
    violations: list[Violation]
    acts: list[Violation] = field(default_factory=list)
    """Of promises that are about what somebody does."""

    @property
    def red(self) -> set[int]:
        return {violation.invariant for violation in self.violations}

    def says(self, invariant: int, *words: str) -> bool:
        """Whether a violation of this invariant has all these words."""
        found = [v.detail for v in (*self.violations, *self.acts) if v.invariant == invariant]
        return any(all(word in detail for word in words) for detail in found)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """One broker for all runs of this module; each begins with no topics."""
    with EmbeddedKafka(tmp_path_factory.mktemp("broker"), free_port()) as kafka:
        yield kafka.address


def emptied(broker: str) -> str:
    """The broker without topics and consumer groups."""
    admin = AdminClient({"bootstrap.servers": broker})
    topics = [name for name in admin.list_topics(timeout=30).topics if not name.startswith("__")]
    for deleted in admin.delete_topics(topics).values() if topics else ():
        deleted.result(60)
    groups = [group.group_id for group in admin.list_consumer_groups().result(60).valid]
    for gone in admin.delete_consumer_groups(groups).values() if groups else ():
        gone.result(60)
    until(lambda: all(name.startswith("__") for name in admin.list_topics(timeout=30).topics), "the topics to be gone")
    asyncio.run(create_map_topics(broker))
    return broker


def test_the_oracle_knows_nothing_of_the_product() -> None:
    for name in ("oracle", "reading", "naive_windows", "signed_log"):
        for node in ast.walk(ast.parse(Path(__file__).with_name(f"{name}.py").read_text())):
            imported = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert "evenkeel" not in {module.partition(".")[0] for module in imported}, name


# -- bugs in the product -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def careless(tmp_path_factory: pytest.TempPathFactory, broker: str) -> Found:
    """Six bugs on the way from a producer to the vectors and the log."""
    code = patched(tmp_path_factory.mktemp("careless") / "code", *CARELESS)
    services = ("registry", "ingest", "feature", "governance")
    shop = Shop(tmp_path_factory.mktemp("careless"), emptied(broker), services, code)
    with shop.supervisor:
        shop.declare(declared(("buys", "")))
        shop.days(0, 2, visits=24)
        shop.mischief()
        shop.finish(2)
        found = Found(shop, shop.oracle.violations())
        before = shop.oracle.state()
        with shop.http("ingest") as http:
            assert http.post("/v1/streams/visits/events", content=shop.half_good()).status_code == 422
        found.acts = [*shop.oracle.unchanged(before), *shop.oracle.stopped(shop.terminate())]
        return found


def test_a_record_that_governance_forgets_turns_3_red(careless: Found) -> None:
    assert careless.says(3, "ingest.event-accepted.v1", "5")


def test_a_window_that_is_a_tile_too_long_turns_11_red(careless: Found) -> None:
    assert careless.says(11, "a naive fold gives")


def test_a_vector_that_is_left_out_turns_12_red(careless: Found) -> None:
    assert careless.says(12, "feature: v1-7", "has no vector of buys")


def test_a_dead_letter_with_other_bytes_turns_13_red(careless: Found) -> None:
    assert careless.says(13, "feature.record-dead-lettered.v1/0/0", "ingest.event-accepted.v1")


def test_a_refused_call_that_is_half_taken_turns_18_red(careless: Found) -> None:
    assert careless.says(18, VISITS)


def test_another_exit_code_turns_16_red(careless: Found) -> None:
    assert careless.says(16, "ingest ended with 3")


def test_nothing_else_is_red_for_these_six(careless: Found) -> None:
    assert careless.red == {3, 11, 12, 13}
    assert {v.invariant for v in careless.acts} == {16, 18}


@pytest.fixture(scope="module")
def lossy(tmp_path_factory: pytest.TempPathFactory, broker: str) -> Found:
    """Ingest loses the first record of what it publishes together; governance stores leaves the other way round."""
    code = patched(tmp_path_factory.mktemp("lossy") / "code", *LOSSY)
    shop = Shop(tmp_path_factory.mktemp("lossy"), emptied(broker), ("registry", "ingest", "governance"), code)
    with shop.supervisor:
        shop.declare(declared(("buys", "")))
        shop.days(0, 2, visits=24)
        shop.finish(2)
        return Found(shop, shop.oracle.violations())


def test_a_lost_outbox_record_turns_1_2_and_12_red(lossy: Found) -> None:
    assert lossy.says(1, "was acknowledged and is not logged")
    assert lossy.says(2, "nobody has it")
    assert lossy.says(12, "ingest: the raw record", "has 0 outcomes")


def test_leaves_in_another_order_turn_4_red(lossy: Found) -> None:
    assert lossy.says(4, "does not give the root that was signed")


def test_nothing_else_is_red_for_lost_and_reordered_records(lossy: Found) -> None:
    # The leaves of one partition are out of order, too.
    assert lossy.red == {1, 2, 3, 4, 12}


@pytest.fixture(scope="module")
def doubled(tmp_path_factory: pytest.TempPathFactory, broker: str) -> Found:
    """Ingest writes everything twice, as after a crash, and does not keep its positions, so that it begins anew when it is
    killed; feature does not skip what it has applied."""
    code = patched(tmp_path_factory.mktemp("doubled") / "code", *DOUBLED)
    shop = Shop(tmp_path_factory.mktemp("doubled"), emptied(broker), ("registry", "ingest", "feature"), code)
    with shop.supervisor:
        shop.declare(declared(("buys", "")))
        shop.days(0, 2, visits=24)
        until(lambda: len(list(shop.oracle.topics.data("ingest.event-accepted.v1"))) == 3 * 24, "all visits to be read")
        assert shop.oracle.at_rest() == []
        shop.supervisor.kill("ingest")
        shop.finish(2)
        return Found(shop, shop.oracle.violations())


def test_without_the_guard_against_repeats_2_is_red(doubled: Found) -> None:
    assert doubled.says(2, "feature.vector-computed.v1")
    # The windows have it twice, too, and ingest's positions are the other test's.
    assert doubled.red == {2, 11, 12}


def test_without_the_positions_of_the_same_transaction_12_is_red(doubled: Found) -> None:
    assert doubled.says(12, "ingest: the raw record", "has 2 outcomes")


@pytest.fixture(scope="module")
def reckless(tmp_path_factory: pytest.TempPathFactory, broker: str) -> Found:
    """Six bugs between a trained package and the client that it answers."""
    code = patched(tmp_path_factory.mktemp("reckless") / "code", *RECKLESS)
    shop = Shop(tmp_path_factory.mktemp("reckless"), emptied(broker), code=code)
    with shop.supervisor:
        shop.declare(declared(("buys", "")))
        shop.days(0, 6)
        shop.until_epoch("buys", 3)
        shop.day(7)
        shop.finish(7)
        with shop.asking("buys"):
            shop.post("registry", "/v1/models/buys/rollback", {})
            shop.until_epoch("buys", 4)
        assert shop.oracle.at_rest() == []
        oracle = shop.oracle
        return Found(shop, oracle.violations(), oracle.requests_survive_swaps(shop.answers))


def test_an_epoch_that_is_skipped_turns_5_red(reckless: Found) -> None:
    assert reckless.says(5, "the epochs are [1, 3, 4]")


def test_a_promotion_in_spite_of_a_gate_turns_6_red(reckless: Found) -> None:
    assert reckless.says(6, "epoch 3", "better_than_champion had not passed")


def test_a_prediction_by_another_version_turns_7_red(reckless: Found) -> None:
    assert reckless.says(7, "is by version 2 in epoch 3")


def test_an_altered_package_that_is_loaded_turns_8_red(reckless: Found) -> None:
    assert reckless.says(8, "profile.json", "is not the file that was registered")


def test_a_request_that_fails_in_a_swap_turns_9_red(reckless: Found) -> None:
    assert {v.invariant for v in reckless.acts} == {9}
    assert reckless.says(9, "got 503")


def test_a_job_that_is_announced_twice_turns_10_red(reckless: Found) -> None:
    assert reckless.says(10, "ended 2 times")


def test_nothing_else_is_red_for_these(reckless: Found) -> None:
    # The gates of the run were decided twice, which follows from the second announcement.
    expected = {2, 5, 6, 7, 8, 10}
    assert reckless.red == expected, [v for v in reckless.violations if v.invariant not in expected]


# -- a sound system ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, broker: str) -> Iterator[Found]:
    """Two weeks through all seven services: a first model, another after the world turned round, an approval, a
    rollback, bad and repeated records, and a client that asks all the while. It runs on until the module ends."""
    shop = Shop(tmp_path_factory.mktemp("sound"), emptied(broker))
    with shop.supervisor:
        shop.declare(declared(("buys", ""), ("approved", APPROVAL)))
        shop.days(0, 6)
        shop.mischief()
        shop.until_epoch("buys", 1)
        approvals = "/v1/models/approved/approvals"
        asked = until(lambda: shop.get("registry", approvals)["approvals"], "the request for an approval")[0]
        answer = {"nonce": asked["nonce"], "package": asked["package"], "approved": True, "approver": "somebody"}
        shop.post("registry", approvals, answer)
        with shop.asking("buys"):
            shop.days(7, 12)
            shop.until_epoch("buys", 2)
            epoch = shop.champion("buys")["epoch"]
            assert shop.post("registry", "/v1/models/buys/rollback", {"epoch": epoch})["changed"]
            shop.until_epoch("buys", epoch + 1)
        shop.finish(12)
        yield Found(shop, shop.oracle.violations())


def test_a_sound_system_shows_nothing(sound: Found) -> None:
    assert sound.violations == []


def test_the_sound_run_had_what_the_invariants_are_about(sound: Found) -> None:
    topics = sound.shop.oracle.topics
    changes = [(d["model"], d["cause"]) for d in topics.data("registry.champion-changed.v1")]
    assert changes.count(("buys", "promotion")) >= 2
    assert ("buys", "rollback") in changes
    assert ("approved", "approval") in changes
    rules = {data["rule"] for data in topics.data("ingest.event-rejected.v1")}
    assert {"json", "id_conflict"} <= rules
    assert {data["service"] for data in topics.data("feature.record-dead-lettered.v1")} == {"feature"}
    assert any(topics.data("monitor.drift-detected.v1")) or any(topics.data("monitor.performance-degraded.v1"))
    assert len({data["package"] for data in topics.data("serving.prediction-made.v1")}) >= 2
    assert len(sound.shop.answers) > 10
    assert set(sound.shop.oracle.naive()) == {"buys", "approved"}


def test_clients_were_answered_through_the_swaps(sound: Found) -> None:
    oracle = sound.shop.oracle
    assert oracle.requests_survive_swaps(sound.shop.answers) == []
    failed = replace(sound.shop.answers[0], status=503, body={"title": "Unavailable"})
    assert [v.invariant for v in oracle.requests_survive_swaps([failed])] == [9]


def test_refused_calls_change_nothing(sound: Found) -> None:
    oracle, shop = sound.shop.oracle, sound.shop
    before = oracle.state()
    with shop.http("registry") as http:
        assert http.post("/v1/declarations", content="streams: [").status_code == 422
        assert http.post("/v1/models/buys/rollback", json={"epoch": -1}).status_code == 422
        assert http.post("/v1/models/nobody/rollback", json={}).status_code == 404
        assert http.get("/v1/models", headers={"Authorization": "Bearer nobody"}).status_code == 401
    with shop.http("ingest") as http:
        assert http.post("/v1/streams/visits/events", content=shop.half_good()).status_code == 422
    with shop.http("serving") as http:
        assert http.post("/v1/models/buys/predict", json={"features": ["x"]}).status_code == 422
    assert oracle.unchanged(before) == []


def test_a_frozen_service_turns_14_red(sound: Found) -> None:
    oracle, pid = sound.shop.oracle, sound.shop.supervisor.pids["monitor"]
    os.kill(pid, signal.SIGSTOP)
    try:
        found = oracle.at_rest(within_seconds=0)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert [v.invariant for v in found] == [14]
    assert "monitor" in found[0].detail
    assert oracle.at_rest() == []


def test_a_leak_turns_15_red(tmp_path: Path) -> None:
    """A process that keeps what it is given, beside one that does not; both are asked to take in 4 MiB forty times."""
    oracle = Oracle("", tmp_path)
    program = """
import sys
kept = []
for line in sys.stdin:
    kept.append(b"x" * (4 << 20)){}
    print(len(kept), flush=True)
"""
    for tail, red in (("; kept.clear()", []), ("", [15])):
        command = [sys.executable, "-c", program.format(tail)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None and process.stdout is not None
            points = []
            for second in range(40):
                process.stdin.write("\n")
                process.stdin.flush()
                process.stdout.readline()
                points.append((float(second), oracle.measure({"it": process.pid})["it resident bytes"]))
            process.stdin.close()
        assert [v.invariant for v in oracle.flat("its memory", points, may_grow=16 << 20)] == red


# -- evidence that was tampered with -------------------------------------------------------------------------------------


@dataclass
class Evidence:
    """What a run has left, and the invariants that are red once it is changed."""

    broker: str
    folder: Path

    def red(self) -> set[int]:
        return {violation.invariant for violation in Oracle(self.broker, self.folder).violations()}

    def write_again(self, topic: str, headers: dict[str, bytes] | None = None, **changes: Any) -> None:
        """The last event of a topic once more, with other headers or data if so said."""
        oracle = Oracle(self.broker, self.folder)
        record = oracle.topics.once(topic)[-1].record
        value = json.dumps(json.loads(record.value or b"") | changes).encode() if changes else record.value
        written: list[tuple[str, str | bytes | None]] = [*(dict(record.headers) | (headers or {})).items()]
        producer = Producer({"bootstrap.servers": self.broker, "log_level": 0})
        producer.produce(topic, value, key=record.key, partition=record.partition, headers=written)
        assert producer.flush(60) == 0


@pytest.fixture
def evidence(sound: Found, tmp_path: Path) -> Evidence:
    """The topics of the sound run, and a copy of its files; the log's checks from files alone."""
    folder = tmp_path / "copy"
    shutil.copytree(sound.shop.supervisor.data_dir, folder, ignore=shutil.ignore_patterns("logs", "*.lmdb"))
    return Evidence(sound.shop.supervisor.broker, folder)


def test_tampered_one_byte_of_a_served_package_turns_8_red(evidence: Evidence) -> None:
    for path in evidence.folder.glob("artifacts/sha256/*/model.onnx"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    assert evidence.red() == {8}


def test_tampered_a_digit_of_an_anchored_checkpoint_turns_4_red(evidence: Evidence) -> None:
    path = next(evidence.folder.glob("checkpoints/*.txt"))
    origin, size, rest = path.read_text().split("\n", 2)
    path.write_text(f"{origin}\n{int(size) + 1}\n{rest}")
    assert evidence.red() == {4}


def test_tampered_a_record_that_is_there_twice_is_a_repeat_and_no_violation(evidence: Evidence) -> None:
    evidence.write_again("serving.version-activated.v1")
    assert evidence.red() == set()


def test_tampered_two_champions_in_one_epoch_turn_5_red(evidence: Evidence) -> None:
    evidence.write_again(
        "registry.champion-changed.v1",
        {"ce_id": b"forged", "ce_shard": b"forged", "ce_sequence": b"1"},
        reason="forged",
    )
    # Nobody forged a way back for it, so its evidence is missing, too.
    assert evidence.red() == {5, 6}
