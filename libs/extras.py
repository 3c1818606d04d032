"""Optional dependencies: whether what an extra installs is there, and the one line that says how to get it.

Asked before a service or a command starts, so that nobody learns of a missing package from a stack, or after an hour's work.
"""

from __future__ import annotations

import re
from importlib import metadata
from typing import Final

from evenkeel.libs.errors import SettingsError

_DISTRIBUTION: Final = "evenkeel"
_REQUIREMENT: Final = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)(?:\[(?P<nested>[^\]]+)\])?[^;]*; extra == ['\"](?P<extra>[\w-]+)['\"]"
)
_NAMED: Final = 3


class ExtraMissing(SettingsError):
    """Packages of an extra are not installed; the message is one line, and ends with the command that installs them."""


def require_extras(who: str, *extras: str) -> None:
    """Raises ExtraMissing if a package that one of the extras names is not installed. `who` begins the message."""
    absent = {extra: missing for extra in extras if (missing := missing_packages(extra))}
    if absent:
        names = list(dict.fromkeys(name for missing in absent.values() for name in missing))
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        raise ExtraMissing(
            f"{who} needs {', '.join(names[:_NAMED])}{more}: pip install '{_DISTRIBUTION}[{','.join(absent)}]'"
        )


def missing_packages(extra: str) -> list[str]:
    """Packages that `pip install evenkeel[extra]` would bring and that are not installed, as pyproject.toml names them."""
    try:
        lines = metadata.requires(_DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        raise ExtraMissing("Evenkeel is not installed, only its files are here: pip install -e .") from None
    required = [found for line in lines if (found := _REQUIREMENT.fullmatch(line))]
    missing: dict[str, None] = {}
    waiting, seen = [extra], set[str]()
    while waiting:
        wanted = waiting.pop(0)
        if wanted in seen:
            continue
        seen.add(wanted)
        for found in required:
            if found["extra"] != wanted:
                continue
            if found["name"] == _DISTRIBUTION:
                waiting += found["nested"].split(",")
            elif not _is_installed(found["name"]):
                missing[found["name"]] = None
    return list(missing)


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True
