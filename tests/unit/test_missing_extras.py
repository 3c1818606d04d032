"""What a missing extra says, read from the metadata that an installation brings."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

from evenkeel.contracts.topics import SERVICES
from evenkeel.libs.extras import ExtraMissing, missing_packages, require_extras

ROOT = Path(__file__).parents[2]
EXTRAS: dict[str, list[str]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
METADATA = """\
Metadata-Version: 2.4
Name: evenkeel
Version: 9
Requires-Dist: numpy
Requires-Dist: numpy>=2; extra == "there"
Requires-Dist: absent-engine[fast]>=2; extra == "store"
Requires-Dist: absent-driver; extra == "store"
Requires-Dist: evenkeel[store]; extra == "one"
Requires-Dist: evenkeel[store,there]; extra == "two"
Requires-Dist: absent-view; extra == "two"
Requires-Dist: evenkeel[one,two]; extra == "both"
Requires-Dist: absent-on-another-system; (sys_platform == "win32") and extra == "there"
"""


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another Evenkeel, first on the path, with extras whose packages nobody has."""
    folder = tmp_path / "evenkeel-9.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(METADATA)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("installation")
def test_the_message_is_one_line_that_names_packages_and_the_command() -> None:
    require_extras("evenkeel up", "there")
    with pytest.raises(ExtraMissing) as one:
        require_extras("evenkeel up", "there", "one")
    assert str(one.value) == "evenkeel up needs absent-engine, absent-driver: pip install 'evenkeel[one]'"
    with pytest.raises(ExtraMissing) as several:
        require_extras("evenkeel up", "two", "one", "there", "both")
    assert str(several.value) == (
        "evenkeel up needs absent-view, absent-engine, absent-driver: pip install 'evenkeel[two,one,both]'"
    )
    assert missing_packages("both") == ["absent-view", "absent-engine", "absent-driver"]


def test_with_all_extras_nothing_is_missing() -> None:
    assert [extra for extra in EXTRAS if missing_packages(extra)] == []


def test_every_extra_that_is_asked_for_exists() -> None:
    asked = set()
    for part in ("libs", "services", "evenkeel/apps"):
        for path in (ROOT / part).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "require_extras":
                    names = [inner for argument in node.args[1:] for inner in ast.walk(argument)]
                    asked |= {name.value for name in names if isinstance(name, ast.Constant)}
    assert asked == {"services", "embedded", "demo", "sql"}
    assert asked | set(SERVICES) <= EXTRAS.keys()
    assert EXTRAS["services"] == [f"evenkeel[{','.join(SERVICES)}]"]
