"""The faults: what a machine, a network or an operator may do to one process at any moment."""

from __future__ import annotations

import os
import random
import resource
import signal
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from evenkeel.apps.cli.supervisor import BROKER, Supervisor
from evenkeel.contracts.topics import SERVICES

LEASE_SECONDS: Final = 6.0
SESSION_SECONDS: Final = 10.0
SQL_SERVICES: Final = tuple(name for name in SERVICES if name != "serving")
FULL_AT_BYTES: Final = 4_096


@dataclass(frozen=True)
class Fault:
    """One fault, decided before it happens: what, to whom, for how long, and when after the load began to flow."""

    kind: str
    target: str
    seconds: float
    after_seconds: float


def planned(dice: random.Random) -> Fault:
    """The next fault. Every second one is a kill; the slow one, a freeze, is rarer."""
    kind = dice.choices(("kill", "freeze", "restart", "lock", "disk full", "noise"), (50, 8, 12, 12, 10, 8))[0]
    if kind == "kill":
        target = dice.choice((BROKER, *SERVICES, *SERVICES))
    elif kind == "freeze":
        target = dice.choice((BROKER, *SERVICES))
    elif kind == "lock":
        target = dice.choice(SQL_SERVICES)
    elif kind == "noise":
        target = "producers"
    else:
        target = dice.choice(SERVICES)
    if kind == "freeze":  # past the lease, and past the one session that matters to a consumer group
        seconds = SESSION_SECONDS + 1.5 if target == "serving" else LEASE_SECONDS + 1.0
    elif kind in ("lock", "disk full", "noise"):
        seconds = dice.uniform(0.5, 3.0)
    else:
        seconds = 0.0
    return Fault(kind, target, seconds, dice.uniform(0.1, 0.8))


class Faults:
    """Does faults to the processes of one system. Each method returns once the fault is over."""

    def __init__(self, system: Supervisor) -> None:
        self._system = system

    def do(self, fault: Fault) -> None:
        how: dict[str, Callable[[str, float], None]] = {
            "kill": lambda target, _: self._system.kill(target),
            "freeze": self._freeze,
            "restart": lambda target, _: self._signal(target, signal.SIGTERM),
            "lock": self._lock,
            "disk full": self._fill_disk,
            "noise": lambda _, seconds: time.sleep(seconds),
        }
        how[fault.kind](fault.target, fault.seconds)

    def _pid(self, target: str) -> int | None:
        return self._system.pids.get(target)

    def _signal(self, target: str, number: signal.Signals) -> None:
        pid = self._pid(target)
        if pid is not None:
            os.kill(pid, number)

    def _freeze(self, target: str, seconds: float) -> None:
        self._signal(target, signal.SIGSTOP)
        time.sleep(seconds)
        self._signal(target, signal.SIGCONT)

    def _lock(self, target: str, seconds: float) -> None:
        """Somebody else's transaction holds the database."""
        path = self._system.data_dir / f"{target}.db"
        connection = sqlite3.connect(path, timeout=10, isolation_level=None)
        try:
            connection.execute("BEGIN EXCLUSIVE")
            time.sleep(seconds)
            connection.execute("ROLLBACK")
        finally:
            connection.close()

    def _fill_disk(self, target: str, seconds: float) -> None:
        """No file of the process can grow any more: the system call fails as on a full disk, for this process alone.

        A small tmpfs would need the right to mount; this limit (RLIMIT_FSIZE, set from outside) needs none.
        """
        pid = self._pid(target)
        if pid is None:
            return
        no_limit = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        try:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (FULL_AT_BYTES, resource.RLIM_INFINITY))
            time.sleep(seconds)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, no_limit)
        except ProcessLookupError:
            pass  # it ended of it, and is started anew without the limit
