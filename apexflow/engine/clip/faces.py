"""Where the face and its regions are: found once per clip, in the recipe's template frame.

Where that shows no face other frames of the clip are tried (`frames_to_try`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.catalog import Clip
from apexflow.datasets.sources import Image
from apexflow.engine.clip import blazeface, facemesh
from apexflow.engine.clip.frames import ClipFrames
from apexflow.engine.clip.plan import ClipPlan
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
    """A face in pixels of the image: box (x0, y0, x1, y1), landmarks, confidence.

    The landmarks are the left and right eye, the nose, then the left and right mouth corner, or
    BlazeFace's mouth, left and right ear: left and right as seen in the image; empty where the
    detector gives none. ``others`` are the other faces of the image.
    """

    box: tuple[float, float, float, float]
    landmarks: tuple[Point, ...]
    confidence: float
    others: tuple[Face, ...] = ()

    @property
    def area(self) -> float:
        """Of the box, in square pixels."""
        return (self.box[2] - self.box[0]) * (self.box[3] - self.box[1])


class NoFaceError(ClipError):
    """An image shows no face."""


class FaceDetector(Protocol):
    """Finds the faces of an image."""

    def detect(self, image: Image) -> Face:
        """Return the largest face in an (H, W) gray or (H, W, 3) BGR uint8 image.

        Raises `NoFaceError` when there is none.
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
    mesh : (468, 3) float64, or None
        FaceMesh's points, where the recipe names its model: x, y and depth in pixels.
    """

    face: Face
    box: Box
    regions: tuple[RegionBox, ...]
    mesh: NDArray[np.float64] | None = None

    @property
    def candidates(self) -> int:
        """How many faces there were to choose from: as sure as this one, and not far smaller."""
        rivals = (
            other
            for other in self.face.others
            if other.confidence >= _SURE * self.face.confidence
            and other.area >= _RIVAL_AREA * self.face.area
        )
        return 1 + sum(1 for _ in rivals)


_SURE = 0.9  # parts of the chosen face's confidence
_RIVAL_AREA = 0.15


def locate_in_clip(
    frames: ClipFrames, clip: Clip, recipe: Recipe, detector: FaceDetector | None = None
) -> LocatedFace:
    """Locate the face in the template frame, or in the first other frame that shows one.

    ``frames`` has that frame as its template afterwards. ``detector`` replaces the one that the
    recipe names.

    Raises
    ------
    ClipError
        When none of the frames that the recipe tries shows a face; `NoFaceError` says which.
    """
    found = detector or make_detector(recipe.face)
    wanted = frames.plan.template
    tried = frames_to_try(frames.plan, recipe.face.frames_tried)
    reason = ""
    for number in tried:
        if number != wanted:
            frames.take_template(number)
        try:
            face = found.detect(frames.template)
            if face.others:
                face = choose_face(face, frames, recipe.face, found)
            return place_face(face, frames.template, clip, recipe)
        except NoFaceError as error:
            reason = reason or str(error)
    others = f", nor do {len(tried) - 1} others of {len(frames.plan.numbers)}" * (len(tried) > 1)
    raise NoFaceError(f"frame {wanted} shows no face{others}: {reason}")


def frames_to_try(plan: ClipPlan, most: int) -> tuple[int, ...]:
    """Return the frames in which a face is looked for, in this order.

    The template frame; then apex, onset and offset; then the middle of the clip, its quarters, its
    eighths and so on.
    """
    numbers = plan.numbers
    order = [plan.template, *(plan.key_frames.get(name) for name in ("apex", "onset", "offset"))]
    parts = 2
    while parts < 2 * len(numbers) and parts <= 4 * most:
        order += [numbers[len(numbers) * part // parts] for part in range(1, parts, 2)]
        parts *= 2
    there = set(numbers)
    return tuple(n for n in dict.fromkeys(order) if n is not None and n in there)[:most]


def choose_face(
    face: Face, frames: ClipFrames, options: FaceOptions, detector: FaceDetector
) -> Face:
    """Return the face of several that the recipe's ``choice`` names, the rest as its others."""
    every = (face, *face.others)
    if options.choice == "central":
        height, width = frames.size
        chosen = min(every, key=lambda one: _distance(one, (width / 2, height / 2)))
    elif options.choice == "followed":
        chosen = max(every, key=_times_seen(frames, options.frames_tried, detector))
    else:
        chosen = max(every, key=lambda one: one.area)
    return replace(chosen, others=tuple(one for one in every if one is not chosen))


def _distance(face: Face, point: Point) -> float:
    x0, y0, x1, y1 = face.box
    return math.hypot((x0 + x1) / 2 - point[0], (y0 + y1) / 2 - point[1])


def _times_seen(
    frames: ClipFrames, most: int, detector: FaceDetector
) -> Callable[[Face], tuple[int, float]]:
    """Return what says in how many frames a face is near where it is here, and its area."""
    elsewhere: list[Face] = []
    for number in frames_to_try(frames.plan, max(most, _LEAST_FOLLOWED))[1:]:
        with suppress(NoFaceError):
            there = detector.detect(frames.one(number))
            elsewhere += (there, *there.others)

    def seen(face: Face) -> tuple[int, float]:
        x0, y0, x1, y1 = face.box
        middle = (x0 + x1) / 2, (y0 + y1) / 2
        near = (math.sqrt(face.area) / 2 > _distance(other, middle) for other in elsewhere)
        return sum(near), face.area

    return seen


_LEAST_FOLLOWED = 5  # frames


def locate_face(
    template_frame: Image, clip: Clip, recipe: Recipe, detector: FaceDetector | None = None
) -> LocatedFace:
    """Detect the face in one frame and place the recipe's regions on it.

    ``detector`` replaces the one that the recipe names. Raises `ClipError` when there is no
    face, or one that is too small.
    """
    face = (detector or make_detector(recipe.face)).detect(template_frame)
    return place_face(face, template_frame, clip, recipe)


def place_face(face: Face, template_frame: Image, clip: Clip, recipe: Recipe) -> LocatedFace:
    """Return a face's box in whole pixels, and the recipe's regions on it.

    Raises `ClipError` when the box is too small, `NoFaceError` when no mesh fits the face.
    """
    box = box_in_frame(face, template_frame)
    options = recipe.regions
    mesh = _mesh(face, template_frame, recipe.face) if recipe.face.mesh else None
    landmarks = face.landmarks if mesh is None else facemesh.five_landmarks(mesh)
    by_landmarks = options.placement == "landmarks"
    regions = place_regions(
        options.placed,
        box,
        landmarks if by_landmarks else (),
        mesh=mesh if by_landmarks else None,
        padding=options.padding,
        fractions=options.fraction_of,
        own=own_boxes(options.boxes, clip.key),
    )
    return LocatedFace(face, box, regions, mesh)


def _mesh(face: Face, image: Image, options: FaceOptions) -> NDArray[np.float64]:
    eyes = np.array(face.landmarks[:2], np.float64) if face.landmarks else None
    points, confidence = facemesh.find_mesh(
        _rgb(image), face.box, eyes, options.mesh, options.mesh_digest
    )
    if confidence < _LEAST_MESH:
        raise NoFaceError(
            f"FaceMesh sees no face ({confidence:.2f}) in the box "
            f"{tuple(map(round, face.box))}; look at the frame, or leave out face.mesh"
        )
    return points


_LEAST_MESH = 0.5


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
        rgb = _rgb(small)
        with _one_torch_thread():
            found = _mtcnn(self.min_face_size).detect(_batch(rgb, self.image_side), landmarks=True)
        boxes, confidences, landmarks = (values[0] for values in found)
        if boxes is None:
            reduced = f", reduced to {small.shape[1]}x{small.shape[0]}" * (scale > 1)
            raise NoFaceError(
                f"MTCNN found no face of {self.min_face_size} px or more in a "
                f"{image.shape[1]}x{image.shape[0]} image{reduced}; look at the frame, lower "
                f'face.min_face_size, or give a box (face.detector = "fixed")'
            )
        first, *others = (
            Face(
                tuple((np.asarray(box, np.float64) * scale).tolist()),
                tuple(map(tuple, (np.asarray(points, np.float64) * scale).tolist())),
                float(confidence),
            )
            for box, points, confidence in zip(boxes, landmarks, confidences, strict=True)
        )
        return replace(first, others=tuple(others))


@dataclass(frozen=True, slots=True)
class BlazeFaceDetector:
    """BlazeFace, from a file of the short-range model: box and six key points.

    See `apexflow.engine.clip.blazeface`.

    Parameters
    ----------
    model : str
        Path of face_detection_short_range.tflite.
    digest : str
        SHA-256 that the file must have; "" takes any.
    min_face_size : int
        Smaller faces are left out, in pixels of the image reduced to ``image_side``.
    image_side : int
        As in `MtcnnDetector`; the network itself sees 128 px, whatever it is.
    """

    model: str
    digest: str = ""
    min_face_size: int = 20
    image_side: int = 0

    def detect(self, image: Image) -> Face:
        found = blazeface.find_faces(_rgb(image), self.model, self.digest)
        scale = max(1.0, max(image.shape[:2]) / self.image_side) if self.image_side else 1.0
        faces = [
            Face(tuple(box), tuple(map(tuple, points)), score)
            for box, points, score in zip(
                found.boxes.tolist(), found.key_points.tolist(), found.scores.tolist(), strict=True
            )
            if min(box[2] - box[0], box[3] - box[1]) >= scale * self.min_face_size
        ]
        if not faces:
            raise NoFaceError(
                f"BlazeFace found no face of {scale * self.min_face_size:.0f} px or more in a "
                f"{image.shape[1]}x{image.shape[0]} image; look at the frame, take "
                f'face.detector = "mtcnn", which finds smaller ones, or give a box ("fixed")'
            )
        first, *others = sorted(faces, key=lambda face: -face.area)
        return replace(first, others=tuple(others))


def _rgb(image: Image) -> Image:
    """Return a gray or BGR image as RGB."""
    code = cv2.COLOR_GRAY2RGB if image.ndim == 2 else cv2.COLOR_BGR2RGB
    return np.asarray(cv2.cvtColor(image, code), np.uint8)


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
    if options.detector == "blazeface":
        return BlazeFaceDetector(
            options.model, options.model_digest, options.min_face_size, options.image_side
        )
    return MtcnnDetector(options.min_face_size, options.image_side)


def check_models(options: FaceOptions) -> None:
    """See that the model files that a recipe names are there, and are what it was made with.

    Raises `ClipError`, before any clip is begun.
    """
    if options.model:
        blazeface.read_model(options.model, options.model_digest)
    if options.mesh:
        facemesh.read_model(options.mesh, options.mesh_digest)


def slow_modules(options: FaceOptions) -> tuple[str, ...]:
    """Return what the recipe's detector imports and takes seconds for."""
    return ("facenet_pytorch",) if options.detector == "mtcnn" else ()


@cache
def _mtcnn(min_face_size: int) -> Any:
    try:
        from facenet_pytorch import MTCNN
    except (ImportError, OSError, RuntimeError) as error:
        raise ClipError(
            f"the face detector does not load ({type(error).__name__}: {error}); take torch and "
            f"torchvision from one index, here are {version('torch')} and {version('torchvision')}"
        ) from None

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
