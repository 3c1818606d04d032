"""Child processes that end with their owner, folders owned by one process at a time, and who listens where."""

from __future__ import annotations

import ctypes
import fcntl
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from libs.errors import EvenkeelError

LOOPBACK = "127.0.0.1"
_PR_SET_PDEATHSIG = 1  # prctl(2)
_LOWEST_PORT, _EPHEMERAL_PORTS = 10_240, 32_768


class FolderLocked(EvenkeelError):
    """Another process owns the folder; the message is what that process wrote into the lock."""


class FolderLock:
    """An exclusive flock(2) on one file. A child that inherits `fileno()` keeps the lock while it lives."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: IO[str] | None = None

    def acquire(self, holder: str | None = None) -> None:
        """Own the folder and write who owns it, if given. Raises `FolderLocked` at once if somebody else owns it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = self.path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip()
            file.close()
            raise FolderLocked(owner) from None
        self._file = file
        if holder is not None:
            self.write(holder)

    def write(self, holder: str) -> None:
        """Replace the text that a refused process is shown."""
        if self._file is None:
            raise ValueError(f"{self.path} is not locked by this object")
        self._file.seek(0)
        self._file.truncate()
        self._file.write(holder)
        self._file.flush()

    def fileno(self) -> int:
        if self._file is None:
            raise ValueError(f"{self.path} is not locked by this object")
        return self._file.fileno()

    @property
    def is_held(self) -> bool:
        return self._file is not None

    def release(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class ChildProcess:
    """A process in a session of its own that cannot outlive this one; what it leaves in its group ends with it.

    On Linux the kernel kills it as soon as the *thread* that started it ends (prctl(2), PR_SET_PDEATHSIG), so each
    child has a thread that starts it and then waits for it. Elsewhere a `kill -9` of the owner leaves the child behind.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str],
        folder: Path | None = None,
        inherit: Sequence[int] = (),
    ) -> None:
        self._command = [str(part) for part in command]
        self._log, self._environment, self._folder, self._inherit = log, dict(environment), folder, tuple(inherit)
        self._process: subprocess.Popen[bytes] | None = None
        self._error: OSError | None = None
        self._started, self._ended = threading.Event(), threading.Event()
        self._reaping = threading.Lock()
        self._exit_code: int | None = None
        threading.Thread(target=self._own, name=f"owner of {self._command[0]}", daemon=True).start()
        self._started.wait()
        if self._error is not None:
            raise self._error

    def _own(self) -> None:
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    self._command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=self._environment,
                    cwd=self._folder,
                    pass_fds=self._inherit,
                    start_new_session=True,
                    preexec_fn=_die_with_owner(),  # noqa: PLW1509 - it only makes system calls
                )
        except OSError as error:
            self._error = error
            self._started.set()
            return
        self._started.set()
        os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
        with self._reaping:  # its id belongs to nobody else until it is reaped
            self._end_group()
            self._exit_code = self._process.wait()
            self._ended.set()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def is_running(self) -> bool:
        return not self._ended.is_set()

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: ended by that signal."""
        return self._exit_code

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Whether it has ended within the time."""
        return self._ended.wait(timeout_seconds)

    def terminate(self) -> None:
        """Ask it to end (SIGTERM)."""
        with self._reaping:
            if self.is_running:
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it at once (SIGKILL)."""
        with self._reaping:
            if self.is_running:
                self._end_group()
        self._ended.wait()

    def stop(self, timeout_seconds: float) -> bool:
        """SIGTERM, then SIGKILL after the time. False if it had to be killed."""
        self.terminate()
        if self.wait(timeout_seconds):
            return True
        self.kill()
        return False

    def _end_group(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


def _die_with_owner() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    owner = os.getpid()

    def in_child() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != owner:  # the owner ended before the request was in place
            os._exit(1)

    return in_child


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


def listening_process(port: int) -> str | None:
    """Name and id of the process that listens on a TCP port, where the system lets us know (Linux, same user)."""
    inodes = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if table.exists():
            for line in table.read_text().splitlines()[1:]:
                columns = line.split()
                if columns[3] == "0A" and int(columns[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{columns[9]}]")
    if not inodes:
        return None
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if any(os.readlink(descriptor) in inodes for descriptor in (process / "fd").iterdir()):
                return f"{(process / 'comm').read_text().strip()} (process {process.name})"
        except OSError:  # it ended meanwhile, or belongs to somebody else
            continue
    return None
