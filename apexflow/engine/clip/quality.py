"""How good each frame and the clip are, judged from what the steps before have made.

Every figure is taken from the aligned crops, the flow, and what alignment knows of each frame:
nothing is decoded again. `docs/quality.md` has the distributions that the bounds come from, on
sound clips and on clips with planted faults, and what is missed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.engine.clip.apex import apex_flags
from apexflow.engine.clip.faces import LocatedFace
from apexflow.engine.clip.plan import ClipPlan
from apexflow.errors import ClipError
from apexflow.quality import Flag

if TYPE_CHECKING:
    from apexflow.engine.clip.magnify import Magnified
    from apexflow.engine.clip.result import Aligned

Figures = NDArray[np.float32]
Images = NDArray[np.float32]

_SIDE = 56  # px that faces are compared at: noise and expressions vanish, another face does not
_DARK, _WHITE = 1, 254  # gray levels: no more light, or no less, shows there


@dataclass(frozen=True, slots=True)
class FrameQuality:
    """Figures of the n frames of a clip, each float32 (n,).

    Attributes
    ----------
    match : -1 to 1
        Correlation of the aligned crop with that of the template frame.
    covered : 0 to 1
        The part of the face that looks otherwise than anything within a fourteenth of the face
        around there in the template frame, or the other way round, by more than 0.75 of the
        template's contrast, whatever the light's gain and offset.
    similarity : -1 to 1
        Correlation with the frame before; 1 in the first frame.
    step : gray levels
        Mean absolute difference from the frame before; infinite in the first frame.
    contrast, brightness : gray levels
        Standard deviation and mean.
    clipped : 0 to 1
        The part of the crop that is black or white beyond what the camera tells apart.
    sharpness
        Standard deviation of what a face of 56 px shows and one of 28 px does not, in parts of
        the contrast.
    """

    match: Figures
    covered: Figures
    similarity: Figures
    step: Figures
    contrast: Figures
    brightness: Figures
    clipped: Figures
    sharpness: Figures


@dataclass(frozen=True, slots=True)
class ClipQuality:
    """Figures of a clip, and the flags that follow from them.

    Attributes
    ----------
    frames : FrameQuality
    motion : float
        The 95th percentile of the flow's length, in pixels of the crop, at its largest pair.
        It and what follows are NaN where there is no flow.
    head_motion : float
        Length of the median flow there, in pixels of the crop: what moves as a whole.
    inconsistency : float
        Median distance, in pixels of the crop, by which flow there and back misses its start.
    flags : tuple of Flag
    """

    frames: FrameQuality
    motion: float
    head_motion: float
    inconsistency: float
    flags: tuple[Flag, ...] = ()


def frame_quality(crops: NDArray[np.uint8], template: int) -> FrameQuality:
    """Return the figures of aligned crops (n, height, width), of which one is the template."""
    small = [_reduced(crop, _SIDE) for crop in crops]
    coarse = [_reduced(one, _SIDE // 2) for one in small]
    contrast = np.array([one.std() for one in small], np.float32)
    details = _figures(map(_detail, small, coarse))
    return FrameQuality(
        match=_figures(_correlation(one, small[template]) for one in small),
        covered=_covered(np.stack(coarse), coarse[template]),
        similarity=_figures([1.0, *(_correlation(a, b) for a, b in pairwise(small))]),
        step=_figures(
            [np.inf, *(cv2.norm(a, b, cv2.NORM_L1) / a.size for a, b in pairwise(crops))]
        ),
        contrast=contrast,
        brightness=_figures(one.mean() for one in small),
        clipped=_figures(_clipped(crop) for crop in crops),
        sharpness=np.asarray(details / np.maximum(contrast, 1), np.float32),
    )


def _figures(values: Iterable[Any]) -> Figures:
    return np.fromiter(values, np.float32)


def _reduced(image: NDArray[Any], side: int) -> Images:
    size = min(side, image.shape[1]), min(side, image.shape[0])
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.float32)


def _correlation(first: Images, second: Images) -> float:
    """Return the zero-mean normalised correlation; 0 where one of them is blank."""
    a, b = first - first.mean(), second - second.mean()
    norm = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / norm if norm > first.size else 0.0  # a gray level of contrast


def _covered(images: Images, template: Images) -> Figures:
    """Return the part of each image that no gain, offset and small motion bring to the template.

    A place counts where its gray level lies far from all that the other picture has around there,
    whichever of the two is looked for in the other: a smile moves what is there, a hand brings what
    was not there and hides what was.
    """
    stack = np.concatenate([images, template[None]])
    stack -= np.median(stack, axis=(1, 2), keepdims=True)
    # Of what is covered a part alone, the median knows nothing: the gain is that of the rest.
    spread = np.median(np.abs(stack), axis=(1, 2), keepdims=True)
    stack *= spread[-1] / np.maximum(spread, 1.0)
    far = _FAR * template.std()
    *faces, template_face = stack
    return _figures(
        (np.maximum(_outside(one, template_face), _outside(template_face, one)) > far).mean()
        for one in faces
    )


def _outside(image: Images, other: Images) -> Images:
    """Return by how much each pixel lies outside of the other image's range around it."""
    around = np.ones((2 * _NEAR + 1, 2 * _NEAR + 1), np.uint8)
    least, most = cv2.erode(other, around), cv2.dilate(other, around)
    return np.maximum(np.maximum(least - image, image - most), 0)


def _clipped(crop: NDArray[np.uint8]) -> float:
    told_apart = cv2.inRange(crop, _DARK + 1, _WHITE - 1)
    return 1 - cv2.countNonZero(told_apart) / crop.size


def _detail(small: Images, coarse: Images) -> float:
    """Return the standard deviation of what the reduction to half the size takes away."""
    return float((small - cv2.resize(coarse, small.shape[::-1])).std())


@dataclass(frozen=True, slots=True)
class PairQuality:
    """Figures of the pair of frames between which most moves: `ClipQuality` has their units.

    Attributes
    ----------
    motion, head_motion, inconsistency : float
    repeatability : -1 to 1
        Correlation of what changes between the two frames with what changes between others next
        to them: noise does not come twice. 1 where there are no such frames to compare.
    """

    motion: float = math.nan
    head_motion: float = math.nan
    inconsistency: float = math.nan
    repeatability: float = 1.0


def pair_quality(
    plan: ClipPlan, aligned: Aligned, flow: Mapping[str, NDArray[np.float32]], *, filmed: Aligned
) -> PairQuality:
    """Return the figures of the largest flow; of a recipe without windows NaN.

    ``aligned`` has the frames that the flow is of, ``filmed`` those before they were magnified.
    """
    pairs = [
        (pair, vectors[:, ::_STRIDE, ::_STRIDE])
        for window, values in flow.items()
        for pair, vectors in zip(
            plan.pairs[window], values.reshape(-1, *values.shape[-3:]), strict=True
        )
    ]
    if not pairs:
        return PairQuality()
    lengths = [float(np.percentile(np.hypot(*vectors), 95)) for _, vectors in pairs]
    largest = int(np.argmax(lengths))
    (first, second), vectors = pairs[largest]
    back = _quick_flow(aligned.crop(second), aligned.crop(first))
    there = np.moveaxis(vectors, 0, -1)
    places = np.stack(np.meshgrid(*(np.arange(n) for n in vectors.shape[:0:-1])), -1) * _STRIDE
    ends = (places + there).astype(np.float32)
    returned = there + cv2.remap(
        back, ends, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return PairQuality(
        motion=lengths[largest],
        head_motion=float(np.hypot(*np.median(vectors, axis=(1, 2)))),
        inconsistency=float(np.median(np.hypot(*np.moveaxis(returned, -1, 0)))),
        repeatability=_repeatability(filmed, first, second),
    )


def _repeatability(aligned: Aligned, first: int, second: int) -> float:
    """Compare the change from frame to frame in every other frame around with that in the rest."""
    near = max(1, abs(second - first) // _NEAR_PART)
    before, after = (
        [n for n in aligned.numbers if abs(n - number) <= near] for number in (first, second)
    )
    if len(before) < 2 or len(after) < 2 or set(before) & set(after):
        return 1.0

    def mean(numbers: list[int]) -> Images:
        faces = (_reduced(aligned.crop(number), _SIDE) for number in numbers)
        levelled = [(face - face.mean()) / max(float(face.std()), 1.0) for face in faces]
        return np.asarray(np.mean(levelled, axis=0), np.float32)

    one, other = (mean(after[k::2]) - mean(before[k::2]) for k in (0, 1))
    norm = float(np.sqrt((one * one).sum() * (other * other).sum()))
    return float((one * other).sum()) / norm if norm > 0 else 0.0


_SMALLEST_SIDE = 16  # px
_STRIDE = 4  # px between the places of a flow that are looked at


def _quick_flow(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the flow (H, W, 2) between two crops by a method that is not the recipe's.

    Kroeger et al. 2016, "Fast Optical Flow using Dense Inverse Search",
    doi:10.1007/978-3-319-46493-0_29.
    """
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    method.setFinestScale(0)
    height, width = first.shape
    half = max(width // 2, _SMALLEST_SIDE), max(height // 2, _SMALLEST_SIDE)
    reduced = (cv2.resize(one, half, interpolation=cv2.INTER_AREA) for one in (first, second))
    flow = cv2.resize(method.calc(*reduced, None), (width, height))
    return np.asarray(flow * [width / half[0], height / half[1]], np.float32)


def judge_clip(
    plan: ClipPlan,
    located: LocatedFace,
    aligned: Aligned,
    magnified: Magnified,
    flow: Mapping[str, NDArray[np.float32]],
    *,
    wanted: int,
) -> ClipQuality:
    """Return the figures and flags of a clip.

    Frames are judged as they were filmed, the flow beside the frames that it is of, and its
    lengths, for flags, as they were before they were enlarged. ``wanted`` is the template frame
    as planned, before a face was looked for.

    Raises
    ------
    ClipError
        When a frame that flow leads from or to certainly shows no face, or most frames do.
    """
    frames = frame_quality(aligned.crops, aligned.numbers.index(plan.template))
    _refuse_without_face(plan, aligned.numbers, frames)
    pair = pair_quality(plan, magnified.aligned, flow, filmed=aligned)
    as_filmed = replace(
        pair,
        motion=magnified.found.get("motion", pair.motion),
        head_motion=pair.head_motion / magnified.times,
        inconsistency=pair.inconsistency / magnified.times,
    )
    flags = (
        *tracking_flags(plan, located, aligned, frames, wanted=wanted),
        *_motion_flags(frames, as_filmed),
        *magnified.flags,
        *apex_flags(plan.apex_confidence),
    )
    return ClipQuality(frames, pair.motion, pair.head_motion, pair.inconsistency, flags)


def tracking_flags(
    plan: ClipPlan, located: LocatedFace, aligned: Aligned, frames: FrameQuality, *, wanted: int
) -> tuple[Flag, ...]:
    """Return the flags that need no flow: of the face, of its tracking, of the frames."""
    return (*_face_flags(plan, located, wanted), *_frame_flags(aligned, frames))


def shows_face(frames: FrameQuality) -> NDArray[np.bool_]:
    """Say of each frame whether it shows the face that is in the template frame."""
    return ~(_blank(frames) | _lost(frames, _LOST))


def _refuse_without_face(plan: ClipPlan, numbers: tuple[int, ...], frames: FrameQuality) -> None:
    blank, lost = _blank(frames), _lost(frames, _CERTAINLY_LOST)
    without = {numbers[i] for i in np.flatnonzero(blank | lost)}
    if 2 * len(without) > len(numbers):
        raise ClipError(
            f"{len(without)} of {len(numbers)} frames show no face that is in the template frame "
            f"{plan.template} ({int(blank.sum())} of them are blank): look at the clip, and take a "
            f"template frame that shows the face of the others"
        )
    names = {number: name for name, number in plan.key_frames.items()}
    for first, second in {pair for pairs in plan.pairs.values() for pair in pairs}:
        for number in sorted({first, second} & without):
            i = numbers.index(number)
            seen = "is blank" if blank[i] else f"has correlation {frames.match[i]:.2f} with it"
            raise ClipError(
                f"{names.get(number, 'frame')} {number} shows no face: against the template frame "
                f"{plan.template} it {seen}; look at the frame, and correct the annotation"
            )


def _blank(frames: FrameQuality) -> NDArray[np.bool_]:
    usual = float(np.median(frames.contrast))
    return frames.contrast < max(_BLANK_CONTRAST, _BLANK_PART * usual)


def _lost(frames: FrameQuality, below: float) -> NDArray[np.bool_]:
    return (frames.match < below) & ~_blank(frames)


def _face_flags(plan: ClipPlan, located: LocatedFace, wanted: int) -> Iterator[Flag]:
    if plan.template != wanted:
        yield Flag("other-template", plan.template)
    if located.candidates > 1:
        yield Flag("several-faces", located.candidates)


def _frame_flags(aligned: Aligned, frames: FrameQuality) -> Iterator[Flag]:
    blank, lost, shown = _blank(frames), _lost(frames, _LOST), shows_face(frames)
    follows = ~blank & ~np.concatenate([[True], blank[:-1]])  # a picture after a picture
    counts = {
        "at-margin": (aligned.distance_to_margin <= 0) & ~blank,
        "blank-frame": blank,
        "lost-face": lost,
        "occluded": (frames.covered > _COVERED) & shown,
        "cut": (frames.similarity < _CUT) & follows,
        "dark": (frames.brightness < _DARK_MEAN) & ~blank,
        "saturated": (frames.clipped > _CLIPPED) & ~blank,
    }
    for name, which in counts.items():
        if found := int(which.sum()):
            yield Flag(name, found)
    repeated = int(((frames.step <= _SAME_STEP) & follows).sum())
    if repeated and repeated >= _REPEATED_PART * len(frames.step):
        yield Flag("repeated-frames", repeated)
    sharpness = frames.sharpness[shown]
    if sharpness.size:
        worst = float(sharpness.min() / max(float(np.median(sharpness)), _TINY))
        if worst < _BLURRED:
            yield Flag("blur", worst)


def _motion_flags(frames: FrameQuality, pair: PairQuality) -> Iterator[Flag]:
    noise_alone = _change(frames) < _UNCHANGED or pair.repeatability < _UNREPEATED
    if pair.motion < _STILL or (pair.motion < _NO_MOTION and noise_alone):
        yield Flag("no-motion", pair.motion)
    if pair.head_motion > _HEAD_MOTION:
        yield Flag("head-motion", pair.head_motion)
    if pair.inconsistency > _INCONSISTENT:
        yield Flag("inconsistent-flow", pair.inconsistency)


def _change(frames: FrameQuality) -> float:
    """Return how much more the frame least like the template differs than neighbours do.

    Where nothing but noise changes, all frames differ alike: 1. A few key frames are no
    neighbours, and what they differ by is no noise: infinite.
    """
    if len(frames.match) < _ENOUGH_FRAMES:
        return math.inf
    neighbours = 1 - float(np.median(frames.similarity[1:]))
    return (1 - float(frames.match.min()) + _NONE) / (neighbours + _NONE)


# The bounds, between the figures of sound clips and those of planted faults: docs/quality.md.
_BLANK_CONTRAST = 3.0  # gray levels
_BLANK_PART = 0.2  # of the clip's median contrast
_CERTAINLY_LOST = 0.35  # correlation with the template frame
_LOST = 0.7
_NEAR = 2  # px of 28: what an expression moves is found within that
_FAR = 0.75  # of the template's contrast
_COVERED = 0.04  # part of the face
_CUT = 0.85  # correlation with the frame before
_DARK_MEAN = 20.0  # gray levels
_CLIPPED = 0.3  # part of the face
_SAME_STEP = 0.02  # gray levels
_REPEATED_PART = 0.03
_BLURRED = 0.82  # of the clip's median sharpness
_STILL = 0.05  # px of the crop
_NO_MOTION = 0.8  # px of the crop
_NONE = 5e-5  # of correlation: less difference than this is none
_ENOUGH_FRAMES = 5  # to say what neighbours differ by
_UNCHANGED = 1.38  # of what neighbours differ by
_NEAR_PART = 6  # of the time between two frames: others within that are next to them
_UNREPEATED = 0.35  # correlation of what changes with what changes next to it
_HEAD_MOTION = 0.5  # px of the crop
_INCONSISTENT = 1.0  # px of the crop
_TINY = 1e-6
