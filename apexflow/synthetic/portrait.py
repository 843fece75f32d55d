"""The faces: one public-domain portrait, or pictures of your own, varied into subjects.

The portrait is `skimage.data.astronaut`, a NASA photograph of Eileen Collins in the public
domain; it is shipped inside scikit-image, so nothing is fetched. `Portrait.read` takes a picture
file instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.errors import ApexflowError
from apexflow.kernels.spline import sample, spline
from apexflow.synthetic import sampling

Points = NDArray[np.float64]
Box = tuple[float, float, float, float]

# Read off the portrait, in its own pixels (x, y); left and right as seen in the picture. The
# box is the one that MTCNN finds in the unchanged portrait.
FACE_BOX: Box = (181.0, 62.0, 268.0, 172.0)
LANDMARKS = {
    "left_eye": (203.5, 101.5),
    "right_eye": (246.5, 103.5),
    "nose": (225.0, 128.5),
    "left_mouth": (203.5, 139.5),
    "right_mouth": (245.0, 141.5),
    "left_brow_outer": (193.0, 89.0),
    "left_brow_inner": (211.0, 91.0),
    "right_brow_inner": (239.0, 93.0),
    "right_brow_outer": (260.0, 93.5),
    "left_cheek": (197.0, 122.0),
    "right_cheek": (251.0, 124.0),
    "left_nostril": (214.0, 130.0),
    "right_nostril": (235.0, 131.0),
    "upper_lip": (224.0, 140.5),
    "lower_lip": (224.0, 152.0),
    "chin": (223.0, 166.0),
}
FIVE_LANDMARKS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")


class Detector(Protocol):
    """Finds the face of an image, as `apexflow.engine.clip.faces.MtcnnDetector` does."""

    def detect(self, image: NDArray[np.uint8]) -> Any:
        """Return what has a ``box`` and five ``landmarks`` of a BGR image."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Portrait:
    """A picture of a face that subjects are made of.

    Attributes
    ----------
    path : str
        The picture's file; empty for the portrait that is shipped.
    box : (x0, y0, x1, y1)
        The face's box in pixels of the picture, as MTCNN would find it.
    five : tuple of (x, y)
        Left and right eye, nose, left and right mouth corner, left and right as seen.
    """

    path: str = ""
    box: Box = FACE_BOX
    five: tuple[tuple[float, float], ...] = tuple(LANDMARKS[name] for name in FIVE_LANDMARKS)

    @classmethod
    def read(cls, path: str | Path, detector: Detector) -> Portrait:
        """Return the portrait in a picture file, with the face that a detector finds in it.

        Raises `ApexflowError` when the file is not a picture, and what the detector raises when
        it finds no face, or one without landmarks.
        """
        face = detector.detect(cv2.cvtColor(_read_picture(str(path)), cv2.COLOR_RGB2BGR))
        if len(face.landmarks) != len(FIVE_LANDMARKS):
            raise ApexflowError(f"{path}: a portrait needs five landmarks; take another detector")
        x0, y0, x1, y1 = map(float, face.box)
        return cls(path=str(path), box=(x0, y0, x1, y1), five=tuple(map(tuple, face.landmarks)))

    @property
    def centre(self) -> tuple[float, float]:
        """The middle of the face's box."""
        return 0.5 * (self.box[0] + self.box[2]), 0.5 * (self.box[1] + self.box[3])

    @property
    def face_height(self) -> float:
        """The height of the face's box."""
        return self.box[3] - self.box[1]

    @property
    def landmarks(self) -> Mapping[str, tuple[float, float]]:
        """Where the parts of `LANDMARKS` lie, carried over from the shipped portrait.

        By the affine motion that brings its five landmarks nearest to this picture's.
        """
        if not self.path:
            return LANDMARKS
        known = np.array([(*LANDMARKS[name], 1.0) for name in FIVE_LANDMARKS])
        motion = np.linalg.lstsq(known, np.array(self.five), rcond=None)[0]
        carried = {name: np.array([*point, 1.0]) @ motion for name, point in LANDMARKS.items()}
        return {name: (float(x), float(y)) for name, (x, y) in carried.items()}

    def image(self) -> NDArray[np.uint8]:
        """Return the picture (H, W, 3), RGB."""
        if self.path:
            return _read_picture(self.path)
        from skimage import data

        return np.asarray(data.astronaut())


def _read_picture(path: str) -> NDArray[np.uint8]:
    try:
        encoded = np.frombuffer(Path(path).read_bytes(), np.uint8)
    except OSError as error:
        raise ApexflowError(f"{path}: {error.strerror or error}") from None
    image = cv2.imdecode(encoded, cv2.IMREAD_COLOR) if encoded.size else None
    if image is None:
        raise ApexflowError(f"{path} is not a picture that OpenCV reads; give a JPEG or PNG file")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One face in front of one camera: everything that stays the same over its clips.

    Attributes
    ----------
    name : str
        The subject's name, for example "006".
    size : (int, int)
        Height and width of the frames in pixels.
    centre : (float, float)
        Where the middle of the face box lies, (x, y) in pixels of the frame.
    face_height : float
        Height of the face box in pixels of the frame.
    mirror : bool
        Whether the portrait is mirrored.
    contrast, brightness : float
        Gray levels become ``128 + contrast * (level - 128) + brightness``.
    texture : float
        Standard deviation in gray levels of the fine texture that is fixed to the skin. The
        enlarged portrait alone is smoother than a photograph of its size.
    shape_seed, texture_seed : int
        Choose the slight smooth change of the face's shape and its texture.
    shape : float
        Largest change of shape, as a fraction of the face's height.
    portrait : Portrait
        The picture that the face is painted from.
    """

    name: str = "001"
    size: tuple[int, int] = (1088, 2040)
    centre: tuple[float, float] = (1020.0, 560.0)
    face_height: float = 544.0
    mirror: bool = False
    contrast: float = 0.88
    brightness: float = 0.0
    texture: float = 4.0
    shape_seed: int = 0
    texture_seed: int = 0
    shape: float = 0.01
    portrait: Portrait = field(default_factory=Portrait)

    def __post_init__(self) -> None:
        if min(self.size) < _SMALLEST_FRAME:
            raise ValueError(f"size must be at least {_SMALLEST_FRAME} a side, got {self.size}")
        if not self.face_height >= _SMALLEST_FACE:
            raise ValueError(
                f"face_height must be at least {_SMALLEST_FACE} pixels, got {self.face_height}"
            )
        if not 0.0 <= self.shape <= _LARGEST_SHAPE:
            raise ValueError(f"shape must be between 0 and {_LARGEST_SHAPE}, got {self.shape}")

    @classmethod
    def random(
        cls,
        seed: int,
        *,
        name: str = "001",
        size: tuple[int, int] = (1088, 2040),
        face: float = 0.5,
        portrait: Portrait | None = None,
    ) -> Subject:
        """Draw a subject whose face is about ``face`` times the frame's height."""
        rng = np.random.default_rng([seed, 1])
        height, width = size
        return cls(
            name=name,
            size=size,
            centre=(width * rng.uniform(0.46, 0.54), height * rng.uniform(0.49, 0.55)),
            face_height=height * face * rng.uniform(0.92, 1.08),
            mirror=bool(rng.integers(2)),
            contrast=rng.uniform(0.78, 0.92),
            brightness=rng.uniform(-8.0, 8.0),
            texture=rng.uniform(3.0, 5.0),
            shape_seed=int(rng.integers(2**31)),
            texture_seed=int(rng.integers(2**31)),
            portrait=Portrait() if portrait is None else portrait,
        )

    @property
    def enlargement(self) -> float:
        """Pixels of the frame per pixel of the portrait."""
        return self.face_height / self.portrait.face_height

    @property
    def box(self) -> Box:
        """The face box (x0, y0, x1, y1) in the neutral pose, in pixels of the frame."""
        x, y = self.centre
        half_height = 0.5 * self.face_height
        x0, _, x1, _ = self.portrait.box
        half_width = half_height * (x1 - x0) / self.portrait.face_height
        return (x - half_width, y - half_height, x + half_width, y + half_height)

    @property
    def landmarks(self) -> Points:
        """Eyes, nose and mouth corners in the neutral pose, (5, 2), in MTCNN's order."""
        points = self.locate(np.array(self.portrait.five))
        return points[[1, 0, 2, 4, 3]] if self.mirror else points

    def locate(self, points: Points) -> Points:
        """Return where points (N, 2) of the portrait lie in the neutral frame."""
        waves = _waves(self)
        unbent = points
        for _ in range(_LOCATE_STEPS):
            unbent = points - _reshape(unbent, waves)
        offsets = (unbent - self.portrait.centre) * self.enlargement
        return offsets * [-1.0 if self.mirror else 1.0, 1.0] + self.centre


_SMALLEST_FRAME = 32
_SMALLEST_FACE = 24.0
_LARGEST_SHAPE = 0.02
_LOCATE_STEPS = 12  # each gains a factor of 6 or more up to the largest shape


def paint(subject: Subject, *, color: bool = False) -> NDArray[np.float32]:
    """Paint the subject's neutral face: the picture that all its frames are taken from.

    Returns
    -------
    (channels, height, width) float32
        Coefficients of a cubic spline (`apexflow.kernels.spline`) in gray levels, one channel or
        RGB, `sampling.MARGIN` pixels larger than the frame on each side.
    """
    points = _canvas_points(subject)
    planes = [sample(plane, points) for plane in _portrait(subject, color=color)]
    texture = _texture(subject, planes[0].shape)
    levels = (128 + subject.contrast * (p - 128) + subject.brightness + texture for p in planes)
    return np.stack([spline(np.clip(p, 6, 249)) for p in levels])


def _portrait(subject: Subject, *, color: bool) -> list[NDArray[np.float32]]:
    """Spline coefficients of the portrait, blurred first when the face is reduced."""
    image = subject.portrait.image()
    image = image if color else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[:, :, np.newaxis]
    planes = np.moveaxis(image.astype(np.float32), 2, 0)
    sigma = _LENS / subject.enlargement
    if sigma > _OWN_BLUR:
        sigma = float(np.sqrt(sigma**2 - _OWN_BLUR**2))
        planes = [cv2.GaussianBlur(p, (0, 0), sigma) for p in planes]
    return [spline(plane) for plane in planes]


_LENS = 0.9  # blur of the frames in pixels: what their sampling cannot hold falls under 2%
_OWN_BLUR = 0.4  # of the portrait, in its pixels


def _canvas_points(subject: Subject) -> Points:
    """Return for each pixel of the canvas the point of the portrait that it shows."""
    height, width = subject.size
    margin = sampling.MARGIN
    x = (np.arange(-margin, width + margin) - subject.centre[0]) / subject.enlargement
    y = (np.arange(-margin, height + margin) - subject.centre[1]) / subject.enlargement
    points = np.stack(np.meshgrid(-x if subject.mirror else x, y), axis=-1)
    points += subject.portrait.centre
    points += _reshape(points, _waves(subject))
    rows, columns = subject.portrait.image().shape[:2]
    last = np.array([columns - 1.0, rows - 1.0])
    # Beyond the portrait its mirror image, and beyond that the portrait again.
    return np.asarray(last - np.abs(last - np.abs(points) % (2 * last)))


Wave = tuple[NDArray[np.float64], float, NDArray[np.float64]]


def _waves(subject: Subject) -> list[Wave]:
    """Draw the waves that reshape a subject: wave vector, phase, displacement."""
    rng = np.random.default_rng([subject.shape_seed, 2])
    face = subject.portrait.face_height
    height = subject.shape * face / _WAVES
    waves = []
    for _ in range(_WAVES):
        angle, phase, direction = rng.uniform(0, 2 * np.pi, 3)
        rate = 2 * np.pi / (face * rng.uniform(0.8, 1.6))
        along = rate * np.array([np.cos(angle), np.sin(angle)])
        waves.append((along, phase, height * np.array([np.cos(direction), np.sin(direction)])))
    return waves


_WAVES = 4


def _reshape(points: Points, waves: list[Wave]) -> Points:
    """Return the smooth change of shape (…, 2) at points of the portrait."""
    change = np.zeros_like(points)
    for along, phase, displacement in waves:
        change += np.sin(points @ along + phase)[..., np.newaxis] * displacement
    return change


def _texture(subject: Subject, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Seeded skin: pores of about a pixel on blotches of some pixels."""
    rng = np.random.default_rng([subject.texture_seed, 3])
    texture = np.zeros(shape, np.float32)
    for sigma, share in _GRAINS:
        grain = cv2.GaussianBlur(rng.standard_normal(shape, np.float32), (0, 0), sigma)
        texture += np.float32(subject.texture * share / grain.std()) * grain
    return texture


_GRAINS: tuple[tuple[float, float], ...] = ((1.3, 0.8), (3.5, 0.6))  # sigma in pixels, share
