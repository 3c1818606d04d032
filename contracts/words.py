"""Numbers, times and digests as people read them, for what facts say of themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final
from unicodedata import category

_DIGEST: Final = "sha256:"


def one_line(text: str) -> str:
    """Text from outside, such as a comment, on one line and without what a terminal would obey.

    >>> one_line("seen it" + chr(10) + "twice" + chr(27) + "[2J")
    'seen it twice [2J'
    """
    return "".join(" " if category(character) in ("Cc", "Zl", "Zp") else character for character in text)


def count(number: int, one: str, many: str = "") -> str:
    """So many of something.

    >>> count(1, "row"), count(12345, "row"), count(2, "key of a subject", "keys of subjects")
    ('1 row', '12,345 rows', '2 keys of subjects')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def size(number: int) -> str:
    """Bytes, in decimal units.

    >>> size(999), size(12345), size(4_500_000)
    ('999 bytes', '12.3 kB', '4.5 MB')
    """
    if number < 1000:
        return count(number, "byte")
    value = float(number)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:,.1f} TB"


def seconds(value: float) -> str:
    """A span of time.

    >>> seconds(0.0123), seconds(3.2), seconds(75), seconds(7300)
    ('12 ms', '3.2 s', '1 min 15 s', '2 h 1 min')
    """
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def when(time: str) -> str:
    """An RFC 3339 time in UTC without what is zero.

    >>> when("2013-01-14T00:00:00Z"), when("2013-01-14T06:30:00Z"), when("2013-01-14T06:30:07.5Z")
    ('2013-01-14', '2013-01-14 06:30 UTC', '2013-01-14 06:30:07.5 UTC')
    """
    day, _, clock = time.removesuffix("Z").partition("T")
    clock = clock.removesuffix(":00") if clock.count(":") == 2 else clock
    return day if clock in ("", "00:00") else f"{day} {clock} UTC"


def span(start: str, end: str) -> str:
    """A window of time, its end excluded.

    >>> span("2013-01-13T00:00:00Z", "2013-01-14T00:00:00Z")
    '2013-01-13 to 2013-01-14'
    """
    return f"{when(start)} to {when(end)}"


def short(digest: str) -> str:
    """Enough of a digest to recognise it.

    >>> short("sha256:" + "5" * 64)
    'sha256:555555555555'
    """
    return digest[: (len(_DIGEST) if digest.startswith(_DIGEST) else 0) + 12]


def chance(probability: float) -> str:
    """A p-value, or the error rate of a detector.

    >>> chance(0.00012), chance(0.05), chance(0.0)
    ('0.00012', '0.05', '0')
    """
    return f"{probability:.2g}"


def listed(parts: Iterable[str]) -> str:
    """Several things in a row.

    >>> listed(["a"]), listed(["a", "b", "c"]), listed([])
    ('a', 'a, b and c', 'nothing')
    """
    *first, last = list(parts) or ["nothing"]
    return f"{', '.join(first)} and {last}" if first else last


def offsets(ends: Mapping[str, Mapping[str, int]]) -> str:
    """Up to where topics were read, for people.

    >>> offsets({"orders": {"0": 3, "1": 1200}}), offsets({})
    ('orders/0 below 3, orders/1 below 1,200', 'no offsets')
    """
    parts = [
        f"{topic}/{partition} below {end:,}" for topic, places in ends.items() for partition, end in places.items()
    ]
    return ", ".join(parts) or "no offsets"
