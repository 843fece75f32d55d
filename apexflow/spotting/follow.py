"""One face followed through a video of any length: its crop in every sample.

The template is renewed where the head has turned or come nearer. A renewed template lies where
the old one was found, so that crops before and behind it show the same place of the face, to
the error of one registration.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.errors import ClipError
from apexflow.kernels import Registration, TemplateMatcher
from apexflow.spotting.recipe import Following

Image = NDArray[np.uint8]
Box = tuple[int, int, int, int]

MARGIN = 0.18
"""Around the box, in parts of its longer side: how far the face may be from where it was last."""

_WORK_HEIGHT = 256  # px of a face: a larger one is reduced before it is registered
_LEAST_SIDE = 32


class Place(NamedTuple):
    """Where a face is: the middle of its box (x, y) in px, degrees clockwise, enlargement."""

    x: float
    y: float
    rotation: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Found:
    """What following says of one sample.

    Attributes
    ----------
    place : Place
    score : float
        Correlation of the crop with the template's.
    crop : (side, side) uint8
    renew : bool
        Whether the face has turned or come so near that its template should be renewed.
    """

    place: Place
    score: float
    crop: Image
    renew: bool


class Follower:
    """A face and its template.

    Parameters
    ----------
    image : (height, width) uint8
        The sample that the template is taken from.
    box : (x0, y0, x1, y1)
        The face in the video's first sample: every crop shows what this box shows there.
    recipe : Following
    place : Place, optional
        Where the face is in ``image``; in the middle of the box by default.

    Raises
    ------
    ClipError
        The box is too small, or lies outside of the image.
    """

    def __init__(
        self, image: Image, box: Box, recipe: Following, place: Place | None = None
    ) -> None:
        x0, y0, x1, y1 = box
        if min(x1 - x0, y1 - y0) < _LEAST_SIDE:
            raise ClipError(
                f"the face's box {box} is smaller than {_LEAST_SIDE} px: too few to see it move"
            )
        self._box_size = x1 - x0, y1 - y0
        self._recipe = recipe
        self.box = box
        self.origin = place or Place((x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2)
        self._shrink = max(1, round((y1 - y0) * self.origin.scale / _WORK_HEIGHT))
        left, top, right, bottom = _around(self.origin, self._box_size, 0.0, image.shape)
        self._template = _shrunk(image[top:bottom, left:right], self._shrink)
        # From the middle of the face to that of the template, which the frame's edge may cut.
        height, width = (self._shrink * length for length in self._template.shape)
        self._offset = (
            left + (width - 1) / 2 - self.origin.x,
            top + (height - 1) / 2 - self.origin.y,
        )
        if min(self._template.shape) < _LEAST_SIDE // 2:
            raise ClipError(f"the face's box {box} lies outside of the frame")
        self._registration = Registration(self._template, model="similarity", reach="falling")
        self._matcher: TemplateMatcher | None = None
        self._crop = _standardised(self.crop(image, self.origin))
        self.last = self.origin

    def find(self, image: Image) -> Found:
        """Return where the face is, looked for around where it was last."""
        region = self._region(self.last, image.shape)
        x0, y0, x1, y1 = region
        work = _shrunk(image[y0:y1, x0:x1], self._shrink)
        found = self._judged(image, self._located(work, region, self.last))
        if found.score < self._recipe.turned or self._is_far(found.place):
            again = self._located(work, region, self._searched(work, region))
            found = max(found, self._judged(image, again), key=lambda one: one.score)
        if found.score >= self._recipe.lost:
            self.last = found.place
        return found

    def crop(self, image: Image, place: Place) -> Image:
        """Return the box's part of the face, see `cut`."""
        return self.cut(image, self.box, self._recipe, place)

    @staticmethod
    def cut(image: Image, box: Box, recipe: Following, place: Place) -> Image:
        """Return what a box shows of a face at some place, (side, side) uint8, upright."""
        side, size = recipe.side, (box[2] - box[0], box[3] - box[1])
        matrix = _crop_matrix(place, size, side)
        step = max(math.hypot(*matrix[:, 0]), math.hypot(*matrix[:, 1]))
        x0, y0, x1, y1 = _around(place, size, MARGIN, image.shape)
        part = image[y0:y1, x0:x1]
        if step >= 1.5:  # as `kernels.crop`: a mean over about the pixels of one
            radius = int((step + 0.5) / 2)
            part = cv2.blur(part, (2 * radius + 1, 2 * radius + 1))
        matrix[:, 2] -= x0, y0
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        crop: Image = cv2.warpAffine(
            part, matrix, (side, side), flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
        return crop

    def _region(self, place: Place, shape: tuple[int, ...]) -> Box:
        return _around(place, self._box_size, MARGIN, shape)

    def _located(self, work: Image, region: Box, start: Place) -> Place:
        """Register the template in the reduced region, from a place that is about right."""
        at = _to_work(start, region, self._shrink, self._offset)
        found = self._registration.locate(work, at)
        x, y = _from_work((found.x, found.y), region, self._shrink)
        dx, dy = self._lag(found.rotation, found.scale)
        return Place(
            x + dx,
            y + dy,
            self.origin.rotation + found.rotation,
            self.origin.scale * found.scale,
        )

    def _lag(self, rotation: float, scale: float) -> tuple[float, float]:
        """From the middle of the template, as found, to that of the face."""
        dx, dy = self._offset
        turn = math.radians(rotation)
        cosine, sine = scale * math.cos(turn), scale * math.sin(turn)
        return -(cosine * dx - sine * dy), -(sine * dx + cosine * dy)

    def _searched(self, work: Image, region: Box) -> Place:
        if self._matcher is None:
            self._matcher = TemplateMatcher(self._template)
        height, width = self._template.shape
        if work.shape[0] < height or work.shape[1] < width:
            return self.last
        match = self._matcher.match(np.ascontiguousarray(work))
        middle = match.x + (width - 1) / 2, match.y + (height - 1) / 2
        x, y = _from_work(middle, region, self._shrink)
        dx, dy = self._lag(0.0, 1.0)
        return self.origin._replace(x=x + dx, y=y + dy)

    def _judged(self, image: Image, place: Place) -> Found:
        crop = self.crop(image, place)
        # A similarity that no head has is not the face, however alike.
        is_head = 0.4 < place.scale / self.origin.scale < 2.5
        score = float(np.vdot(_standardised(crop), self._crop)) if is_head else -1.0
        renew = score < self._recipe.turned or self._is_otherwise(place)
        return Found(place, score, crop, renew)

    def _is_far(self, place: Place) -> bool:
        return math.hypot(place.x - self.last.x, place.y - self.last.y) > 0.1 * max(self._box_size)

    def _is_otherwise(self, place: Place) -> bool:
        grown = abs(place.scale / self.origin.scale - 1)
        turned = abs(place.rotation - self.origin.rotation)
        return grown > self._recipe.scale or turned > self._recipe.rotation


def _crop_matrix(place: Place, size: tuple[int, int], side: int) -> NDArray[np.float64]:
    """Return the map (2, 3) from a crop's pixels to those of the image."""
    turn = math.radians(place.rotation)
    cosine, sine = place.scale * math.cos(turn), place.scale * math.sin(turn)
    fx, fy = (length / side for length in size)
    linear = np.array([[cosine * fx, -sine * fy], [sine * fx, cosine * fy]])
    middle = (side - 1) / 2
    return np.column_stack([linear, np.array([place.x, place.y]) - linear @ [middle, middle]])


def _around(place: Place, size: tuple[int, int], margin: float, shape: tuple[int, ...]) -> Box:
    """Return the box around a place, as large as the face is there, and a margin."""
    beyond = margin * max(size)
    half_x, half_y = (place.scale * length / 2 + beyond for length in size)
    x0, y0 = round(place.x + 0.5 - half_x), round(place.y + 0.5 - half_y)
    x1, y1 = round(place.x + 0.5 + half_x), round(place.y + 0.5 + half_y)
    height, width = shape[:2]
    return (
        min(max(x0, 0), width - 1),
        min(max(y0, 0), height - 1),
        max(min(x1, width), 1),
        max(min(y1, height), 1),
    )


def _shrunk(image: Image, factor: int) -> Image:
    """Reduce by a whole factor: means of so many pixels squared; rows that are left over go."""
    if factor == 1:
        return np.ascontiguousarray(image)
    height, width = (length // factor for length in image.shape)
    whole = image[: height * factor, : width * factor]
    reduced: Image = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    return reduced


def _to_work(
    place: Place, region: Box, factor: int, offset: tuple[float, float]
) -> tuple[float, float]:
    x = place.x + offset[0] - region[0]
    y = place.y + offset[1] - region[1]
    return (x + 0.5) / factor - 0.5, (y + 0.5) / factor - 0.5


def _from_work(point: tuple[float, float], region: Box, factor: int) -> tuple[float, float]:
    return (point[0] + 0.5) * factor - 0.5 + region[0], (point[1] + 0.5) * factor - 0.5 + region[1]


def _standardised(crop: Image) -> NDArray[np.float32]:
    """Return a crop of mean 0 and length 1; zeros where it is flat."""
    centred = crop.astype(np.float32)
    centred -= centred.mean()
    length = float(np.linalg.norm(centred))
    return centred / np.float32(length) if length else centred
