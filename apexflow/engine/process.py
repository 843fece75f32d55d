"""One clip's way: frames in, aligned crops, flow and maps out. Plain functions, no scheduler."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from apexflow.catalog import Clip
from apexflow.engine.align import Aligner, Box, Pose
from apexflow.engine.faces import Face, FaceDetector, make_detector
from apexflow.engine.flow import Vectors, flows_between, stacked
from apexflow.engine.frames import FrameSource, Image, open_frames
from apexflow.engine.recipe import MOMENTS, Crop, Map, Recipe
from apexflow.engine.regions import Box as RegionBox
from apexflow.engine.regions import cut_flow, in_crop, own_boxes, place_regions
from apexflow.engine.windows import Step, Window
from apexflow.errors import ClipError
from apexflow.kernels.encode import make_maps

STAGES = ("decode", "detect", "align", "flow", "encode", "store")
MIN_BOX_SIDE = 16
CPU = "cpu"
ESTIMATES = ("difference", "flow")
"""The values of `Clip.apex_source` that ask for an estimate."""


@dataclass(frozen=True, slots=True)
class ClipPlan:
    """Which frames of a clip a recipe needs: everything known before a pixel is read.

    Attributes
    ----------
    numbers : tuple of int
        The frames to decode, ascending.
    template : int
    moments : dict of "onset", "apex", "offset" to int
        As far as they are known.
    interval : tuple of int
        The clip's frames on disk from onset to offset.
    apex_source : str
        How the apex is known, as in `Clip`; empty when it is not.
    steps : dict of window to tuple of (from, to)
        Empty until the apex is estimated, where that has to come first.
    fingerprint : str
    """

    numbers: tuple[int, ...]
    template: int
    moments: Mapping[str, int]
    interval: tuple[int, ...]
    apex_source: str
    steps: Mapping[str, tuple[Step, ...]]
    fingerprint: str

    @property
    def apex_pending(self) -> bool:
        """Whether the apex is to be estimated from the aligned crops."""
        return self.apex_source in ESTIMATES and "apex" not in self.moments


@dataclass(frozen=True, slots=True)
class Place:
    """Where the face and its regions are in the template frame.

    Attributes
    ----------
    face : Face
    box : (x0, y0, x1, y1)
        The template, in whole pixels.
    regions : tuple of (x0, y0, x1, y1)
        The box of each region that the recipe places.
    """

    face: Face
    box: Box
    regions: tuple[RegionBox, ...]


@dataclass(frozen=True, slots=True)
class Aligned:
    """Crops of one face held still.

    Attributes
    ----------
    numbers : tuple of int
        Frame numbers, ascending; n of them.
    crops : uint8 (n, height, width)
    shift : float32 (n, 2)
        (dx, dy) of the middle of the face's box against the template frame, in pixels of the
        original frame.
    rotation, scale : float32 (n,)
        About that point, in degrees clockwise as seen, and as a factor.
    score : float32 (n,)
        Zero-mean normalised cross-correlation with the template; 1 is equality.
    regions : uint8 (n, region, height, width), or None
        Each region enlarged from the original frame, where a recipe asks for its own flow.
    """

    numbers: tuple[int, ...]
    crops: Image
    shift: NDArray[np.float32]
    rotation: NDArray[np.float32]
    scale: NDArray[np.float32]
    score: NDArray[np.float32]
    regions: Image | None = None

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
    regions : tuple of (x0, y0, x1, y1)
        The box of each region that the recipe places, in pixels of the template frame.
    aligned : Aligned
    files : tuple of str
        The image file of each frame in ``aligned``.
    flow : dict of window to float32 ([step,] 2, height, width)
        Horizontal and vertical displacement in pixels of the crop, rounded to the recipe's
        dtype. Windows of one step have no step axis.
    roi : dict of window to float32 ([step,] region, 2, height, width)
        The same of each region: cut from the flow, or in pixels of the enlarged region.
    maps : dict of name to uint8 ([step,] [region,] height, width, 3)
    seconds : dict of stage to float
    device, face_device, decode_device : str
        What computed it, found the face, and decoded the frames: "cpu", or the name of a card.
    """

    plan: ClipPlan
    face: Face
    box: Box
    regions: tuple[RegionBox, ...]
    aligned: Aligned
    files: tuple[str, ...]
    flow: dict[str, NDArray[np.float32]]
    roi: dict[str, NDArray[np.float32]]
    maps: dict[str, NDArray[np.uint8]]
    seconds: dict[str, float]
    device: str = CPU
    face_device: str = CPU
    decode_device: str = CPU


def process_clip(clip: Clip, recipe: Recipe, *, detector: FaceDetector | None = None) -> ClipResult:
    """Take one clip from its frames to flow and maps.

    ``detector`` replaces the one that the recipe names. Raises `ClipError` with the reason
    when the clip cannot be used: frames missing or unreadable, annotation out of order, no
    face, a frame of another size.
    """
    clock = Clock()
    source, plan = plan_clip(clip, recipe)
    with clock("decode"):
        template_frame = read_template(source, plan, recipe)
    with clock("detect"):
        face = (detector or make_detector(recipe.face)).detect(template_frame)
        place = locate(clip, recipe, template_frame, face)
    aligned = _align(source, plan, recipe, template_frame, place, clock)
    with clock("flow"):
        plan = with_apex(plan, aligned, recipe)
        flow, roi = make_all_flow(plan, recipe, aligned, place)
    with clock("encode"):
        maps = make_all_maps(recipe, place, flow, roi)
    files = file_names(source, plan)
    box, regions = place.box, place.regions
    return ClipResult(plan, face, box, regions, aligned, files, flow, roi, maps, clock.seconds)


def plan_clip(clip: Clip, recipe: Recipe) -> tuple[FrameSource, ClipPlan]:
    """Check a clip's annotation against its frames on disk and choose the frames to read."""
    windows = [Window.parse(name) for name in recipe.windows]
    moments = _moments(clip)
    pending = "apex" not in moments and clip.apex_source in ESTIMATES
    needed = dict.fromkeys(moment for window in windows for moment in window.moments)
    for moment in needed:
        if moment not in moments and not (moment == "apex" and pending):
            raise ClipError(f"no {moment} is annotated, and the recipe's windows need it")
    source = open_frames(clip)
    there = set(source.numbers)
    for moment in needed:
        if moment in moments and moments[moment] not in there:
            raise ClipError(
                f"{moment} frame {moments[moment]} is not on disk: {clip.path} holds frames "
                f"{source.numbers[0]} to {source.numbers[-1]}"
            )
    interval = _interval(source.numbers, moments)
    numbers = source.numbers if recipe.frames.which == "all" else interval
    template = _template_number(numbers, moments, recipe)
    wait = pending and "apex" in needed
    steps = {} if wait else _steps(windows, moments, interval)
    if recipe.frames.which == "windows" and not wait:
        ends = {number for pairs in steps.values() for pair in pairs for number in pair}
        numbers = tuple(sorted({template, *ends}))
    if len(numbers) < 2:
        raise ClipError(f"{clip.path} holds {len(numbers)} frame of the clip; motion needs two")
    stamp = [clip.key, clip.source, clip.onset, clip.apex, clip.offset, source.fingerprint(numbers)]
    if wait:
        stamp.append(clip.apex_source)
    fingerprint = hashlib.sha256(json.dumps(stamp).encode()).hexdigest()
    known = clip.apex_source if wait or "apex" in moments else ""
    return source, ClipPlan(numbers, template, moments, interval, known, steps, fingerprint)


def with_apex(plan: ClipPlan, aligned: Aligned, recipe: Recipe) -> ClipPlan:
    """Return the plan with the apex estimated from the crops, where the plan waits for it."""
    if not plan.apex_pending:
        return plan
    from apexflow.engine.apex import estimate_apex

    rows = [aligned.numbers.index(number) for number in plan.interval]
    method: Literal["flow", "difference"] = "flow" if plan.apex_source == "flow" else "difference"
    apex = plan.interval[estimate_apex(aligned.crops[rows], method=method)]
    moments = {**plan.moments, "apex": apex}
    windows = [Window.parse(name) for name in recipe.windows]
    return replace(plan, moments=moments, steps=_steps(windows, moments, plan.interval))


def make_map(
    wanted: Map,
    flow: NDArray[np.float32],
    boxes: Mapping[str, RegionBox] = MappingProxyType({}),
) -> NDArray[np.uint8]:
    """Return the maps that a recipe's table asks for, of flow (…, 2, height, width).

    ``boxes`` gives the regions in pixels of the flow, for maps without head motion or eyes.
    """
    return make_maps(
        flow,
        wanted.encoding,
        size=wanted.size,
        head=boxes["nose"] if wanted.remove_head else None,
        mask=boxes["eyes"] if wanted.mask_eyes else None,
        options=wanted.options,
    )


def _moments(clip: Clip) -> dict[str, int]:
    """Return the moments that are annotated; they must be in order."""
    onset, apex, offset = clip.onset, clip.apex, clip.offset
    if onset is not None and apex is not None and apex < onset:
        raise ClipError(f"apex {apex} lies before onset {onset}; correct the annotation")
    if apex is not None and offset is not None and apex > offset:
        raise ClipError(f"apex {apex} lies after offset {offset}; correct the annotation")
    if onset is not None and offset is not None and offset < onset:
        raise ClipError(f"offset {offset} lies before onset {onset}; correct the annotation")
    annotated = zip(MOMENTS, (onset, apex, offset), strict=True)
    return {name: number for name, number in annotated if number is not None}


def _interval(there: tuple[int, ...], moments: Mapping[str, int]) -> tuple[int, ...]:
    first, last = moments.get("onset", there[0]), moments.get("offset", there[-1])
    inside = tuple(number for number in there if first <= number <= last)
    if not inside:
        raise ClipError(
            f"no frame from {first} to {last} is on disk, only {there[0]} to {there[-1]}"
        )
    return inside


def _steps(
    windows: list[Window], moments: Mapping[str, int], interval: tuple[int, ...]
) -> dict[str, tuple[Step, ...]]:
    return {window.name: window.steps(moments, interval) for window in windows}


def _template_number(numbers: tuple[int, ...], moments: Mapping[str, int], recipe: Recipe) -> int:
    wanted = recipe.face.template_frame
    if wanted == "first":
        return numbers[0]
    if wanted == "middle":
        return numbers[len(numbers) // 2]
    number = moments.get(wanted)
    if number is None or number not in numbers:
        raise ClipError(f"the recipe's template frame is the {wanted}, frame {number}: not there")
    return number


def box_in_frame(face: Face, frame: Image) -> Box:
    """Truncate the face's box to whole pixels, as the published SAMM workflow does."""
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = (int(value) for value in face.box)
    box = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if box[2] - box[0] < MIN_BOX_SIDE or box[3] - box[1] < MIN_BOX_SIDE:
        raise ClipError(
            f"the face's box {box} is smaller than {MIN_BOX_SIDE} px in a {width}x{height} frame"
        )
    return box


def locate(clip: Clip, recipe: Recipe, template_frame: Image, face: Face) -> Place:
    """Return the box and the regions that belong to a face.

    Raises `ClipError` when the face is too small.
    """
    box = box_in_frame(face, template_frame)
    options = recipe.regions
    regions = place_regions(
        options.placed,
        box,
        face.landmarks if options.placement == "landmarks" else (),
        padding=options.padding,
        fractions=options.fraction_of,
        own=own_boxes(options.boxes, clip.key),
    )
    return Place(face, box, regions)


def read_template(source: FrameSource, plan: ClipPlan, recipe: Recipe) -> Image:
    """Decode the template frame as the recipe wants frames: gray or in colour."""
    (frame,) = source.read([plan.template], color=recipe.alignment.color)
    return frame


def read_frames(
    source: FrameSource, plan: ClipPlan, recipe: Recipe, template_frame: Image, clock: Clock
) -> Iterator[Image]:
    """Yield the plan's frames one by one, the template frame in its place.

    Raises `ClipError` for a frame of another size.
    """
    others = [number for number in plan.numbers if number != plan.template]
    frames = source.read(others, color=recipe.alignment.color)
    for number in plan.numbers:
        with clock("decode"):
            frame = template_frame if number == plan.template else next(frames)
        if frame.shape != template_frame.shape:
            raise ClipError(
                f"frame {number} is {_size(frame)}, the template frame "
                f"{plan.template} {_size(template_frame)}: one size is needed"
            )
        yield frame


def file_names(source: FrameSource, plan: ClipPlan) -> tuple[str, ...]:
    """Return the name of the image file of each frame."""
    return tuple(source.file_name(number) for number in plan.numbers)


def make_all_flow(
    plan: ClipPlan, recipe: Recipe, aligned: Aligned, place: Place
) -> tuple[dict[str, Vectors], dict[str, Vectors]]:
    """Return the flow of each window, of the face and of the regions, as in `ClipResult`."""
    flow = _flows(plan, recipe, aligned.crop, (recipe.crop.height, recipe.crop.width))
    return flow, _region_flows(plan, recipe, flow, aligned, place)


def make_all_maps(
    recipe: Recipe,
    place: Place,
    flow: Mapping[str, Vectors],
    roi: Mapping[str, Vectors],
) -> dict[str, NDArray[np.uint8]]:
    """Return every set of maps that a recipe asks for."""
    boxes = map_boxes(recipe, place)
    return {
        name: make_map(wanted, (roi if wanted.regions else flow)[wanted.window], boxes)
        for name, wanted in recipe.maps.items()
    }


def map_boxes(recipe: Recipe, place: Place) -> dict[str, RegionBox]:
    """Return the regions by name in pixels of the crop."""
    in_pixels = _in_crop(place.regions, place.box, recipe)
    return dict(zip(recipe.regions.placed, in_pixels, strict=True))


def _align(
    source: FrameSource,
    plan: ClipPlan,
    recipe: Recipe,
    template_frame: Image,
    place: Place,
    clock: Clock,
) -> Aligned:
    """Find the template in every frame and cut the crops, one frame in memory at a time."""
    aligner = Aligner(template_frame, place.box, recipe.alignment)
    count = len(plan.numbers)
    crops = np.empty((count, recipe.crop.height, recipe.crop.width), np.uint8)
    poses = np.empty((count, 5), np.float32)
    enlarged = _Enlarged.of(recipe, place.regions, count)
    frames = read_frames(source, plan, recipe, template_frame, clock)
    for i, (number, frame) in enumerate(zip(plan.numbers, frames, strict=True)):
        with clock("align"):
            pose = Pose() if number == plan.template else aligner.find(frame)
            poses[i] = pose.dx, pose.dy, pose.rotation, pose.scale, pose.score
            crops[i] = aligner.cut(frame, place.box, pose, recipe.crop)
            if enlarged is not None:
                enlarged.add(i, frame, aligner, pose)
    images = None if enlarged is None else enlarged.images
    return aligned_by(plan.numbers, poses, crops, images)


def aligned_by(
    numbers: tuple[int, ...], poses: NDArray[np.float32], crops: Image, regions: Image | None
) -> Aligned:
    """Return crops with their poses (n, 5): dx, dy, rotation, scale, score."""
    return Aligned(
        numbers,
        crops,
        shift=poses[:, :2],
        rotation=poses[:, 2],
        scale=poses[:, 3],
        score=poses[:, 4],
        regions=regions,
    )


def region_crop(recipe: Recipe) -> Crop | None:
    """Return the size of regions that are enlarged from the frames; None where none are."""
    options = recipe.regions
    if options.source != "frames" or not options.names or not recipe.windows:
        return None
    return Crop(height=options.height, width=options.width, interpolation=recipe.crop.interpolation)


@dataclass(frozen=True, slots=True)
class _Enlarged:
    """The regions of each frame, cut from its own pixels."""

    boxes: tuple[RegionBox, ...]
    crop: Crop
    images: Image

    @classmethod
    def of(cls, recipe: Recipe, regions: tuple[RegionBox, ...], count: int) -> _Enlarged | None:
        crop = region_crop(recipe)
        if crop is None:
            return None
        boxes = regions[: len(recipe.regions.names)]
        images = np.empty((count, len(boxes), crop.height, crop.width), np.uint8)
        return cls(boxes, crop, images)

    def add(self, row: int, frame: Image, aligner: Aligner, pose: Pose) -> None:
        for image, region in zip(self.images[row], self.boxes, strict=True):
            image[:] = aligner.cut(frame, region, pose, self.crop)


def _flows(
    plan: ClipPlan, recipe: Recipe, image: Callable[[int], Image], size: tuple[int, int]
) -> dict[str, Vectors]:
    every = (step for steps in plan.steps.values() for step in steps)
    flows = flows_between(every, image, recipe.flow)
    return {
        name: stacked(steps, flows, fixed=Window.parse(name).count, size=size)
        for name, steps in plan.steps.items()
    }


def _region_flows(
    plan: ClipPlan,
    recipe: Recipe,
    flow: Mapping[str, Vectors],
    aligned: Aligned,
    place: Place,
) -> dict[str, Vectors]:
    size = recipe.regions.height, recipe.regions.width
    if not recipe.regions.names:
        return {}
    if aligned.regions is not None:
        rows = {number: i for i, number in enumerate(aligned.numbers)}
        by_region = np.moveaxis(aligned.regions, 1, 0)
        each = [_flows(plan, recipe, partial(_row_of, images, rows), size) for images in by_region]
        return {name: np.stack([one[name] for one in each], axis=-4) for name in plan.steps}
    return cut_regions(recipe, place, flow)


def cut_regions(recipe: Recipe, place: Place, flow: Mapping[str, Vectors]) -> dict[str, Vectors]:
    """Return the flow of each region, cut from that of the face."""
    options = recipe.regions
    boxes = _in_crop(place.regions[: len(options.names)], place.box, recipe)
    cut_out = {}
    for name, vectors in flow.items():
        pairs = vectors.reshape(-1, *vectors.shape[-3:])
        parts = cut_flow(pairs, boxes, (options.height, options.width))
        stored = parts.astype(recipe.flow.dtype).astype(np.float32)
        cut_out[name] = stored.reshape(*vectors.shape[:-3], *parts.shape[1:])
    return cut_out


def _row_of(images: Image, rows: Mapping[int, int], number: int) -> Image:
    return images[rows[number]]


def _in_crop(regions: tuple[RegionBox, ...], box: Box, recipe: Recipe) -> tuple[RegionBox, ...]:
    return in_crop(regions, box, (recipe.crop.height, recipe.crop.width))


def _size(image: Image) -> str:
    return "x".join(map(str, (image.shape[1], image.shape[0], *image.shape[2:])))


@dataclass(slots=True)
class Clock:
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
