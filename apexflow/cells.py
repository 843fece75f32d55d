"""What a cell of an annotation table says, before anybody asks what it means."""

from __future__ import annotations

import re
import unicodedata

UNKNOWN = frozenset(
    {"", "/", "\\", "?", "??", "-", "--", "---", "–", "—", ".", "*", "n/a", "n.a.", "na"}  # noqa: RUF001
    | {"#n/a", "#na", "#null!", "nan", "none", "null", "nil", "unknown", "missing", "undefined"}
)
"""Cells that say that a value is not known, in lower case."""

# Zero-width spaces and joiners, direction marks, soft hyphens, byte order marks.
_INVISIBLE = re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")


def clean_cell(text: str) -> str:
    """Return a cell's text without what nobody sees: zero-width characters, outer spaces."""
    return unicodedata.normalize("NFC", _INVISIBLE.sub("", text)).strip()


def is_unknown(text: str) -> bool:
    """Tell whether a cell says that its value is not known, such as "/", "n/a" or nothing."""
    return clean_cell(text).casefold() in UNKNOWN
