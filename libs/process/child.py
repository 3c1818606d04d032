"""Child processes that end with their owner."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # prctl(2)


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
