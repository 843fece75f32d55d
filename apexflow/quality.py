"""Flags: what is doubtful about a clip, each a name and a figure, and their one text form."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from apexflow.errors import ApexflowError

MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "apex-unclear": "the confidence of an estimated apex that has no clear peak",
        "at-margin": "frames in which the search ended at its margin: the face may lie beyond",
        "beyond-bound": "px of motion, too long to be magnified by alpha at any scale",
        "blank-frame": "frames with hardly any contrast in the place of the face: black or a wall",
        "blur": "the sharpness of the least sharp frame, in parts of the clip's median",
        "cut": "places where a frame looks quite unlike the one before",
        "dark": "frames that are nearly black",
        "folded": "the part of a frame, at most, in which magnified motion folds the picture",
        "head-motion": "px by which the whole aligned face moves between the key frames",
        "inconsistent-flow": "px by which flow there and back misses its start",
        "lost-face": "frames that do not show the face of the template frame",
        "no-motion": "px that the flow has all the same: no frame differs more than noise makes it",
        "occluded": "frames in which part of the face is covered, or looks quite otherwise",
        "other-template": "the frame that the face was found in; the planned one shows none",
        "repeated-frames": "frames that are the frame before once more",
        "saturated": "frames in which much of the face is all white or all black",
        "several-faces": "faces of about that size in the template frame; one was chosen",
    }
)
"""What each flag says; its figure counts the frames, or has the unit that is named."""

_SEPARATOR = "; "
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_SIGNIFICANT_DIGITS = 3


@dataclass(frozen=True, slots=True)
class Flag:
    """One doubt about a clip.

    Attributes
    ----------
    name : str
        Lower-case words joined by hyphens, such as ``at-margin``.
    figure : float, optional
        How bad it is; docs/quality.md says what each name's figure measures.
    """

    name: str
    figure: float | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ApexflowError(
                f"a flag's name is lower-case words joined by hyphens. Got {self.name!r}."
            )
        if self.figure is not None and not math.isfinite(self.figure):
            raise ApexflowError(f"the figure of flag {self.name} must be finite: {self.figure}")

    def __str__(self) -> str:
        if self.figure is None:
            return self.name
        return f"{self.name}={float(f'{self.figure:.{_SIGNIFICANT_DIGITS}g}'):g}"


def format_flags(flags: Iterable[Flag]) -> str:
    """Return flags as ``clips/flags`` of a store has them: ``at-margin=12; blur=0.31``.

    Sorted by name, figures with three significant digits; empty when there are none.
    """
    return _SEPARATOR.join(map(str, sorted(flags, key=lambda flag: flag.name)))


def parse_flags(text: str) -> tuple[Flag, ...]:
    """Return the flags of a text that `format_flags` made; raises `ApexflowError` on another."""
    return tuple(_parse(part) for part in text.split(_SEPARATOR)) if text else ()


def _parse(text: str) -> Flag:
    name, has_figure, figure = text.partition("=")
    try:
        return Flag(name, float(figure) if has_figure else None)
    except ValueError:
        raise ApexflowError(f"flag {name} has the figure {figure!r}, which is no number") from None


def count_flags(texts: Iterable[str]) -> dict[str, int]:
    """Count how many clips bear each flag, the most frequent first.

    Parameters
    ----------
    texts : iterable of str
        The flags of one clip each, as `format_flags` made them.
    """
    names = Counter(name for text in texts for name in {flag.name for flag in parse_flags(text)})
    return dict(sorted(names.items(), key=lambda item: (-item[1], item[0])))


def say_flagged(texts: Iterable[str]) -> str:
    """Say how many clips are flagged, and for what: ``3 of 120 clips are flagged (blur 3)``."""
    texts = list(texts)
    flagged = [text for text in texts if text]
    counts = ", ".join(f"{name} {count}" for name, count in count_flags(flagged).items())
    verb = "is" if len(flagged) == 1 else "are"
    return f"{len(flagged)} of {len(texts)} clips {verb} flagged" + (
        f" ({counts})" if counts else ""
    )
