"""Windows in time: between which frames of a clip flow is computed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

KEY_FRAMES = ("onset", "apex", "offset")
MIDDLE = "mid"
CONSECUTIVE = "consecutive"

FramePair = tuple[int, int]
"""The numbers of the two frames that a flow leads from and to."""

_EVERY = re.compile(r"onset-every-([1-9]\d{0,3})")
_DIVIDED = re.compile(r"(onset-)?steps-([1-9]\d{0,3})")

FORMS = (
    "key frames in a row (onset-apex, onset-mid-apex-mid-offset), onset-every-K, consecutive, "
    "steps-N or onset-steps-N"
)


@dataclass(frozen=True, slots=True)
class Window:
    """A window by its name.

    =================== ==========================================================
    name                frame pairs
    =================== ==========================================================
    a-b-c…              from each to the next of these: onset, apex, offset, and mid,
                        the frame halfway between its neighbours
    onset-every-K       from the onset to each K-th frame after it, up to the offset
    consecutive         from each frame of the interval to the next
    steps-N             the interval divided into N equal steps, from each end to the next
    onset-steps-N       from the onset to each of these ends
    =================== ==========================================================

    The interval is onset to offset, or what is on disk where these are not annotated. Where a
    frame is missing the nearest one stands in; a clip shorter than N steps repeats frames,
    whose flow is 0.

    Attributes
    ----------
    name : str
    key_frames : tuple of str
        The key frames that must be known.
    count : int or None
        Number of frame pairs; None where the length of the clip decides.
    """

    name: str
    key_frames: tuple[str, ...]
    count: int | None

    @classmethod
    def parse(cls, name: str) -> Window:
        """Return the window of that name; ValueError when there is none."""
        if name == CONSECUTIVE:
            return cls(name, (), None)
        if _EVERY.fullmatch(name):
            return cls(name, ("onset",), None)
        if divided := _DIVIDED.fullmatch(name):
            return cls(name, ("onset",) if divided[1] else (), int(divided[2]))
        parts = name.split("-")
        outer = parts[0] in KEY_FRAMES and parts[-1] in KEY_FRAMES
        known = set(parts) <= {*KEY_FRAMES, MIDDLE}
        if len(parts) < 2 or not outer or not known or any(a == b for a, b in pairwise(parts)):
            raise ValueError(f"{name!r} is not a window; a window is {FORMS}")
        return cls(name, tuple(dict.fromkeys(p for p in parts if p != MIDDLE)), len(parts) - 1)

    def pairs(
        self, key_frames: Mapping[str, int], interval: Sequence[int]
    ) -> tuple[FramePair, ...]:
        """Return the frame numbers (from, to) of each pair.

        ``interval`` holds the clip's frame numbers from onset to offset, ascending.
        """
        if self.name == CONSECUTIVE:
            return tuple(pairwise(interval))
        if every := _EVERY.fullmatch(self.name):
            onset, k = key_frames["onset"], int(every[1])
            there = set(interval)
            ends = range(onset + k, interval[-1] + 1, k)
            return tuple((onset, end) for end in ends if end in there)
        if divided := _DIVIDED.fullmatch(self.name):
            ends_ = _divided(interval, int(divided[2]))
            if divided[1]:
                return tuple((key_frames["onset"], end) for end in ends_[1:])
            return tuple(pairwise(ends_))
        return tuple(pairwise(_row(self.name.split("-"), key_frames, interval)))


def _row(parts: Sequence[str], key_frames: Mapping[str, int], interval: Sequence[int]) -> list[int]:
    """Return the frame of each key frame in a row; those of ``mid`` lie halfway."""
    row = []
    for i, part in enumerate(parts):
        if part == MIDDLE:
            before, after = key_frames[parts[i - 1]], key_frames[parts[i + 1]]
            row.append(_nearest(interval, (before + after) // 2))
        else:
            row.append(key_frames[part])
    return row


def _divided(interval: Sequence[int], count: int) -> list[int]:
    first, last = interval[0], interval[-1]
    return [_nearest(interval, first + (last - first) * i / count) for i in range(count + 1)]


def _nearest(numbers: Sequence[int], wanted: float) -> int:
    """Return the number nearest to what is wanted, of two the smaller."""
    return min(numbers, key=lambda number: (abs(number - wanted), number))
