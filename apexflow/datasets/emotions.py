"""Emotions in one canonical spelling, whatever a table calls them."""

from __future__ import annotations

import re

from apexflow.cells import is_unknown

EMOTIONS = (
    "anger",
    "contempt",
    "disgust",
    "fear",
    "happiness",
    "negative",
    "other",
    "positive",
    "repression",
    "sadness",
    "surprise",
)
_SPELLINGS = {
    "angry": "anger",
    "disgusted": "disgust",
    "fearful": "fear",
    "happy": "happiness",
    "ne": "negative",
    "neg": "negative",
    "others": "other",
    "po": "positive",
    "pos": "positive",
    "repressed": "repression",
    "sad": "sadness",
    "sur": "surprise",
    "surprised": "surprise",
}


def canonical_emotion(text: str) -> str:
    """Return the canonical spelling of an emotion.

    Case, spaces and the spellings of the data sets ("Others", "happy", "sur") do not
    matter. Several emotions of one clip are joined by "&" in their own order. A mark for an
    unknown value ("/", "nan", blank) is no emotion. One that no data set knows stays as it is,
    in lower case, for an audit to report.
    """
    parts = [re.sub(r"\s+", " ", part).strip().casefold() for part in text.split("&")]
    known = (part for part in parts if not is_unknown(part))
    return "&".join(dict.fromkeys(_SPELLINGS.get(part, part) for part in known))


def unknown_emotions(emotion: str) -> tuple[str, ...]:
    """Return the parts of a canonical emotion that no data set knows."""
    return tuple(part for part in emotion.split("&") if part and part not in EMOTIONS)
