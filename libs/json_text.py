"""What a JSON document may hold that no store can keep."""

from __future__ import annotations

import re
from typing import Final

_ESCAPED_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000").search


def holds_nul(document: bytes) -> bool:
    r"""Whether a text of the document holds U+0000, which JSON can only say escaped; an escaped backslash before `u0000` says
    something else.

    >>> holds_nul(rb'{"a": "\u0000"}'), holds_nul(rb'{"a": "\\u0000"}')
    (True, False)
    """
    return b"\\u0000" in document and _ESCAPED_NUL(document) is not None
