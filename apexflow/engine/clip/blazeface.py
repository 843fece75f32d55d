"""BlazeFace, the short-range model: faces in a frame from the outputs of its network.

Bazarevsky et al. 2019, "BlazeFace: Sub-millisecond Neural Face Detection on Mobile GPUs",
arXiv:1907.05047. Anchors, decoding and suppression are those that MediaPipe publishes with the
model (face_detection_short_range.tflite), in one place each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.engine.clip.tflite import Network, network

SIDE = 128
"""Height and width of the image that the network takes."""

KEY_POINTS = ("left_eye", "right_eye", "nose", "mouth", "left_ear", "right_ear")
"""Left and right as seen in the image."""

_LAYERS = ((8, 2), (16, 6))  # stride in px, anchors a cell
_ANCHORS = sum((SIDE // stride) ** 2 * count for stride, count in _LAYERS)
_VALUES = 4 + 2 * len(KEY_POINTS)
_OUTPUTS = (_ANCHORS * _VALUES, _ANCHORS)
_LARGEST_SCORE = 100.0  # before the sigmoid
_LEAST_SCORE = 0.5
_SAME_FACE = 0.3  # of intersection over union
# px of the network's image. Of faces 26 px high the key points lie 40% of the distance between the
# eyes off in the median, seen again 7%; from 38 px on a second look changes nothing.
_SMALL = 28.0
_AROUND = 2.5  # sides of the box that are looked at again


@dataclass(frozen=True, slots=True)
class Detections:
    """The n faces of an image, the surest first.

    Attributes
    ----------
    boxes : (n, 4) float64
        (x0, y0, x1, y1) in pixels.
    key_points : (n, 6, 2) float64
        `KEY_POINTS`, (x, y) in pixels.
    scores : (n,) float64
        0 to 1.
    """

    boxes: NDArray[np.float64]
    key_points: NDArray[np.float64]
    scores: NDArray[np.float64]


def find_faces(rgb: NDArray[np.uint8], model: str, digest: str = "") -> Detections:
    """Return the faces in an (H, W, 3) RGB image, in its pixels.

    A face that the network has seen small is looked at once more, enlarged: its place and size are
    the second answer's, and where there is none it was no face.

    Raises `ClipError` when the file is not the short-range model.
    """
    net = read_model(model, digest)
    points, scores = _look(rgb, net)
    sides = points[:, 1, 0] - points[:, 0, 0]
    small = sides * SIDE < _SMALL * max(rgb.shape[:2])
    again = [_look_again(rgb, net, face) for face in points[small]]
    points = np.concatenate([points[~small], *(found for found, _ in again)])
    scores = np.concatenate([scores[~small], *(sure for _, sure in again)])
    points, scores = merged(points, scores)  # two answers may have become one face
    return Detections(points[:, :2].reshape(-1, 4), points[:, 2:], scores)


def read_model(path: str, digest: str = "") -> Network:
    """Return the network; raises `ClipError` when the file is not the short-range model."""
    return network(path, digest, SIDE, _OUTPUTS, "face_detection_short_range.tflite")


def _look(rgb: NDArray[np.uint8], net: Network) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the faces that the network finds in an image: points (n, 8, 2) and scores (n,)."""
    image, offset, scale = letterbox(rgb)
    values, scores = net(image)
    points, sure = merged(*decode(values.reshape(_ANCHORS, _VALUES), scores))
    return (points - offset) * scale, sure


def _look_again(
    rgb: NDArray[np.uint8], net: Network, face: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the face (0 or 1, 8, 2) that is where this one (8, 2) was, seen larger."""
    middle, side = face[:2].mean(axis=0), float((face[1] - face[0]).max())
    low = np.maximum(np.floor(middle - _AROUND * side / 2), 0).astype(int)
    high = np.ceil(middle + _AROUND * side / 2).astype(int)
    points, scores = _look(rgb[low[1] : high[1], low[0] : high[0]], net)
    points = points + low
    away = np.linalg.norm(points[:, :2].mean(axis=1) - middle, axis=1)
    nearest = np.argsort(away, kind="stable")[:1]
    nearest = nearest[away[nearest] < side / 2]
    return points[nearest], scores[nearest]


def letterbox(
    rgb: NDArray[np.uint8],
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.float64]]:
    """Return an image as the network takes it, in the middle of a black square.

    Returns
    -------
    image : (128, 128, 3) float32
        From -1 to 1.
    offset, scale : (2,) float64
        A point (x, y) of it less ``offset``, times ``scale``, is that of the original.
    """
    height, width = rgb.shape[:2]
    longer = max(height, width)
    size = max(1, round(SIDE * width / longer)), max(1, round(SIDE * height / longer))
    method = cv2.INTER_AREA if longer > SIDE else cv2.INTER_LINEAR
    left, top = (SIDE - size[0]) // 2, (SIDE - size[1]) // 2
    square = np.zeros((SIDE, SIDE, 3), np.uint8)
    square[top : top + size[1], left : left + size[0]] = cv2.resize(rgb, size, interpolation=method)
    offset, scale = np.array([left, top], float), np.array([width, height]) / size
    return square.astype(np.float32) / 127.5 - 1, offset, scale


@cache
def anchors() -> NDArray[np.float64]:
    """Return the middles (896, 2) of the anchors, (x, y) in pixels of the network's image."""
    return np.concatenate(
        [
            np.repeat(
                stride * (np.stack(np.meshgrid(*[np.arange(SIDE // stride)] * 2), -1) + 0.5), n, 1
            ).reshape(-1, 2)
            for stride, n in _LAYERS
        ]
    )


def decode(
    values: NDArray[np.float32], scores: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return what the network's outputs say: points (n, 8, 2) and scores (n,) from 0.5.

    Parameters
    ----------
    values : (896, 16)
        Of each anchor the box's middle and size, and the key points, (x, y) in pixels, all but
        the size from the anchor's middle.
    scores : (896,)
        Before the sigmoid.

    The points are the box's upper left and lower right corner, then the key points, in pixels of
    the network's image.
    """
    clipped = np.clip(scores.astype(np.float64), -_LARGEST_SCORE, _LARGEST_SCORE)
    sure = 1 / (1 + np.exp(-clipped))
    kept = sure >= _LEAST_SCORE
    points = values[kept].astype(np.float64).reshape(-1, _VALUES // 2, 2)
    middle, size = points[:, 0] + anchors()[kept], points[:, 1].copy()
    points[:, 2:] += anchors()[kept, None]
    points[:, 0], points[:, 1] = middle - size / 2, middle + size / 2
    return points, sure[kept]


def merged(
    points: NDArray[np.float64], scores: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Merge the answers of neighbouring anchors to one for each face, the surest first.

    Around the surest answer that is left all that overlap it by more than 0.3 are averaged by
    their scores; the score is the surest one's.
    """
    order = np.argsort(-scores, kind="stable")
    faces, sure = [], []
    while order.size:
        near = _overlaps(points[order[0], :2], points[order, :2]) > _SAME_FACE
        near[0] = True  # whatever the box
        faces.append(np.average(points[order[near]], axis=0, weights=scores[order[near]]))
        sure.append(scores[order[0]])
        order = order[~near]
    return np.array(faces).reshape(-1, *points.shape[1:]), np.array(sure)


def _overlaps(one: NDArray[np.float64], boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the intersection over union of a box (2, 2) with boxes (n, 2, 2)."""
    sides = np.minimum(one[1], boxes[:, 1]) - np.maximum(one[0], boxes[:, 0])
    both = np.prod(np.maximum(sides, 0), axis=1)
    areas = np.prod(np.maximum(boxes[:, 1] - boxes[:, 0], 0), axis=1)
    return both / np.maximum(areas + np.prod(np.maximum(one[1] - one[0], 0)) - both, 1e-9)
