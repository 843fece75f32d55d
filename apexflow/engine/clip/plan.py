"""Which frames of a clip a recipe needs: everything that is known before a pixel is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from apexflow.catalog import Clip
from apexflow.datasets.sources import FrameSource, open_frames
from apexflow.engine.windows import KEY_FRAMES, FramePair, Window
from apexflow.errors import ClipError

if TYPE_CHECKING:
    from apexflow.engine.recipe import Recipe

ESTIMATES = ("difference", "flow")
"""The values of `Clip.apex_source` that ask for an estimate."""


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """What a recipe needs of a clip.

    Attributes
    ----------
    numbers : tuple of int
        The frames to decode, ascending.
    template : int
    key_frames : dict of "onset", "apex", "offset" to int
        As far as they are known.
    interval : tuple of int
        The clip's frames on disk from onset to offset.
    apex_source : str
        How the apex is known, as in `Clip`; empty when it is not.
    pairs : dict of window to tuple of (from, to)
        Empty until the apex is estimated, where that has to come first.
    fingerprint : str
    """

    numbers: tuple[int, ...]
    template: int
    key_frames: Mapping[str, int]
    interval: tuple[int, ...]
    apex_source: str
    pairs: Mapping[str, tuple[FramePair, ...]]
    fingerprint: str

    @property
    def apex_pending(self) -> bool:
        """Whether the apex is to be estimated from the aligned crops."""
        return self.apex_source in ESTIMATES and "apex" not in self.key_frames


def plan_clip(clip: Clip, recipe: Recipe) -> tuple[FrameSource, ClipPlan]:
    """Check a clip's annotation against its frames on disk and choose the frames to read.

    Raises `ClipError` when a key frame that the recipe needs is unknown, out of order, or not on
    disk, or when fewer than two frames are left.
    """
    windows = [Window.parse(name) for name in recipe.windows]
    key_frames = _key_frames(clip)
    pending = "apex" not in key_frames and clip.apex_source in ESTIMATES
    needed = dict.fromkeys(name for window in windows for name in window.key_frames)
    for name in needed:
        if name not in key_frames and not (name == "apex" and pending):
            raise ClipError(f"no {name} is annotated, and the recipe's windows need it")
    source = open_frames(clip)
    there = set(source.numbers)
    for name in needed:
        if name in key_frames and key_frames[name] not in there:
            raise ClipError(
                f"{name} frame {key_frames[name]} is not on disk: {clip.path} holds frames "
                f"{source.numbers[0]} to {source.numbers[-1]}"
            )
    interval = _interval(source.numbers, key_frames)
    numbers = source.numbers if recipe.frames.which == "all" else interval
    template = _template_number(numbers, key_frames, recipe)
    wait = pending and "apex" in needed
    pairs = {} if wait else _pairs(windows, key_frames, interval)
    if recipe.frames.which == "windows" and not wait:
        ends = {number for of_window in pairs.values() for pair in of_window for number in pair}
        numbers = tuple(sorted({template, *ends}))
    if len(numbers) < 2:
        raise ClipError(f"{clip.path} holds {len(numbers)} frame of the clip; motion needs two")
    stamp = [clip.key, clip.source, clip.onset, clip.apex, clip.offset, source.fingerprint(numbers)]
    if wait:
        stamp.append(clip.apex_source)
    fingerprint = hashlib.sha256(json.dumps(stamp).encode()).hexdigest()
    known = clip.apex_source if wait or "apex" in key_frames else ""
    return source, ClipPlan(numbers, template, key_frames, interval, known, pairs, fingerprint)


def with_apex(plan: ClipPlan, crops: NDArray[np.uint8], recipe: Recipe) -> ClipPlan:
    """Return the plan with the apex estimated, where the plan waits for it.

    ``crops`` (n, height, width) are those of the plan's frames, aligned.
    """
    if not plan.apex_pending:
        return plan
    from apexflow.engine.clip.apex import estimate_apex

    rows = [plan.numbers.index(number) for number in plan.interval]
    method: Literal["flow", "difference"] = "flow" if plan.apex_source == "flow" else "difference"
    apex = plan.interval[estimate_apex(crops[rows], method=method)]
    key_frames = {**plan.key_frames, "apex": apex}
    windows = [Window.parse(name) for name in recipe.windows]
    return replace(plan, key_frames=key_frames, pairs=_pairs(windows, key_frames, plan.interval))


def _key_frames(clip: Clip) -> dict[str, int]:
    """Return the key frames that are annotated; they must be in order."""
    onset, apex, offset = clip.onset, clip.apex, clip.offset
    if onset is not None and apex is not None and apex < onset:
        raise ClipError(f"apex {apex} lies before onset {onset}; correct the annotation")
    if apex is not None and offset is not None and apex > offset:
        raise ClipError(f"apex {apex} lies after offset {offset}; correct the annotation")
    if onset is not None and offset is not None and offset < onset:
        raise ClipError(f"offset {offset} lies before onset {onset}; correct the annotation")
    annotated = zip(KEY_FRAMES, (onset, apex, offset), strict=True)
    return {name: number for name, number in annotated if number is not None}


def _interval(there: tuple[int, ...], key_frames: Mapping[str, int]) -> tuple[int, ...]:
    first, last = key_frames.get("onset", there[0]), key_frames.get("offset", there[-1])
    inside = tuple(number for number in there if first <= number <= last)
    if not inside:
        raise ClipError(
            f"no frame from {first} to {last} is on disk, only {there[0]} to {there[-1]}"
        )
    return inside


def _pairs(
    windows: list[Window], key_frames: Mapping[str, int], interval: tuple[int, ...]
) -> dict[str, tuple[FramePair, ...]]:
    return {window.name: window.pairs(key_frames, interval) for window in windows}


def _template_number(
    numbers: tuple[int, ...], key_frames: Mapping[str, int], recipe: Recipe
) -> int:
    wanted = recipe.face.template_frame
    if wanted == "first":
        return numbers[0]
    if wanted == "middle":
        return numbers[len(numbers) // 2]
    number = key_frames.get(wanted)
    if number is None or number not in numbers:
        raise ClipError(f"the recipe's template frame is the {wanted}, frame {number}: not there")
    return number
