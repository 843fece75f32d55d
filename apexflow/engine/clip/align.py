"""Registering every frame to the template frame: where the face is in each, and the crop there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from apexflow import kernels
from apexflow.datasets.sources import Image
from apexflow.engine.clip.backend import Array, Backend
from apexflow.engine.clip.faces import Box, LocatedFace
from apexflow.engine.clip.frames import ClipFrames
from apexflow.engine.clip.result import Aligned
from apexflow.engine.regions import RegionBox
from apexflow.kernels.crop import resize_crops, to_gray, warp_crops
from apexflow.kernels.crop.geometry import extent, reach
from apexflow.kernels.gpu import is_device_array, to_host

if TYPE_CHECKING:
    from apexflow.engine.recipe import Alignment, Crop, Recipe

Matrix = NDArray[np.float64]

# Beside what the kernels reckon for themselves, in frames: the frame, its parts, gray ones.
_COPIES_OF_A_FRAME = 4
# Beyond the search region, in parts of the box's longer side: what the corners of a box move
# that is turned by 4 degrees, or enlarged by 7%.
_TILT = 0.035


class BeyondPartError(Exception):
    """A crop needs pixels beyond the part of the frames that a backend was given."""


@dataclass(frozen=True, slots=True)
class Pose:
    """Where the face is in a frame, against the template frame.

    Attributes
    ----------
    dx, dy : float
        Shift of the middle of the box in pixels of the frame.
    score : float
        Zero-mean normalised cross-correlation with the template at the best whole shift.
    rotation : float
        About the middle of the box, in degrees, clockwise as seen.
    scale : float
    """

    dx: float = 0.0
    dy: float = 0.0
    score: float = 1.0
    rotation: float = 0.0
    scale: float = 1.0


def align_frames(
    frames: ClipFrames, located: LocatedFace, recipe: Recipe, backend: Backend
) -> Aligned:
    """Find the face in every frame of a clip and cut the crops, a batch of frames at a time.

    Raises
    ------
    ClipError
        When a frame cannot be decoded or has another size.
    BeyondPartError
        When a face is turned or moved so far that its crop needs pixels that were cut off.
    """
    plan = frames.plan
    part = needed_part(located.box, frames.size, recipe)
    pixels = backend.pixels(frames, part)
    (template_frame,) = pixels.read([plan.template])
    aligner = Aligner(
        template_frame, located.box, recipe.alignment, origin=pixels.origin, frame_size=frames.size
    )
    region_crop = _region_crop(recipe)
    region_boxes = located.regions[: len(recipe.regions.names)]

    def align_batch(rows: slice) -> tuple[list[Pose], Image, Image | None]:
        numbers = plan.numbers[rows]
        stack = pixels.read(numbers)
        poses = [Pose()] if numbers == (plan.template,) else aligner.find(stack)
        if plan.template in numbers:
            poses[numbers.index(plan.template)] = Pose()
        crops = aligner.cut(stack, poses, [located.box], recipe.crop)[:, 0]
        if region_crop is None:
            return poses, to_host(crops), None
        enlarged = aligner.cut(stack, poses, region_boxes, region_crop)
        return poses, to_host(crops), to_host(enlarged)

    each = _COPIES_OF_A_FRAME * template_frame.nbytes
    batches = backend.batches(align_batch, len(plan.numbers), each)
    poses = [pose for found, _, _ in batches for pose in found]
    regions = [enlarged for _, _, enlarged in batches if enlarged is not None]
    return Aligned(
        plan.numbers,
        np.concatenate([crops for _, crops, _ in batches]),
        shift=np.array([(pose.dx, pose.dy) for pose in poses], np.float32),
        rotation=np.array([pose.rotation for pose in poses], np.float32),
        scale=np.array([pose.scale for pose in poses], np.float32),
        score=np.array([pose.score for pose in poses], np.float32),
        regions=np.concatenate(regions) if regions else None,
        decode_device=pixels.decode_device,
    )


class Aligner:
    """The template of one clip: looked for around its own place in frames, and cut out of them.

    Frames and crops are a backend's arrays: the kernels compute where the template frame is.

    Parameters
    ----------
    template_frame : (h, w) or (h, w, 3) uint8
        The frame, or the part of it that all frames are given as.
    box : (x0, y0, x1, y1)
        The template in pixels of the whole frame; at least 16x16.
    recipe : Alignment
    origin : (x, y)
        Where the part lies in the frame.
    frame_size : (height, width), optional
        Of the whole frame; that of ``template_frame`` when not given.
    """

    def __init__(
        self,
        template_frame: Array,
        box: Box,
        recipe: Alignment,
        *,
        origin: tuple[int, int] = (0, 0),
        frame_size: tuple[int, int] | None = None,
    ) -> None:
        self._origin = left, top = origin
        self._frame_size = frame_size or template_frame.shape[:2]
        rows, columns = search_region(box, self._frame_size, recipe)
        # The search region in the part, and the template's own place in that.
        self._region = (
            slice(rows.start - top, rows.stop - top),
            slice(columns.start - left, columns.stop - left),
        )
        x0, y0, x1, y1 = box
        self._start = x0 - columns.start, y0 - rows.start
        self._middle = (x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2
        template = template_frame[y0 - top : y1 - top, x0 - left : x1 - left]
        self._matcher = kernels.TemplateMatcher(template)
        if not is_device_array(template_frame):
            # The frame that the others are most like: on the CPU they are compared with it.
            self._matcher.match(template_frame[self._region])
        self._registration = None
        if recipe.method in ("subpixel", "similarity"):
            model: Literal["shift", "similarity"]
            model = "similarity" if recipe.method == "similarity" else "shift"
            self._registration = kernels.Registration(
                to_gray(template[None])[0], model=model, reach=recipe.reach
            )

    def find(self, frames: Array) -> list[Pose]:
        """Return where the face is in each of (n, h, w[, 3]) frames."""
        region = frames[:, self._region[0], self._region[1]]
        x, y, score = self._best_positions(region)
        dx, dy = x - self._start[0], y - self._start[1]
        if self._registration is None:
            return [Pose(*found) for found in zip(dx, dy, score, strict=True)]
        # The middle of the template, in pixels of the region.
        left, top = self._origin
        middle = np.array(
            [
                self._middle[0] - left - self._region[1].start,
                self._middle[1] - top - self._region[0].start,
            ]
        )
        starts = middle + np.stack([dx, dy], axis=1)
        found = self._registration.locate_all(to_gray(region), starts)
        placed_x, placed_y, rotation, scale = (to_host(values).tolist() for values in found)
        return [
            Pose(x - middle[0], y - middle[1], one_score, turn, size)
            for x, y, one_score, turn, size in zip(
                placed_x, placed_y, score, rotation, scale, strict=True
            )
        ]

    def _best_positions(
        self, region: Array
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], list[float]]:
        """Return x, y and score of the template's best position in each region."""
        match = self._matcher.match_all(region)
        x, y = (to_host(values).astype(np.int64) for values in (match.x, match.y))
        return x, y, to_host(match.score).tolist()

    def cut(
        self, frames: Array, poses: Sequence[Pose], regions: Sequence[RegionBox], crop: Crop
    ) -> Array:
        """Cut regions of the template frame out of frames.

        Whole pixels are cut and resized. Where a pose is known to a part of a pixel, crop,
        motion and size are one interpolation of the frame's own pixels (`kernels.crop`).

        Parameters
        ----------
        frames : (n, h, w) or (n, h, w, 3) uint8
        poses : sequence of Pose
            One a frame.
        regions : sequence of (x0, y0, x1, y1)
            In pixels of the whole template frame.
        crop : Crop

        Returns
        -------
        (n, region, crop.height, crop.width) uint8
            Gray.
        """
        size = crop.height, crop.width
        numbers = np.repeat(np.arange(len(frames)), len(regions))
        if self._registration is None:
            boxes = [self._moved(region, pose) for pose in poses for region in regions]
            crops = resize_crops(frames, numbers, np.array(boxes), size, crop.interpolation)
        else:
            matrices = np.stack(
                [
                    crop_matrix(region, self._middle, pose, crop)
                    for pose in poses
                    for region in regions
                ]
            )
            self._check_extent(matrices, size, frames.shape[1:3])
            matrices[:, :, 2] -= self._origin
            crops = warp_crops(frames, numbers, matrices, size, crop.interpolation)
        return crops.reshape(len(frames), len(regions), *size)

    def _moved(self, region: RegionBox, pose: Pose) -> tuple[int, int, int, int]:
        """Return a region in whole pixels of the part, where the face is in a frame."""
        x0, y0, x1, y1 = (round(value) for value in region)
        dx, dy = round(pose.dx) - self._origin[0], round(pose.dy) - self._origin[1]
        return x0 + dx, y0 + dy, x1 + dx, y1 + dy

    def _check_extent(
        self, matrices: Matrix, size: tuple[int, int], part_size: tuple[int, ...]
    ) -> None:
        """See that the pixels that crops need are in the part, as far as the frame has them.

        Beyond the frame's own edge its last pixels are repeated.
        """
        if tuple(part_size) == tuple(self._frame_size):
            return
        seen = extent(matrices, size)
        start = np.array(self._origin)
        end = start + part_size[::-1]
        before = (seen.low - 1 < start) & (start > 0)
        behind = (seen.high + 1 > end - 1) & (end < self._frame_size[::-1])
        if (before | behind).any():
            raise BeyondPartError("a crop needs pixels beyond the part of the frames that is here")


def search_region(
    box: Box, frame_size: tuple[int, ...], recipe: Alignment, *, beyond: int = 0
) -> tuple[slice, slice]:
    """Return the rows and columns in which a template is looked for, and some ``beyond``."""
    x0, y0, x1, y1 = box
    margin = beyond + (0 if recipe.method == "none" else recipe.margin)
    height, width = frame_size
    return (
        slice(max(y0 - margin, 0), min(y1 + margin, height)),
        slice(max(x0 - margin, 0), min(x1 + margin, width)),
    )


def needed_part(box: Box, frame_size: tuple[int, int], recipe: Recipe) -> tuple[slice, slice]:
    """Return the rows and columns of a frame that the search and the crops look at.

    Shifts reach as far as the recipe's margin; rotation and scale are thought to stay within a
    few degrees and percent, and whoever cuts the crops has to see that they did.
    """
    if recipe.alignment.method not in ("subpixel", "similarity"):
        return search_region(box, frame_size, recipe.alignment)
    width, height = box[2] - box[0], box[3] - box[1]
    enlargement = max(width / recipe.crop.width, height / recipe.crop.height)
    beyond = reach(enlargement) + _TILT * max(width, height)
    return search_region(box, frame_size, recipe.alignment, beyond=math.ceil(beyond) + 1)


def crop_matrix(region: RegionBox, middle: tuple[float, float], pose: Pose, crop: Crop) -> Matrix:
    """Return the map (2, 3) from pixels of a crop to those of the frame that it is cut from.

    ``region`` (x0, y0, x1, y1) and ``middle``, about which the pose turns, are in pixels of the
    template frame. Pixel centres lie at whole numbers.
    """
    x0, y0, x1, y1 = region
    fx, fy = (x1 - x0) / crop.width, (y1 - y0) / crop.height
    angle = math.radians(pose.rotation)
    c, s = pose.scale * math.cos(angle), pose.scale * math.sin(angle)
    turn = np.array([[c, -s], [s, c]])
    corner = np.array([x0 + 0.5 * fx - 0.5, y0 + 0.5 * fy - 0.5])
    centre = np.array(middle)
    start = turn @ (corner - centre) + centre + (pose.dx, pose.dy)
    return np.column_stack([turn * (fx, fy), start])


def _region_crop(recipe: Recipe) -> Crop | None:
    """Return the size of regions that are enlarged from the frames; None where none are."""
    options = recipe.regions
    if options.source != "frames" or not options.names or not recipe.windows:
        return None
    from apexflow.engine.recipe import Crop

    return Crop(height=options.height, width=options.width, interpolation=recipe.crop.interpolation)
