"""Registering every frame to the template frame: where the face is in each, and the crop there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

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
from apexflow.kernels.gpu import to_host

if TYPE_CHECKING:
    from apexflow.engine.recipe import Alignment, Crop, Recipe

Matrix = NDArray[np.float64]

# Beside what the kernels reckon for themselves, in frames: the frame, its parts, gray ones.
_COPIES_OF_A_FRAME = 4
# Beyond the search region, in parts of the box's longer side: what the corners of a box move
# that is turned by 4 degrees, or enlarged by 7%.
_TILT = 0.035
# A score within the margin below which the face may have left it; then more is searched. Of 40
# synthetic faces with noise and an expression of 3 px, faces within a margin of 20 px score .99 and
# more; 22 to 60 px away the best score lies at the margin's end, or is under .45 (5 of 200).
_LEFT_BELOW = 0.8


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
    distance_to_margin : float
        From the best whole shift to where the search ends, see `Aligned`.
    """

    dx: float = 0.0
    dy: float = 0.0
    score: float = 1.0
    rotation: float = 0.0
    scale: float = 1.0
    distance_to_margin: float = math.inf


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
        alone = numbers == (plan.template,)
        poses = [aligner.template_pose] if alone else aligner.find(stack)
        if plan.template in numbers:
            poses[numbers.index(plan.template)] = aligner.template_pose
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
        distance_to_margin=np.array([pose.distance_to_margin for pose in poses], np.float32),
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
        self._box = x0, y0, x1, y1 = box
        self._middle = (x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2
        self._near = search_room(box, self._frame_size, recipe)
        self._far = search_room(box, self._frame_size, recipe, follow=True)
        template = template_frame[y0 - top : y1 - top, x0 - left : x1 - left]
        self._matcher = kernels.TemplateMatcher(template)
        self._registration = None
        if recipe.method in ("subpixel", "similarity"):
            model: Literal["shift", "similarity"]
            model = "similarity" if recipe.method == "similarity" else "shift"
            self._registration = kernels.Registration(
                to_gray(template[None])[0], model=model, reach=recipe.reach
            )

    @property
    def template_pose(self) -> Pose:
        """The pose of the template frame itself."""
        return Pose(
            distance_to_margin=float(self._distance_to_margin(np.zeros((1, 2), np.int64))[0])
        )

    def find(self, frames: Array) -> list[Pose]:
        """Return where the face is in each of (n, h, w[, 3]) frames.

        Each is searched within the recipe's margin first. Where the face may lie beyond, at an
        end of the margin or with a low score, it is searched as far as the recipe follows it.

        Raises
        ------
        BeyondPartError
            When that is farther than the part of the frames that is here.
        """
        shifts, scores = self._best_shifts(frames, self._near)
        beyond = self._may_be_beyond(shifts, scores)
        if not beyond.any():
            return self._poses(frames, self._near, shifts, scores)
        poses = np.empty(len(frames), object)
        for room, rows in ((self._near, np.flatnonzero(~beyond)), (self._far, beyond.nonzero()[0])):
            if rows.size:
                chosen = frames[rows]
                if room is self._far:
                    shifts[rows], scores[rows] = self._best_shifts(chosen, room)
                poses[rows] = self._poses(chosen, room, shifts[rows], scores[rows])
        return list(poses)

    def _best_shifts(
        self, frames: Array, room: Room
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the best whole shift (n, 2) within a room, and its score, of each frame."""
        match = self._matcher.match_all(self._searched(frames, room))
        x, y = (to_host(values).astype(np.int64) for values in (match.x, match.y))
        return np.stack([x - room.left, y - room.top], axis=1), to_host(match.score)

    def _may_be_beyond(
        self, shifts: NDArray[np.int64], scores: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Whether a wider search may find each face better than the one within the margin."""
        wider = np.greater(self._far, self._near)
        at_end = self._near.distances(shifts) == 0
        return np.asarray((at_end & wider).any(1) | ((scores < _LEFT_BELOW) & wider.any()))

    def _poses(
        self, frames: Array, room: Room, shifts: NDArray[np.int64], scores: NDArray[np.float64]
    ) -> list[Pose]:
        """Return the poses of frames whose best shifts in a room are known."""
        distances = self._distance_to_margin(shifts).tolist()
        if self._registration is None:
            found = (*shifts.T.astype(float).tolist(), scores.tolist())
            return [
                Pose(dx, dy, score, distance_to_margin=distance)
                for dx, dy, score, distance in zip(*found, distances, strict=True)
            ]
        # The middle of the template, in pixels of what is searched.
        x0, y0, _, _ = self._box
        middle = np.array(self._middle) - (x0 - room.left, y0 - room.top)
        searched = to_gray(self._searched(frames, room))
        located = self._registration.locate_all(searched, middle + shifts)
        return [
            Pose(x - middle[0], y - middle[1], score, turn, size, distance)
            for x, y, turn, size, score, distance in zip(
                *(to_host(values).tolist() for values in located),
                scores.tolist(),
                distances,
                strict=True,
            )
        ]

    def _searched(self, frames: Array, room: Room) -> Array:
        """Return the pixels of frames in which a template with this room is looked for."""
        rows, columns = searched_part(self._box, room)
        left, top = self._origin
        rows = slice(rows.start - top, rows.stop - top)
        columns = slice(columns.start - left, columns.stop - left)
        height, width = frames.shape[1:3]
        if min(rows.start, columns.start) < 0 or rows.stop > height or columns.stop > width:
            raise BeyondPartError(
                "a face has moved farther than the part of the frames that is here"
            )
        return frames[:, rows, columns]

    def _distance_to_margin(self, shifts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return how far the whole shifts (n, 2) are from the nearest end of the whole search."""
        distances = self._far.distances(shifts)
        return np.where(np.greater(self._far, 0), distances, np.inf).min(1)

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


class Room(NamedTuple):
    """How far a template may move on each side where it is looked for, in whole pixels."""

    left: int
    top: int
    right: int
    bottom: int

    def distances(self, shifts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what is left on the four sides (n, 4) after shifts (n, 2)."""
        return np.hstack([shifts, -shifts]) + np.array(self)


def search_room(
    box: Box, frame_size: tuple[int, ...], recipe: Alignment, *, follow: bool = False
) -> Room:
    """Return the room within the recipe's margin, or as far as it follows a face beyond.

    The frame's edges bound both.
    """
    x0, y0, x1, y1 = box
    most = 0 if recipe.method == "none" else recipe.margin
    if follow and recipe.method != "none":
        most += round(recipe.follow * max(x1 - x0, y1 - y0))
    height, width = frame_size
    return Room(min(x0, most), min(y0, most), min(width - x1, most), min(height - y1, most))


def searched_part(box: Box, room: Room) -> tuple[slice, slice]:
    """Return the rows and columns of a frame in which a template with this room may lie."""
    x0, y0, x1, y1 = box
    return slice(y0 - room.top, y1 + room.bottom), slice(x0 - room.left, x1 + room.right)


def needed_part(box: Box, frame_size: tuple[int, int], recipe: Recipe) -> tuple[slice, slice]:
    """Return the rows and columns of a frame that the search and the crops look at.

    Shifts are thought to stay within the recipe's margin, rotation and scale within a few degrees
    and percent: whoever searches and cuts has to see that they did.
    """
    rows, columns = searched_part(box, search_room(box, frame_size, recipe.alignment))
    if recipe.alignment.method not in ("subpixel", "similarity"):
        return rows, columns
    width, height = box[2] - box[0], box[3] - box[1]
    enlargement = max(width / recipe.crop.width, height / recipe.crop.height)
    beyond = math.ceil(reach(enlargement) + _TILT * max(width, height)) + 1
    return (
        slice(max(rows.start - beyond, 0), min(rows.stop + beyond, frame_size[0])),
        slice(max(columns.start - beyond, 0), min(columns.stop + beyond, frame_size[1])),
    )


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
