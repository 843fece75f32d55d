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
from apexflow.datasets.sources import FrameSource, VideoFrames, open_frames
from apexflow.engine.clip.rate import frame_rate
from apexflow.engine.clip.temporal import PairFrames, frame_reach, frames_of_pairs
from apexflow.engine.windows import KEY_FRAMES, FramePair, Window
from apexflow.errors import ClipError

if TYPE_CHECKING:
    from apexflow.engine.recipe import Recipe

# What a column of whole numbers holds.
MOST_NUMBER = (1 << 63) - 1
# An hour at 290 frames/s; the numbers of as many frames take 30 MB of the process that plans.
MOST_FRAMES = 1 << 20
# The smallest frame of any container: an empty chunk of an AVI, or an entry of an MP4's index.
LEAST_FRAME_BYTES = 4

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
        Of the clip as it is called and annotated, and of the files that are read.
    files : str
        Of the files alone, by size and time: equal wherever the same frames are read.
    reach : int
        How many frames on each side of a pair's frames its flow may be drawn from.
    apex_confidence : float or None
        How sure an estimated apex is, as in `ApexEstimate`; None when it was not estimated.
    rate : float or None
        Frames a second; None where nobody says.
    """

    numbers: tuple[int, ...]
    template: int
    key_frames: Mapping[str, int]
    interval: tuple[int, ...]
    apex_source: str
    pairs: Mapping[str, tuple[FramePair, ...]]
    fingerprint: str
    files: str = ""
    reach: int = 0
    apex_confidence: float | None = None
    rate: float | None = None

    @property
    def apex_pending(self) -> bool:
        """Whether the apex is to be estimated from the aligned crops."""
        return self.apex_source in ESTIMATES and "apex" not in self.key_frames


def plan_clip(clip: Clip, recipe: Recipe) -> tuple[FrameSource, ClipPlan]:
    """Check a clip's annotation against its frames on disk and choose the frames to read.

    An onset or offset that is not annotated is the clip's first or last frame on disk.

    Raises `ClipError` when the annotation cannot be read, when an apex that the recipe needs is
    unknown, when a key frame is out of order or not on disk, or when fewer than two frames are
    left.
    """
    if clip.problems:
        raise ClipError(clip.problem)
    windows = [Window.parse(name) for name in recipe.windows]
    key_frames = _key_frames(clip)
    pending = "apex" not in key_frames and clip.apex_source in ESTIMATES
    needed = dict.fromkeys(name for window in windows for name in window.key_frames)
    if "apex" in needed and "apex" not in key_frames and not pending:
        raise ClipError(
            "no apex is annotated, and the recipe's windows need it; let it be estimated with "
            "--apex flow (apex='flow' of the reader)"
        )
    source = _open(clip)
    key_frames = {"onset": source.numbers[0], "offset": source.numbers[-1], **key_frames}
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
    many = bool(windows) and recipe.temporal.method != "pair"
    rate = frame_rate(clip, source)
    reach = frame_reach(recipe.temporal, rate) if many else 0
    if recipe.frames.which == "windows" and not wait:
        ends = {pair for of_window in pairs.values() for pair in of_window}
        drawn = frames_of_pairs(ends, key_frames, interval, recipe.temporal, reach)
        numbers = tuple(sorted({template}.union(*(pair.numbers for pair in drawn))))
    if len(numbers) < 2:
        raise ClipError(f"{clip.path} holds {len(numbers)} frame of the clip; motion needs two")
    _check_storable(source, numbers)
    files = source.fingerprint(numbers)
    stamp: list[object] = [clip.key, clip.source, clip.onset, clip.apex, clip.offset, files]
    if wait:
        stamp.append(clip.apex_source)
    if many:
        stamp.append(reach)
    if recipe.magnification.method != "none":
        stamp.append(rate)
    known = clip.apex_source if wait or "apex" in key_frames else ""
    fingerprints = _digest(stamp), _digest([[size, time] for _, size, time in files])
    plan = ClipPlan(
        *(numbers, template, key_frames, interval, known, pairs, *fingerprints),
        reach=reach,
        rate=rate,
    )
    return source, plan


def _digest(stamp: object) -> str:
    return hashlib.sha256(json.dumps(stamp).encode()).hexdigest()


def _open(clip: Clip) -> FrameSource:
    """Open a clip's frames; whatever the disk says of it is that clip's failure."""
    try:
        source = open_frames(clip)
    except OSError as error:  # a name too long, no permission, a stale mount
        raise ClipError(f"{clip.source}: {error.strerror or error}") from None
    except ValueError as error:  # a zero byte in a name
        raise ClipError(f"{clip.source!r}: {error}") from None
    if isinstance(source, VideoFrames):
        _check_count(source)
    return source


def _check_count(video: VideoFrames) -> None:
    """Believe no more frames of a header than the file has bytes for, or a plan can hold."""
    size = video.path.stat().st_size
    most = min(size // LEAST_FRAME_BYTES, MOST_FRAMES)
    if video.count > most:
        raise ClipError(
            f"{video.path} claims {video.count} frames in {size} bytes; {most} is the most "
            f"that is believed: write the video again, or its frames as images"
        )


def _check_storable(source: FrameSource, numbers: tuple[int, ...]) -> None:
    """Find what the store could not hold: it is this clip's failure, not the run's."""
    if numbers[-1] > MOST_NUMBER:
        raise ClipError(
            f"frame number {numbers[-1]} ({source.file_name(numbers[-1])}) is beyond 63 bits; "
            f"rename the file"
        )
    for number in numbers:
        name = source.file_name(number)
        if not name.isascii() and not _is_utf8(name):
            raise ClipError(f"the name of file {name!a} is not UTF-8; rename it")


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def with_apex(plan: ClipPlan, crops: NDArray[np.uint8], recipe: Recipe) -> ClipPlan:
    """Return the plan with the apex estimated, where the plan waits for it.

    ``crops`` (n, height, width) are those of the plan's frames, aligned.
    """
    if not plan.apex_pending:
        return plan
    from apexflow.engine.clip.apex import estimate_apex

    rows = [plan.numbers.index(number) for number in plan.interval]
    method: Literal["flow", "difference"] = "flow" if plan.apex_source == "flow" else "difference"
    position, confidence = estimate_apex(crops[rows], method=method)
    key_frames = {**plan.key_frames, "apex": plan.interval[position]}
    return replace(with_key_frames(plan, key_frames, recipe), apex_confidence=confidence)


def with_key_frames(plan: ClipPlan, key_frames: Mapping[str, int], recipe: Recipe) -> ClipPlan:
    """Return the plan with these key frames, and the interval and pairs that follow from them."""
    windows = [Window.parse(name) for name in recipe.windows]
    interval = _interval(plan.numbers, key_frames)
    pairs = _pairs(windows, key_frames, interval)
    return replace(plan, key_frames=key_frames, interval=interval, pairs=pairs)


def flow_frames(plan: ClipPlan, recipe: Recipe) -> tuple[PairFrames, ...]:
    """Return what the flow of each pair of a clip's windows is drawn from, each pair once."""
    pairs = dict.fromkeys(pair for of_window in plan.pairs.values() for pair in of_window)
    return frames_of_pairs(pairs, plan.key_frames, plan.interval, recipe.temporal, plan.reach)


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
    first, last = key_frames["onset"], key_frames["offset"]
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
