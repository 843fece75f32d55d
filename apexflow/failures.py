"""Clips that could not be used, grouped by why, each group with what mends it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# What differs from clip to clip in one and the same reason: quoted names, paths, numbers.
_PARTICULARS = re.compile(r"'[^']*'|\"[^\"]*\"|\S*[/\\]\S*|\S+\.\w{2,4}\b|\d[\d.x]*")

_AUDIT = "apexflow audit NAME ROOT"
_RECIPE = "process into another store with a recipe"
# What a reason contains: what mends it. The first that fits counts.
_REMEDIES: Mapping[str, str] = {
    "the cell": "correct the table, and give the same process command again",
    "delete one of": "correct the table, and give the same process command again",
    "correct the annotation": (
        f"{_AUDIT} --write-corrections corrections.csv, confirm them, then process again with "
        "--corrections corrections.csv"
    ),
    "is annotated, and the recipe": "process again with --apex middle, difference or flow",
    "FaceMesh sees no face": f"{_RECIPE} without face.mesh, or whose face.detector is another",
    "BlazeFace found no face": f"{_RECIPE} whose face.detector is 'mtcnn', which finds smaller "
    "faces, or 'fixed' with a box",
    "found no face": f"{_RECIPE} whose face.min_face_size is lower, or whose face.detector is "
    "'fixed' with a box",
    "min_face_size": f"{_RECIPE} whose face.min_face_size is lower",
    "--clip-timeout": "process again with a larger --clip-timeout",
    "its process died": "process again with fewer --workers, which leaves each more memory",
    "`apexflow verify`": "mend the store that the clip was read from, as its reason says",
    "is not on disk": f"{_AUDIT} lists what is missing; put it there and process again",
    "truncated": f"{_AUDIT} --deep lists every damaged file; copy them again and process again",
    "damaged": f"{_AUDIT} --deep lists every damaged file; copy them again and process again",
    "frames must have at least": "give --frames all or smaller --radii, or process with a recipe "
    "that keeps more frames (frames.which)",
    "flow must be finite": "give the command again that made the store, `process` with --repair; "
    "where it stays so, leave the clip out",
    "unexpected": "a defect of apexflow: report it with the clip; the others are safe",
}
_OTHERWISE = f"{_AUDIT} says more; mend it and give the same process command again"


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Clips that failed for one reason.

    Attributes
    ----------
    failures : tuple of (clip, reason)
    remedy : str
        The command that mends it.
    """

    failures: tuple[tuple[str, str], ...]
    remedy: str

    @property
    def reason(self) -> str:
        """The first clip's reason, in full."""
        return self.failures[0][1]

    @property
    def clips(self) -> tuple[str, ...]:
        return tuple(clip for clip, _ in self.failures)


def group_failures(failures: Iterable[tuple[str, str]]) -> tuple[FailureGroup, ...]:
    """Group (clip, reason) by reasons that differ in names and numbers alone, largest first."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for clip, reason in failures:
        groups.setdefault(kind_of(reason), []).append((clip, reason))
    found = [FailureGroup(tuple(same), remedy(same[0][1])) for same in groups.values()]
    return tuple(sorted(found, key=lambda group: -len(group.clips)))


def kind_of(reason: str) -> str:
    """Return a reason without the names and numbers that differ from clip to clip."""
    return _PARTICULARS.sub("…", reason)


def say_failures(failures: Iterable[tuple[str, str]], *, most: int) -> list[str]:
    """Return lines that name the clips of each group, at most so many, and what mends them."""
    lines = []
    for group in group_failures(failures):
        lines += [f"  {clip}: {reason}" for clip, reason in group.failures[:most]]
        left = len(group.failures) - most
        if left > 0:
            lines.append(f"  and {left} more for the same reason; `apexflow info` has all")
        lines.append(f"  -> {group.remedy}")
    return lines


def remedy(reason: str) -> str:
    """Return what mends a clip that failed for this reason."""
    return next((what for part, what in _REMEDIES.items() if part in reason), _OTHERWISE)
