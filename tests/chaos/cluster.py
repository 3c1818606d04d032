"""Three brokers on the loopback: the same jars as one KRaft cluster, everything on all three, two acknowledge a write."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

from aiokafka.admin import AIOKafkaAdminClient

from evenkeel.apps.broker.embedded import EmbeddedKafka, Member, new_cluster_id
from evenkeel.libs.process.ports import free_port_base


class Cluster:
    """Nodes are numbered from 1."""

    def __init__(self, folder: Path, nodes: int = 3) -> None:
        base, cluster_id = free_port_base(2 * nodes), new_cluster_id()
        controller_ports = {node: base + nodes + node for node in range(1, nodes + 1)}
        self.nodes = {
            node: EmbeddedKafka(folder / f"node-{node}", base + node, member=Member(cluster_id, node, controller_ports))
            for node in controller_ports
        }

    @property
    def address(self) -> str:
        """The bootstrap addresses of all."""
        return ",".join(kafka.address for kafka in self.nodes.values())

    def start(self, *nodes: int) -> None:
        """Start these nodes (all, if none is named) side by side: none answers before a majority runs."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(lambda node: self.nodes[node].start(), nodes or self.nodes))

    def kill(self, node: int) -> None:
        self.nodes[node].kill()

    def freeze(self, node: int) -> None:
        self._signal(node, signal.SIGSTOP)

    def thaw(self, node: int) -> None:
        self._signal(node, signal.SIGCONT)

    def _signal(self, node: int, number: signal.Signals) -> None:
        pid = self.nodes[node].pid
        assert pid is not None
        os.kill(pid, number)

    async def leader(self, topic: str, partition: int = 0) -> int:
        """The node that leads a partition now."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.address)
        await admin.start()
        try:
            (described,) = await admin.describe_topics([topic])
            return next(int(p["leader"]) for p in described["partitions"] if p["partition"] == partition)
        finally:
            await admin.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        for kafka in self.nodes.values():
            kafka.kill()  # a node that leaves in order waits for the others
