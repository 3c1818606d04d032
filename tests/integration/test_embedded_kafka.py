"""The embedded broker is a real one: it keeps what it acknowledged, and a mistake in starting it harms nothing."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from evenkeel.apps.broker.embedded import EmbeddedKafka, EmbeddedKafkaError
from evenkeel.libs.process.ports import free_port

TOPIC = "stream.v1"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(tmp_path_factory.mktemp("data folder, ü"), free_port()) as kafka:
        yield kafka


async def _create_topic(address: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=address)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(TOPIC, num_partitions=1, replication_factor=1)])
    finally:
        await admin.close()


async def _produce(address: str, values: list[bytes]) -> list[int]:
    producer = AIOKafkaProducer(bootstrap_servers=address, acks="all", enable_idempotence=True)
    await producer.start()
    try:
        return [(await producer.send_and_wait(TOPIC, value, timestamp_ms=1_357_000_000_000)).offset for value in values]
    finally:
        await producer.stop()


async def _read(address: str, count: int) -> list[tuple[bytes, int]]:
    """The first `count` values with their record timestamps in milliseconds."""
    consumer = AIOKafkaConsumer(bootstrap_servers=address, auto_offset_reset="none", enable_auto_commit=False)
    await consumer.start()
    try:
        partition = TopicPartition(TOPIC, 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        found: list[tuple[bytes, int]] = []
        while len(found) < count:
            batch = await consumer.getmany(partition, timeout_ms=1000)
            found += [(record.value, record.timestamp) for record in batch.get(partition, [])]
        return found
    finally:
        await consumer.stop()


def test_acknowledged_records_survive_kill_and_restart(broker: EmbeddedKafka) -> None:
    values = [f"record {n}".encode() for n in range(50)]
    asyncio.run(_create_topic(broker.address))
    assert asyncio.run(_produce(broker.address, values)) == list(range(50))
    first_pid = broker.pid
    assert first_pid is not None

    broker.kill()
    assert not broker.is_running
    broker.start()

    assert broker.pid not in {None, first_pid}
    assert [value for value, _ in asyncio.run(_read(broker.address, 50))] == values
    assert asyncio.run(_produce(broker.address, [b"after"])) == [50]


def test_record_timestamps_are_the_brokers(broker: EmbeddedKafka) -> None:
    # A producer that replays 2013 would otherwise lose its records to retention at once.
    records = asyncio.run(_read(broker.address, 51))
    assert min(timestamp for _, timestamp in records) > 1_700_000_000_000


def test_a_second_start_on_the_folder_is_refused_and_the_first_goes_on(broker: EmbeddedKafka) -> None:
    second = EmbeddedKafka(broker.data_dir, free_port())
    with pytest.raises(EmbeddedKafkaError, match=rf"in use \(process {broker.pid}, port {broker.port}\)"):
        second.start()
    assert not second.is_running
    assert broker.is_running
    assert asyncio.run(_produce(broker.address, [b"still here"])) == [51]


def test_a_port_in_use_is_named_with_its_setting_and_its_owner(broker: EmbeddedKafka, tmp_path: Path) -> None:
    with pytest.raises(EmbeddedKafkaError, match=rf"port {broker.port} .*java.*EVENKEEL_BROKER_PORT"):
        EmbeddedKafka(tmp_path, broker.port).start()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(EmbeddedKafkaError, match=f"port {port} .*process {os.getpid()}"):
            EmbeddedKafka(tmp_path, port).start()
    assert not (tmp_path / "kafka" / "cluster.id").exists()


def test_records_without_their_cluster_id_are_not_formatted_away(broker: EmbeddedKafka) -> None:
    identity = broker.folder / "cluster.id"
    name = identity.read_text()
    broker.stop()
    identity.unlink()
    try:
        with pytest.raises(EmbeddedKafkaError, match="restore that file"):
            broker.start()
    finally:
        identity.write_text(name)
    broker.start()
    assert asyncio.run(_produce(broker.address, [b"kept"])) == [52]


def test_the_broker_ends_with_its_owner(tmp_path: Path) -> None:
    port = free_port()
    command = [sys.executable, "-m", "evenkeel.apps.broker", "--data-dir", str(tmp_path), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        ready = next(line for line in owner.stdout if line.startswith("ready"))
        assert ready.startswith(f"ready 127.0.0.1:{port} pid ")
        owner.send_signal(signal.SIGKILL)
    with (tmp_path / "kafka" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # Java inherited it: the kernel grants it when Java is gone
    with EmbeddedKafka(tmp_path, port) as kafka:
        assert kafka.is_running


def test_a_jar_that_differs_from_the_lock_is_fetched_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    EmbeddedKafka(tmp_path).prepare()
    from jgo.config import GlobalSettings

    cached = GlobalSettings.load().cache_dir / "evenkeel"
    copy = tmp_path / "cache" / "evenkeel"
    monkeypatch.setenv("JGO_CACHE_DIR", str(copy.parent))
    for jar in cached.rglob("*.jar"):
        target = copy / jar.relative_to(cached)
        target.parent.mkdir(parents=True)
        os.link(jar, target) if jar.stat().st_dev == tmp_path.stat().st_dev else target.write_bytes(jar.read_bytes())
    tampered = next(copy.rglob("argparse4j-*.jar"))
    original = tampered.read_bytes()
    tampered.unlink()
    tampered.write_bytes(original[: len(original) // 2])
    messages: list[str] = []

    EmbeddedKafka(tmp_path, on_progress=messages.append).prepare()

    assert tampered.read_bytes() == original
    assert messages[0].startswith("Kafka: downloading 1 file")
