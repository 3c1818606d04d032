"""Ids that a producer may give: any text of at most 256 bytes without control characters."""

from __future__ import annotations

from typing import Final

RECORD_IDS: Final = (
    *(
        "o-1",
        " ",
        "a b",
        "a/b",
        "/a//b/",
        "../up",
        "100% sure?",
        "%2F",
        "a?b=c&d#e",
        "x|y#z@w",
        "a+b",
        "'\"\\{}",
        ".",
        "..",
    ),
    *("日本語の識別子", "הזמנה ١٢٣", "naïve café", "é" * 128, "𝔸" * 64, "a\u200d\u202eb"),
)
