"""Holding the face still: where it is in each frame, and the crop cut there."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow import kernels
from apexflow.engine.frames import Image
from apexflow.engine.recipe import Alignment, Crop

Box = tuple[int, int, int, int]
RegionBox = tuple[float, float, float, float]

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
        Zero-mean normalised cross-correlation with the template at the nearest whole shift.
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
    """The template of one clip, looked for around its own place in each frame."""

    def __init__(self, template_frame: Image, box: Box, recipe: Alignment) -> None:
        x0, y0, x1, y1 = box
        height, width = template_frame.shape[:2]
        margin = 0 if recipe.method == "none" else recipe.margin
        self._region = (
            slice(max(y0 - margin, 0), min(y1 + margin, height)),
            slice(max(x0 - margin, 0), min(x1 + margin, width)),
        )
        self._origin = x0 - self._region[1].start, y0 - self._region[0].start
        self._matcher = kernels.TemplateMatcher(template_frame[y0:y1, x0:x1])

    def find(self, frame: Image) -> Pose:
        """Return where the face is in this frame."""
        match = self._matcher.match(frame[self._region])
        return Pose(match.x - self._origin[0], match.y - self._origin[1], match.score)


def cut(frame: Image, region: RegionBox, face: Box, pose: Pose, crop: Crop) -> Image:
    """Cut a region of the template frame out of a frame: gray uint8, as large as the crop.

    ``region`` and ``face`` are in pixels of the template frame; the pose turns about the middle
    of ``face``.
    """
    x0, y0, x1, y1 = (round(value) for value in region)
    dx, dy = round(pose.dx), round(pose.dy)
    part = frame[y0 + dy : y1 + dy, x0 + dx : x1 + dx]
    size = crop.width, crop.height
    resized: NDArray[np.uint8] = cv2.resize(
        part, size, interpolation=_INTERPOLATION[crop.interpolation]
    )
    return resized if resized.ndim == 2 else cv2.cvtColor(resized, cv2.COLOR_BGR2GRAY)
