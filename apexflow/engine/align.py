"""Holding the face still: where it is in each frame, and the crop cut there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow import kernels
from apexflow.engine.frames import Image
from apexflow.engine.recipe import Alignment, Crop

Box = tuple[int, int, int, int]
RegionBox = tuple[float, float, float, float]
Matrix = NDArray[np.float64]

_INTERPOLATION = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos4": cv2.INTER_LANCZOS4,
}


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


class Aligner:
    """The template of one clip: looked for around its own place in each frame, and cut out.

    Parameters
    ----------
    template_frame : (H, W) or (H, W, 3) uint8
    box : (x0, y0, x1, y1)
        The template in it; at least 16x16.
    recipe : Alignment
    """

    def __init__(self, template_frame: Image, box: Box, recipe: Alignment) -> None:
        x0, y0, x1, y1 = box
        self._region = search_region(box, template_frame.shape[:2], recipe)
        self._origin = x0 - self._region[1].start, y0 - self._region[0].start
        self._middle = (x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2
        template = template_frame[y0:y1, x0:x1]
        self._matcher = kernels.TemplateMatcher(template)
        # The frame that the others are most like: the matcher compares them with it.
        self._matcher.match(template_frame[self._region])
        self._registration = None
        if recipe.method in ("subpixel", "similarity"):
            from apexflow.kernels.register import Registration

            model: Literal["shift", "similarity"]
            model = "similarity" if recipe.method == "similarity" else "shift"
            self._registration = Registration(gray_image(template), model=model)

    def find(self, frame: Image) -> Pose:
        """Return where the face is in a frame of the template frame's size."""
        region = frame[self._region]
        match = self._matcher.match(region)
        dx, dy = match.x - self._origin[0], match.y - self._origin[1]
        if self._registration is None:
            return Pose(dx, dy, match.score)
        # The middle of the template, in pixels of the region.
        x, y = (
            middle - part.start
            for middle, part in zip(self._middle, self._region[::-1], strict=True)
        )
        found = self._registration.locate(gray_image(region), (x + dx, y + dy))
        return Pose(found.x - x, found.y - y, match.score, found.rotation, found.scale)

    def cut(self, frame: Image, region: RegionBox, pose: Pose, crop: Crop) -> Image:
        """Cut a region of the template frame out of a frame: gray uint8 (crop.height, crop.width).

        Whole pixels are cut and resized. Where the pose is known to a part of a pixel, crop,
        motion and size are one interpolation of the frame's own pixels; "area" is bilinear
        there, after a mean over as many pixels as fall into one of the crop, so that a crop
        that shrinks has no aliasing.
        """
        if self._registration is None:
            return _resize(frame, region, pose, crop)
        return _warp(frame, crop_matrix(region, self._middle, pose, crop), crop)


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


def crop_matrices(
    region: RegionBox, middle: tuple[float, float], poses: NDArray[np.float64], crop: Crop
) -> Matrix:
    """Return `crop_matrix` of each of n poses (n, 5), dx, dy, rotation, scale, score: (n, 2, 3)."""
    x0, y0, x1, y1 = region
    fx, fy = (x1 - x0) / crop.width, (y1 - y0) / crop.height
    angle, scale = np.radians(poses[:, 2]), poses[:, 3]
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    turn = np.stack([c, -s, s, c], axis=1).reshape(-1, 2, 2)
    corner = np.array([x0 + 0.5 * fx - 0.5, y0 + 0.5 * fy - 0.5])
    centre = np.array(middle)
    start = turn @ (corner - centre) + centre + poses[:, :2]
    return np.concatenate([turn * (fx, fy), start[..., None]], axis=2)


def crop_reach(step: float) -> float:
    """Return how many pixels beyond its corners a crop looks at; its own lie ``step`` px apart.

    Lanczos reaches 4 px beyond its sample, a mean half a pixel of the crop.
    """
    return 5 + 0.5 * step


def _resize(frame: Image, region: RegionBox, pose: Pose, crop: Crop) -> Image:
    x0, y0, x1, y1 = (round(value) for value in region)
    dx, dy = round(pose.dx), round(pose.dy)
    part = frame[y0 + dy : y1 + dy, x0 + dx : x1 + dx]
    size = crop.width, crop.height
    return gray_image(cv2.resize(part, size, interpolation=_INTERPOLATION[crop.interpolation]))


def _warp(frame: Image, matrix: Matrix, crop: Crop) -> Image:
    part, matrix = _around(frame, matrix, crop)
    interpolation = crop.interpolation
    if interpolation == "area":
        # A mean over whole pixels first costs a third of averaging samples between them, and
        # flow is as exact.
        means = tuple(_odd(float(np.hypot(*axis))) for axis in matrix[:, :2].T)
        if means != (1, 1):
            part = np.asarray(cv2.blur(part, means, borderType=cv2.BORDER_REPLICATE))
        interpolation = "linear"
    flags = _INTERPOLATION[interpolation] | cv2.WARP_INVERSE_MAP
    size = crop.width, crop.height
    return np.asarray(
        cv2.warpAffine(part, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    )


def _odd(pixels: float) -> int:
    """Return over how many pixels to average when so many fall into one of the crop.

    Odd, so that the mean stays where it is; from 1.5 pixels on three are better than one.
    """
    return 1 + 2 * math.floor((pixels + 0.5) / 2)


def _around(frame: Image, matrix: Matrix, crop: Crop) -> tuple[Image, Matrix]:
    """Return the gray part of the frame that a crop is taken from, and the map into it."""
    width, height = crop.width - 1, crop.height - 1
    corners = matrix @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]])
    (left, top), (right, bottom) = corners.min(axis=1), corners.max(axis=1)
    reach = crop_reach(float(np.abs(matrix[:, :2]).max()))
    rows = _span(top - reach, bottom + reach, frame.shape[0])
    columns = _span(left - reach, right + reach, frame.shape[1])
    moved = matrix.copy()
    moved[:, 2] -= columns.start, rows.start
    return gray_image(frame[rows, columns]), moved


def _span(low: float, high: float, length: int) -> slice:
    """Return whole pixels from low to high, inside an axis, and at least one."""
    start = min(max(math.floor(low), 0), length - 1)
    return slice(start, min(max(math.ceil(high) + 1, start + 1), length))


def gray_image(image: Image) -> Image:
    """Return an image in gray, itself where it is."""
    return image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
