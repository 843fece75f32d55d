"""Regions of the face: boxes on the template frame, from landmarks or from the face's box."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from apexflow.errors import ApexflowError

RegionBox = tuple[float, float, float, float]
"""(x0, y0, x1, y1) of a region, in pixels and parts of them."""

RegionBoxes = dict[str, RegionBox]

# Where each region lies between five landmarks, in distances between the eyes: the landmark
# that it hangs on, then left, top, right, bottom from there, along and across the line of the
# eyes. Fitted to the portraits that MTCNN was tried on;
# micro-expressions of the brow move skin up to half that distance above the eyes.
_BY_LANDMARKS: Mapping[str, tuple[str, float, float, float, float]] = MappingProxyType(
    {
        "eyes": ("eyes", -0.90, -0.24, 0.90, 0.24),
        "eyebrows": ("eyes", -1.00, -0.58, 1.00, -0.10),
        "mouth": ("mouth", -0.80, -0.36, 0.80, 0.50),
        "nose": ("nose", -0.38, -0.50, 0.38, 0.18),
        "cheeks": ("nose", -1.00, -0.36, 1.00, 0.26),
        "chin": ("mouth", -0.60, 0.34, 0.60, 0.90),
        "forehead": ("eyes", -0.80, -1.10, 0.80, -0.50),
        # Halves of eyes and eyebrows.
        "left_eye": ("eyes", -0.90, -0.24, 0.00, 0.24),
        "right_eye": ("eyes", 0.00, -0.24, 0.90, 0.24),
        "left_eyebrow": ("eyes", -1.00, -0.58, 0.00, -0.10),
        "right_eyebrow": ("eyes", 0.00, -0.58, 1.00, -0.10),
    }
)

# Points of FaceMesh's 468 around parts of the face; left and right as seen in the image. Those of
# the eyes are the lids' rims, those of the brows both of their edges, those of the mouth the
# lips' outer rim, as MediaPipe's face_mesh_connections lists them.
_LEFT_EYE = (*(33, 7, 163, 144, 145, 153, 154, 155), *(133, 173, 157, 158, 159, 160, 161, 246))
_RIGHT_EYE = (*(263, 249, 390, 373, 374, 380, 381, 382), *(362, 398, 384, 385, 386, 387, 388, 466))
_LEFT_EYEBROW = (46, 53, 52, 65, 55, 70, 63, 105, 66, 107)
_RIGHT_EYEBROW = (276, 283, 282, 295, 285, 300, 293, 334, 296, 336)
_MOUTH = (
    *(61, 146, 91, 181, 84, 17, 314, 405, 321, 375),
    *(291, 185, 40, 39, 37, 0, 267, 269, 270, 409),
)
_BY_MESH: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "eyes": (*_LEFT_EYE, *_RIGHT_EYE),
        "eyebrows": (*_LEFT_EYEBROW, *_RIGHT_EYEBROW),
        "mouth": _MOUTH,
        "left_eye": _LEFT_EYE,
        "right_eye": _RIGHT_EYE,
        "left_eyebrow": _LEFT_EYEBROW,
        "right_eyebrow": _RIGHT_EYEBROW,
    }
)

# Left, top, width, height as fractions of the face's box. Eyes, eyebrows and mouth are those
# of the published MicroFacial code, the others complete them.
FRACTIONS: Mapping[str, RegionBox] = MappingProxyType(
    {
        "eyes": (0.10, 0.10, 0.80, 0.30),
        "eyebrows": (0.10, 0.05, 0.80, 0.15),
        "mouth": (0.20, 0.60, 0.60, 0.30),
        "nose": (0.30, 0.35, 0.40, 0.30),
        "cheeks": (0.05, 0.40, 0.90, 0.25),
        "chin": (0.25, 0.85, 0.50, 0.15),
        "forehead": (0.15, 0.00, 0.70, 0.15),
        # Halves of eyes and eyebrows.
        "left_eye": (0.10, 0.10, 0.40, 0.30),
        "right_eye": (0.50, 0.10, 0.40, 0.30),
        "left_eyebrow": (0.10, 0.05, 0.40, 0.15),
        "right_eyebrow": (0.50, 0.05, 0.40, 0.15),
    }
)

NAMES = ("eyes", "eyebrows", "mouth", "nose", "cheeks", "chin", "forehead")
"""Regions that are placed in every clip; those of one side are where a recipe names them."""
FILE_COLUMNS = ("clip", "region", "x0", "y0", "x1", "y1")
_SMALLEST = 4.0
_BLAZEFACE = 6  # landmarks: the fourth is the mouth's middle


def place_regions(
    names: Sequence[str],
    box: RegionBox,
    landmarks: Sequence[tuple[float, float]],
    *,
    mesh: NDArray[np.float64] | None = None,
    padding: float = 0.0,
    fractions: Mapping[str, RegionBox] = FRACTIONS,
    own: Mapping[str, RegionBox] = MappingProxyType({}),
) -> tuple[RegionBox, ...]:
    """Place regions on a face.

    Parameters
    ----------
    names : sequence of str
    box : (x0, y0, x1, y1)
        The face's box; every region is cut to it.
    landmarks : sequence of (x, y)
        Left and right eye, nose, and the mouth: its left and right corner as seen in the image,
        or its middle first of three points as of BlazeFace; or nothing.
        The head may be tilted: the region's box then holds the tilted region.
    mesh : (468, 2) or (468, 3), optional
        FaceMesh's points: eyes, eyebrows, mouth and their sides are the boxes around theirs.
    padding : float
        Pixels added on each side of what is placed by landmarks.
    fractions : dict of region to (left, top, width, height)
        Parts of the box, for regions that no landmark places.
    own : dict of region to (x0, y0, x1, y1)
        Boxes that are known.

    Returns
    -------
    tuple of (x0, y0, x1, y1), one a name, at least 4 px wide and high.
    """
    placed = []
    for name in names:
        if name in own:
            found = own[name]
        elif mesh is not None and name in _BY_MESH:
            points = mesh[list(_BY_MESH[name]), :2]
            (x0, y0), (x1, y1) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
            found = (x0 - padding, y0 - padding, x1 + padding, y1 + padding)
        elif landmarks and name in _BY_LANDMARKS:
            x0, y0, x1, y1 = _by_landmarks(name, np.asarray(landmarks, np.float64))
            found = (x0 - padding, y0 - padding, x1 + padding, y1 + padding)
        else:
            found = _by_fractions(fractions[name], box)
        placed.append(_within(found, box))
    return tuple(placed)


def read_region_boxes(path: str | Path) -> dict[str, RegionBoxes]:
    """Read the user's own boxes: a CSV with the columns clip, region, x0, y0, x1, y1.

    A clip is called subject/clip or dataset/subject/clip, ``*`` stands for every clip. Boxes
    are in pixels of the template frame. Raises `ApexflowError` naming the row that is wrong.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            missing = [c for c in FILE_COLUMNS if c not in (reader.fieldnames or ())]
            if missing:
                raise ApexflowError(f"{path}: no column {', '.join(missing)}")
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ApexflowError(f"{path}: cannot be read as CSV ({error})") from None
    boxes: dict[str, RegionBoxes] = {}
    for number, row in enumerate(rows, start=2):
        try:
            x0, y0, x1, y1 = (float(row[name]) for name in FILE_COLUMNS[2:])
        except (TypeError, ValueError):
            raise ApexflowError(f"{path}, row {number}: x0, y0, x1, y1 must be numbers") from None
        if not (x0 < x1 and y0 < y1):
            raise ApexflowError(f"{path}, row {number}: x0 < x1 and y0 < y1 must hold")
        boxes.setdefault(row["clip"], {})[row["region"]] = (x0, y0, x1, y1)
    return boxes


def own_boxes(boxes: Mapping[str, RegionBoxes], key: tuple[str, str, str]) -> RegionBoxes:
    """Return the known boxes of a clip, the most exactly named first."""
    found: RegionBoxes = {}
    for name in ("*", "/".join(key[1:]), "/".join(key)):
        found |= boxes.get(name, {})
    return found


def cut_flow(
    flow: NDArray[np.float32], boxes: Sequence[RegionBox], size: tuple[int, int]
) -> NDArray[np.float32]:
    """Cut regions out of flows, resized to one size; vectors stay in pixels of the flow.

    Parameters
    ----------
    flow : (n, 2, height, width) float32
    boxes : sequence of (x0, y0, x1, y1)
        In pixels of the flow.
    size : (height, width)

    Returns
    -------
    (n, region, 2, *size) float32
    """
    import cv2

    out = np.empty((len(flow), len(boxes), 2, *size), np.float32)
    for i, (rows, columns) in enumerate(_slices(box, flow.shape[-2:]) for box in boxes):
        for n, pair in enumerate(flow):
            for c, plane in enumerate(pair):
                part = np.ascontiguousarray(plane[rows, columns])
                shrinks = part.shape[0] > size[0] and part.shape[1] > size[1]
                method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
                out[n, i, c] = cv2.resize(part, size[::-1], interpolation=method)
    return out


def in_crop(
    boxes: Sequence[RegionBox], face: RegionBox, size: tuple[int, int]
) -> tuple[RegionBox, ...]:
    """Return boxes of the template frame in pixels of the crop that shows the face's box."""
    x0, y0, x1, y1 = face
    fx, fy = size[1] / (x1 - x0), size[0] / (y1 - y0)
    return tuple(
        ((a - x0) * fx, (b - y0) * fy, (c - x0) * fx, (d - y0) * fy) for a, b, c, d in boxes
    )


def _slices(box: RegionBox, size: tuple[int, ...]) -> tuple[slice, slice]:
    """Return the whole pixels nearest to a box, at least one each way."""
    x0, y0, x1, y1 = (round(value) for value in box)
    x0, y0 = min(max(x0, 0), size[1] - 1), min(max(y0, 0), size[0] - 1)
    return slice(y0, min(max(y1, y0 + 1), size[0])), slice(x0, min(max(x1, x0 + 1), size[1]))


def _by_landmarks(name: str, points: NDArray[np.float64]) -> RegionBox:
    left, right, nose = points[:3]
    mouth = points[3] if len(points) == _BLAZEFACE else (points[3] + points[4]) / 2
    across = right - left
    unit = float(np.hypot(*across))
    along = across / max(unit, 1e-6)
    down = np.array([-along[1], along[0]])
    anchors = {"eyes": (left + right) / 2, "nose": nose, "mouth": mouth}
    anchor, u0, v0, u1, v1 = _BY_LANDMARKS[name]
    corners = [anchors[anchor] + unit * (u * along + v * down) for u in (u0, u1) for v in (v0, v1)]
    (x0, y0), (x1, y1) = np.min(corners, axis=0).tolist(), np.max(corners, axis=0).tolist()
    return x0, y0, x1, y1


def _by_fractions(fraction: RegionBox, box: RegionBox) -> RegionBox:
    (left, top, width, height), (x0, y0, x1, y1) = fraction, box
    return (
        x0 + left * (x1 - x0),
        y0 + top * (y1 - y0),
        x0 + (left + width) * (x1 - x0),
        y0 + (top + height) * (y1 - y0),
    )


def _within(region: RegionBox, face: RegionBox) -> RegionBox:
    """Cut a region to the face's box, and keep it large enough to hold pixels."""
    ends = []
    for low, high, first, last in zip(region[:2], region[2:], face[:2], face[2:], strict=True):
        start = min(max(low, first), last - _SMALLEST)
        ends.append((start, max(min(high, last), start + _SMALLEST)))
    (x0, x1), (y0, y1) = ends
    return x0, y0, x1, y1
