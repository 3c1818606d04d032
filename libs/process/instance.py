"""The name of this process among those that share a store, and whether another one is known to have ended."""

from __future__ import annotations

import os
import socket


def instance_name() -> str:
    """This process, among all that may hold a lease on the same store: `<host>-<process id>`."""
    return f"{socket.gethostname()}-{os.getpid()}"


def is_gone(instance: str) -> bool:
    """Whether an instance is known to have ended; False for one on another host, which only time can tell.

    Only saves the wait for a lease to run out: if it is wrong, the epoch of the lease fences whoever was taken for dead.
    """
    host, _, process = instance.rpartition("-")
    if host != socket.gethostname() or not process.isdecimal():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False
