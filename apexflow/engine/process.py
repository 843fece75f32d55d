"""One clip's way: frames in, aligned crops, flow and maps out. Plain functions, no scheduler."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow import kernels
from apexflow.catalog import Clip
from apexflow.engine.faces import Face, FaceDetector, make_detector
from apexflow.engine.frames import FrameSource, Image, open_frames
from apexflow.engine.recipe import MOMENTS, Recipe
from apexflow.errors import ClipError

STAGES = ("decode", "detect", "align", "flow", "encode", "store")
MIN_BOX_SIDE = 16

_INTERPOLATION = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos4": cv2.INTER_LANCZOS4,
}

Box = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """Which frames of a clip a recipe needs: everything known before a pixel is read."""

    numbers: tuple[int, ...]
    template: int
    moments: dict[str, int]
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Aligned:
    """Crops of one face held still.

    Attributes
    ----------
    numbers : tuple of int
        Frame numbers, ascending; n of them.
    crops : uint8 (n, height, width)
    shift : float32 (n, 2)
        (dx, dy) of the face against the template frame, in pixels of the original frame.
    score : float32 (n,)
        Zero-mean normalised cross-correlation with the template; 1 is equality.
    """

    numbers: tuple[int, ...]
    crops: Image
    shift: NDArray[np.float32]
    score: NDArray[np.float32]

    def crop(self, number: int) -> Image:
        """Return the (height, width) crop of one frame."""
        return self.crops[self.numbers.index(number)]


@dataclass(frozen=True, slots=True)
class ClipResult:
    """All that a recipe asks of one clip.

    Attributes
    ----------
    plan : ClipPlan
    face : Face
        As detected in the template frame.
    box : (x0, y0, x1, y1)
        The template in pixels of the template frame.
    aligned : Aligned
    files : tuple of str
        The image file of each frame in ``aligned``.
    flow : dict of window to float32 (2, height, width)
        Horizontal and vertical displacement in pixels of the crop.
    maps : dict of name to uint8 (height, width, 3)
    seconds : dict of stage to float
    """

    plan: ClipPlan
    face: Face
    box: Box
    aligned: Aligned
    files: tuple[str, ...]
    flow: dict[str, NDArray[np.float32]]
    maps: dict[str, NDArray[np.uint8]]
    seconds: dict[str, float]


def process_clip(clip: Clip, recipe: Recipe, *, detector: FaceDetector | None = None) -> ClipResult:
    """Take one clip from its frames to flow and maps.

    ``detector`` replaces the one that the recipe names. Raises `ClipError` with the reason
    when the clip cannot be used: frames missing or unreadable, annotation out of order, no
    face, a frame of another size.
    """
    clock = _Clock()
    source, plan = plan_clip(clip, recipe)
    color = recipe.alignment.color
    with clock("decode"):
        (template_frame,) = source.read([plan.template], color=color)
    with clock("detect"):
        face = (detector or make_detector(recipe.face)).detect(template_frame)
        box = _box_in_frame(face, template_frame)
    aligned = _align(source, plan, recipe, template_frame, box, clock)
    with clock("flow"):
        flow = {window: _window_flow(window, aligned, plan, recipe) for window in recipe.windows}
    with clock("encode"):
        maps = {
            name: kernels.encode_hsv(np.moveaxis(flow[wanted.window], 0, -1), size=wanted.size)
            for name, wanted in recipe.maps.items()
        }
    files = tuple(source.file_name(number) for number in aligned.numbers)
    return ClipResult(plan, face, box, aligned, files, flow, maps, clock.seconds)


def plan_clip(clip: Clip, recipe: Recipe) -> tuple[FrameSource, ClipPlan]:
    """Check a clip's annotation against its frames on disk and choose the frames to read."""
    moments = _moments(clip, recipe)
    source = open_frames(clip)
    there = set(source.numbers)
    for moment, number in moments.items():
        if number not in there:
            raise ClipError(
                f"{moment} frame {number} is not on disk: {clip.path} holds frames "
                f"{source.numbers[0]} to {source.numbers[-1]}"
            )
    numbers = _chosen(source.numbers, clip, recipe)
    template = _template_number(numbers, moments, clip, recipe)
    if recipe.frames.which == "windows":
        numbers = tuple(sorted({template, *moments.values()}))
    if len(numbers) < 2:
        raise ClipError(f"{clip.path} holds {len(numbers)} frame of the clip; motion needs two")
    stamp = [clip.key, clip.source, clip.onset, clip.apex, clip.offset, source.fingerprint(numbers)]
    fingerprint = hashlib.sha256(json.dumps(stamp).encode()).hexdigest()
    return source, ClipPlan(numbers, template, moments, fingerprint)


def _moments(clip: Clip, recipe: Recipe) -> dict[str, int]:
    """Return the frame numbers of the moments that the recipe's windows name."""
    onset, apex, offset = clip.onset, clip.apex, clip.offset
    if onset is not None and apex is not None and apex < onset:
        raise ClipError(f"apex {apex} lies before onset {onset}; correct the annotation")
    if apex is not None and offset is not None and apex > offset:
        raise ClipError(f"apex {apex} lies after offset {offset}; correct the annotation")
    if onset is not None and offset is not None and offset < onset:
        raise ClipError(f"offset {offset} lies before onset {onset}; correct the annotation")
    annotated = dict(zip(MOMENTS, (onset, apex, offset), strict=True))
    moments = {}
    for moment in dict.fromkeys(m for window in recipe.windows for m in window.split("-")):
        number = annotated[moment]
        if number is None:
            raise ClipError(f"no {moment} is annotated, and the recipe's windows need it")
        moments[moment] = number
    return moments


def _chosen(there: tuple[int, ...], clip: Clip, recipe: Recipe) -> tuple[int, ...]:
    if recipe.frames.which == "all":
        return there
    first = there[0] if clip.onset is None else clip.onset
    last = there[-1] if clip.offset is None else clip.offset
    return tuple(number for number in there if first <= number <= last)


def _template_number(
    numbers: tuple[int, ...], moments: dict[str, int], clip: Clip, recipe: Recipe
) -> int:
    wanted = recipe.face.template_frame
    if wanted == "first":
        return numbers[0]
    if wanted == "middle":
        return numbers[len(numbers) // 2]
    number = clip.onset if wanted == "onset" else clip.apex
    if number is None or number not in numbers:
        raise ClipError(f"the recipe's template frame is the {wanted}, frame {number}: not there")
    return number


def _box_in_frame(face: Face, frame: Image) -> Box:
    """Truncate the face's box to whole pixels, as the published SAMM workflow does."""
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = (int(value) for value in face.box)
    box = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if box[2] - box[0] < MIN_BOX_SIDE or box[3] - box[1] < MIN_BOX_SIDE:
        raise ClipError(
            f"the face's box {box} is smaller than {MIN_BOX_SIDE} px in a {width}x{height} frame"
        )
    return box


def _align(
    source: FrameSource,
    plan: ClipPlan,
    recipe: Recipe,
    template_frame: Image,
    box: Box,
    clock: _Clock,
) -> Aligned:
    """Find the template in every frame and cut the crops, one frame in memory at a time."""
    x0, y0, x1, y1 = box
    search = _Search(template_frame, box, recipe)
    count = len(plan.numbers)
    crops = np.empty((count, recipe.crop.height, recipe.crop.width), np.uint8)
    shift = np.zeros((count, 2), np.float32)
    score = np.ones(count, np.float32)
    others = [number for number in plan.numbers if number != plan.template]
    frames = source.read(others, color=recipe.alignment.color)
    for i, number in enumerate(plan.numbers):
        with clock("decode"):
            frame = template_frame if number == plan.template else next(frames)
        if frame.shape != template_frame.shape:
            raise ClipError(
                f"frame {number} is {_size(frame)}, the template frame "
                f"{plan.template} {_size(template_frame)}: one size is needed"
            )
        with clock("align"):
            if number != plan.template:
                dx, dy, score[i] = search.find(frame)
                shift[i] = dx, dy
            dx, dy = int(shift[i, 0]), int(shift[i, 1])
            crops[i] = _cut(frame[y0 + dy : y1 + dy, x0 + dx : x1 + dx], recipe)
    return Aligned(plan.numbers, crops, shift, score)


class _Search:
    """The template of one clip, looked for around its own place in each frame."""

    def __init__(self, template_frame: Image, box: Box, recipe: Recipe) -> None:
        x0, y0, x1, y1 = box
        height, width = template_frame.shape[:2]
        margin = recipe.alignment.margin if recipe.alignment.method == "integer" else 0
        self._region = (
            slice(max(y0 - margin, 0), min(y1 + margin, height)),
            slice(max(x0 - margin, 0), min(x1 + margin, width)),
        )
        self._origin = x0 - self._region[1].start, y0 - self._region[0].start
        self._matcher = kernels.TemplateMatcher(template_frame[y0:y1, x0:x1])

    def find(self, frame: Image) -> tuple[int, int, float]:
        """Return (dx, dy, score) of the template in this frame."""
        match = self._matcher.match(frame[self._region])
        return match.x - self._origin[0], match.y - self._origin[1], match.score


def _cut(face: Image, recipe: Recipe) -> Image:
    crop = recipe.crop
    size = crop.width, crop.height
    resized = cv2.resize(face, size, interpolation=_INTERPOLATION[crop.interpolation])
    return resized if resized.ndim == 2 else cv2.cvtColor(resized, cv2.COLOR_BGR2GRAY)


def _window_flow(
    window: str, aligned: Aligned, plan: ClipPlan, recipe: Recipe
) -> NDArray[np.float32]:
    first, second = (aligned.crop(plan.moments[moment]) for moment in window.split("-"))
    flow = kernels.farneback(first, second, **asdict(recipe.flow.farneback))
    return np.ascontiguousarray(np.moveaxis(flow, -1, 0))


def _size(image: Image) -> str:
    return "x".join(map(str, (image.shape[1], image.shape[0], *image.shape[2:])))


@dataclass(slots=True)
class _Clock:
    """Seconds spent per stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - start
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
