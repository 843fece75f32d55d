"""FaceMesh: 468 points of a face, from the model file face_landmark.tflite.

Kartynnik et al. 2019, "Real-time Facial Surface Geometry from Monocular Video on Mobile GPUs",
arXiv:1907.06724. The part of the image that the network sees is cut as MediaPipe cuts it: a
square of 1.5 times the face's longer side, turned so that the eyes are level.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.engine.clip.tflite import Network, network

SIDE = 192
"""Height and width of the image that the network takes."""

POINTS = 468

_OUTPUTS = (3 * POINTS, 1)
_AROUND = 1.5
# Looked at twice: at the detector's box, then at the points found there. Whatever the detector
# takes for the face's box, the second square is nearly the same.
_LOOKS = 2

# Points of the mesh, left and right as seen in the image.
_OUTER_LEFT, _OUTER_RIGHT = 33, 263  # corners of the eyes
_EYES = ((33, 133), (362, 263))
_NOSE, _MOUTH = 1, (61, 291)


def find_mesh(
    image: NDArray[np.uint8],
    box: tuple[float, float, float, float],
    eyes: NDArray[np.float64] | None,
    model: str,
    digest: str = "",
) -> tuple[NDArray[np.float64], float]:
    """Return the mesh of the face in a box.

    Parameters
    ----------
    image : (H, W, 3) uint8, RGB
    box : (x0, y0, x1, y1)
    eyes : (2, 2), or None
        The left and right eye as seen, (x, y): the head's tilt. Upright without.
    model, digest : str
        The file, and the SHA-256 that it must have; "" takes any.

    Returns
    -------
    points : (468, 3) float64
        x, y in pixels of the image; z in the same unit, smaller is nearer to the camera.
    confidence : float
        0 to 1: whether there is a face.

    Raises
    ------
    ClipError
        The file is not the model.
    """
    net = read_model(model, digest)
    corners = np.array(box, np.float64).reshape(2, 2)
    tilt = 0.0 if eyes is None else _tilt(eyes)
    middle, side = corners.mean(axis=0), _AROUND * float((corners[1] - corners[0]).max())
    points, confidence = np.empty((POINTS, 3)), 0.0
    for _ in range(_LOOKS):
        cut, to_image = _cut(image, middle, side, tilt)
        values, score = net(cut)
        points = to_image(values.reshape(POINTS, 3).astype(np.float64))
        confidence = 1 / (1 + math.exp(-max(-100.0, min(100.0, float(score[0])))))
        tilt = _tilt(points[[_OUTER_LEFT, _OUTER_RIGHT], :2])
        middle, side = _square_around(points[:, :2], tilt)
    return points, confidence


def read_model(path: str, digest: str = "") -> Network:
    """Return the network; raises `ClipError` when the file is not FaceMesh's model."""
    return network(path, digest, SIDE, _OUTPUTS, "face_landmark.tflite")


def five_landmarks(points: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    """Return left and right eye, nose, left and right mouth corner of a mesh, (x, y) each."""
    eyes = [points[list(corners), :2].mean(axis=0) for corners in _EYES]
    found = np.stack([*eyes, points[_NOSE, :2], *points[list(_MOUTH), :2]])
    return tuple((float(x), float(y)) for x, y in found)


def _tilt(eyes: NDArray[np.float64]) -> float:
    """Return the angle in radians, clockwise as seen, of the line from left to right eye."""
    x, y = eyes[1] - eyes[0]
    return math.atan2(y, x)


def _square_around(points: NDArray[np.float64], tilt: float) -> tuple[NDArray[np.float64], float]:
    """Return middle and side of the square that the next look cuts around points (n, 2)."""
    turn = _turn(tilt)
    along = points @ turn  # in the axes of the head
    low, high = along.min(axis=0), along.max(axis=0)
    return turn @ ((low + high) / 2), _AROUND * float((high - low).max())


def _turn(angle: float) -> NDArray[np.float64]:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s], [s, c]])


def _cut(
    image: NDArray[np.uint8], middle: NDArray[np.float64], side: float, tilt: float
) -> tuple[NDArray[np.float32], _ToImage]:
    """Return a turned square of the image as the network takes it, and the way back.

    Black is what lies outside the image. Coordinates are 0 at the corner of the first pixel.
    """
    scale = SIDE / side
    if scale < 1:  # bilinear interpolation alone would leave pixels out
        size = [max(1, round(n * scale)) for n in image.shape[1::-1]]
        small, factor = (
            cv2.resize(image, size, interpolation=cv2.INTER_AREA),
            size / np.array(image.shape[1::-1], float),
        )
    else:
        small, factor = image, np.ones(2)
    way = _ToImage(middle, side / SIDE, _turn(tilt))
    # From pixel numbers of the cut to those of the reduced image: pixels' middles are at 1/2.
    linear = factor[:, None] * way.linear
    start = factor * way(np.array([[0.5, 0.5, 0.0]]))[0, :2] - 0.5
    matrix = np.column_stack([linear, start])
    cut = cv2.warpAffine(
        small,
        matrix,
        (SIDE, SIDE),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_CONSTANT,
    )
    return cut.astype(np.float32) / 255, way


class _ToImage:
    """From coordinates of the network's image to those of the original."""

    def __init__(
        self, middle: NDArray[np.float64], scale: float, turn: NDArray[np.float64]
    ) -> None:
        self.linear = scale * turn
        self._scale = scale
        self._start = middle - self.linear @ (SIDE / 2, SIDE / 2)

    def __call__(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        flat = points[:, :2] @ self.linear.T + self._start
        return np.column_stack([flat, self._scale * points[:, 2]])
