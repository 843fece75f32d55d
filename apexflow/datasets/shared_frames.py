"""The same frames under two people: one would be learnt from, the other tested.

Found before any frame is decoded: an audit reports it, a run processes everything all the same
and ends with an error, and no fold is made of it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from apexflow.catalog import Clip
from apexflow.datasets.sources import list_frames


@dataclass(frozen=True, slots=True)
class Reading:
    """What a clip reads.

    Attributes
    ----------
    clip : Clip
    files : hashable
        Equal of two clips whose files agree in number, sizes and times.
    first, last : int
        Its first and its last frame.
    """

    clip: Clip
    files: Hashable
    first: int
    last: int

    def overlaps(self, other: Reading) -> bool:
        return self.first <= other.last and other.first <= self.last


@dataclass(frozen=True, slots=True)
class SharedFrames:
    """A clip, and the first one of another person that has its frames."""

    clip: Clip
    other: Clip

    def __str__(self) -> str:
        return (
            f"{self.other} and {self.clip} have the same frames ({self.clip.source}), under two "
            f"people ({self.other.person}, {self.clip.person})"
        )


def find_shared_frames(readings: Iterable[Reading]) -> tuple[SharedFrames, ...]:
    """Find clips that read the frames of another person's clip: each once, in their order.

    From one folder or video they read at least one frame in common; from different ones they
    read the same bytes.
    """
    by_files: dict[Hashable, Reading] = {}
    by_place: dict[tuple[Path | None, str], dict[str, list[Reading]]] = {}
    found = []
    for reading in readings:
        clip = reading.clip
        same = by_files.setdefault(reading.files, reading)
        there = by_place.setdefault((clip.root, clip.source), {})
        others = (one for who, theirs in there.items() if who != clip.person for one in theirs)
        overlapping = next((one for one in others if one.overlaps(reading)), None)
        if overlapping is not None:
            found.append(SharedFrames(clip, overlapping.clip))
        elif same.clip.person != clip.person and _same_bytes(same.clip, clip):
            found.append(SharedFrames(clip, same.clip))
        there.setdefault(clip.person, []).append(reading)
    return tuple(found)


def summed_up(found: Sequence[SharedFrames]) -> str:
    """Return one line that names the first two clips, and says how many more there are."""
    more = f" (and {len(found) - 1} more clips, see `apexflow info`)" if len(found) > 1 else ""
    return f"{found[0]}{more}"


def _same_bytes(one: Clip, two: Clip) -> bool:
    """Compare a file of two clips whose files agree in size and time."""
    try:
        first, second = (_first_file(clip) for clip in (one, two))
        return first.samefile(second) or first.read_bytes() == second.read_bytes()
    except OSError:
        return False


def _first_file(clip: Clip) -> Path:
    return min(list_frames(clip.path).values()) if clip.path.is_dir() else clip.path
