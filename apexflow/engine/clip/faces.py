"""Where the face and its regions are: one detection per clip, on the recipe's template frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np

from apexflow.catalog import Clip
from apexflow.datasets.sources import Image
from apexflow.engine.regions import RegionBox, own_boxes, place_regions
from apexflow.errors import ClipError

if TYPE_CHECKING:
    from apexflow.engine.recipe import FaceOptions, Recipe

Box = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in whole pixels."""

Point = tuple[float, float]

MIN_BOX_SIDE = 16


@dataclass(frozen=True, slots=True)
class Face:
    """A face in pixels of the image: box (x0, y0, x1, y1), five landmarks, confidence.

    The landmarks are the left and right eye, the nose, the left and right mouth corner as
    seen in the image; empty where the detector gives none.
    """

    box: tuple[float, float, float, float]
    landmarks: tuple[Point, ...]
    confidence: float


class FaceDetector(Protocol):
    """Finds the largest face of an image."""

    def detect(self, image: Image) -> Face:
        """Return the face in an (H, W) gray or (H, W, 3) BGR uint8 image.

        Raises `ClipError` when there is none.
        """


@dataclass(frozen=True, slots=True)
class LocatedFace:
    """Where the face and its regions are in the template frame.

    Attributes
    ----------
    face : Face
        As detected.
    box : (x0, y0, x1, y1)
        The template, in whole pixels.
    regions : tuple of (x0, y0, x1, y1)
        The box of each region that the recipe places.
    """

    face: Face
    box: Box
    regions: tuple[RegionBox, ...]


def locate_face(
    template_frame: Image, clip: Clip, recipe: Recipe, detector: FaceDetector | None = None
) -> LocatedFace:
    """Detect the face in the template frame and place the recipe's regions on it.

    ``detector`` replaces the one that the recipe names. Raises `ClipError` when there is no
    face, or one that is too small.
    """
    face = (detector or make_detector(recipe.face)).detect(template_frame)
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
    return LocatedFace(face, box, regions)


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


@dataclass(frozen=True, slots=True)
class FixedBox:
    """The same box (x0, y0, x1, y1) in every clip; None for the whole image."""

    box: tuple[int, int, int, int] | None = None

    def detect(self, image: Image) -> Face:
        height, width = image.shape[:2]
        x0, y0, x1, y1 = self.box or (0, 0, width, height)
        if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
            raise ClipError(f"fixed box {self.box} is not inside the {width}x{height} image")
        return Face((x0, y0, x1, y1), (), 1.0)


@dataclass(frozen=True, slots=True)
class MtcnnDetector:
    """MTCNN as in facenet-pytorch, with the weights of its wheel.

    Zhang et al. 2016, "Joint Face Detection and Alignment Using Multitask Cascaded
    Convolutional Networks", doi:10.1109/LSP.2016.2603342.

    Parameters
    ----------
    min_face_size : int
        Smallest face looked for, in pixels of the image that the network sees.
    image_side : int
        A frame whose longer side exceeds this is reduced to it before detection; the
        answer is in pixels of the frame. 0 leaves it at full size.
    """

    min_face_size: int = 20
    image_side: int = 0

    def detect(self, image: Image) -> Face:
        refuse_small_frame(image.shape[1], image.shape[0], self.min_face_size, self.image_side)
        small, scale = _reduced(image, self.image_side)
        rgb = cv2.cvtColor(small, cv2.COLOR_GRAY2RGB if small.ndim == 2 else cv2.COLOR_BGR2RGB)
        with _one_torch_thread():
            found = _mtcnn(self.min_face_size).detect(_batch(rgb, self.image_side), landmarks=True)
        boxes, confidences, landmarks = (values[0] for values in found)
        if boxes is None:
            raise ClipError(
                f"MTCNN found no face of {self.min_face_size} px or more in a "
                f"{small.shape[1]}x{small.shape[0]} image"
            )
        return Face(
            tuple((np.asarray(boxes[0], np.float64) * scale).tolist()),
            tuple(map(tuple, (np.asarray(landmarks[0], np.float64) * scale).tolist())),
            float(confidences[0]),
        )


def refuse_small_frame(width: int, height: int, min_face_size: int, image_side: int) -> None:
    """Refuse a frame that MTCNN looks for no face in, as it would fail with a torch error.

    Its pyramid begins where the smallest face is 12 px, its first network's input.
    """
    scale = image_side / max(width, height) if 0 < image_side < max(width, height) else 1.0
    if round(min(width, height) * scale) < min_face_size:
        reduced = f", reduced to {image_side} px," if scale < 1 else ""
        raise ClipError(
            f"the frame of {width}x{height} px{reduced} is smaller than min_face_size "
            f"{min_face_size}: a face cannot be found in it; lower min_face_size, or take a fixed "
            "box"
        )


def make_detector(options: FaceOptions) -> FaceDetector:
    """Return the detector that a recipe asks for."""
    if options.detector == "fixed":
        return FixedBox(options.box)
    return MtcnnDetector(options.min_face_size, options.image_side)


def slow_modules(options: FaceOptions) -> tuple[str, ...]:
    """Return what the recipe's detector imports and takes seconds for."""
    return ("facenet_pytorch",) if options.detector == "mtcnn" else ()


@cache
def _mtcnn(min_face_size: int) -> Any:
    from facenet_pytorch import MTCNN

    return MTCNN(
        image_size=224,
        margin=20,
        min_face_size=min_face_size,
        keep_all=False,
        post_process=False,
        device="cpu",
    )


def _batch(rgb: Image, image_side: int) -> Any:
    """Return the image as a batch of one (1, H, W, 3), as MTCNN takes it.

    Plane after plane in memory torch is a fifth faster, and rounds a box differently by up to
    2e-4 px: an image at full size stays as published workflows hand it over.
    """
    if image_side == 0:
        return rgb[None]
    import torch

    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1))).permute(1, 2, 0)[None]


def _reduced(image: Image, side: int) -> tuple[Image, float]:
    longer = max(image.shape[:2])
    if side == 0 or longer <= side:
        return image, 1.0
    scale = longer / side
    size = round(image.shape[1] / scale), round(image.shape[0] / scale)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Keep torch to this thread: the clips beside this one have the other cores.

    It also makes the box independent of the number of cores: sums split over threads round
    differently.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
