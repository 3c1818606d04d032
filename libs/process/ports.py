"""TCP ports on the loopback address that nobody uses, and that nobody else is given meanwhile."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import tempfile
import threading
from pathlib import Path

LOOPBACK = "127.0.0.1"
_LOWEST_PORT, _EPHEMERAL_PORTS = 10_240, 32_768


def free_port() -> int:
    """A TCP port on the loopback address that nobody uses at this moment."""
    return free_port_base(1) + 1


def free_port_base(count: int = 7) -> int:
    """A port after which nobody uses the next `count` ones, as `EVENKEEL_PORT_BASE` needs.

    They lie below the ports that systems give to outgoing connections, so that none of those takes one meanwhile, and
    nobody else who asks here is given one of them while this process lives. Raises OSError if there are none left.
    """
    bases = range(_LOWEST_PORT - 1, _EPHEMERAL_PORTS - count)
    first = secrets.randbelow(len(bases))
    with _given_out.lock:
        for number in range(len(bases)):
            base = bases[(first + number) % len(bases)]
            wanted = range(base + 1, base + 1 + count)
            if all(port_is_free(port) for port in wanted) and _given_out.take(wanted):
                return base
    raise OSError(f"no {count} ports in a row are free between {_LOWEST_PORT} and {_EPHEMERAL_PORTS}")


class _GivenOut:
    """Ports that processes of this user were given: between that and listening, a port looks free to anybody.

    Each is a locked byte of one file. The system forgets the locks of a process that ends, however it ends.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._owner, self._ports, self._file = 0, set[int](), -1

    def take(self, ports: range) -> bool:
        """Whether all of them are this process's now, and were nobody's."""
        if self._owner != os.getpid():  # a fork has the set, but not the locks
            path = Path(tempfile.gettempdir(), f"evenkeel-ports-{os.getuid()}")
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            self._owner, self._ports = os.getpid(), set()
        if not self._ports.isdisjoint(ports):
            return False
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, len(ports), ports.start)
        except (BlockingIOError, PermissionError):
            return False
        self._ports.update(ports)
        return True


_given_out = _GivenOut()


def port_is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # servers set it too: TIME_WAIT is not in use
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
