"""Crops by OpenCV, one after the other."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.kernels.crop.geometry import Interpolation, extent, mean_radii, span

Images = NDArray[np.uint8]

_FLAGS = {
    "nearest": cv2.INTER_NEAREST,
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "lanczos4": cv2.INTER_LANCZOS4,
}


def warp_crops(
    frames: Images,
    numbers: NDArray[np.int64],
    matrices: NDArray[np.float64],
    size: tuple[int, int],
    interpolation: Interpolation,
) -> Images:
    """Sample crops where matrices say, of parts of the frames that are as small as may be."""
    crops = np.empty((len(numbers), *size), np.uint8)
    starts, ends = span(extent(matrices, size), frames.shape[1:3])
    radii = mean_radii(matrices)
    for crop, number, matrix, (x0, y0), (x1, y1), radius in zip(
        crops, numbers, matrices, starts, ends, radii, strict=True
    ):
        part = _gray(frames[number, y0 : y1 + 1, x0 : x1 + 1])
        moved = matrix.copy()
        moved[:, 2] -= x0, y0
        means = None if interpolation != "area" else tuple((2 * radius + 1).tolist())
        crop[:] = _warp(part, moved, size, _FLAGS[interpolation], means)
    return crops


def _warp(
    part: Images,
    matrix: NDArray[np.float64],
    size: tuple[int, int],
    flag: int,
    means: tuple[int, ...] | None,
) -> Images:
    if means is not None:
        # A mean over whole pixels first costs a third of averaging samples between them, and
        # flow is as exact.
        if means != (1, 1):
            part = np.asarray(cv2.blur(part, means, borderType=cv2.BORDER_REPLICATE))
        flag = cv2.INTER_LINEAR
    return np.asarray(
        cv2.warpAffine(
            part,
            matrix,
            size[::-1],
            flags=flag | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
    )


def resize_crops(
    frames: Images,
    numbers: NDArray[np.int64],
    boxes: NDArray[np.int64],
    size: tuple[int, int],
    interpolation: Interpolation,
) -> Images:
    """Cut boxes (N, 4) of whole pixels, resize them, and make them gray."""
    crops = np.empty((len(numbers), *size), np.uint8)
    for crop, number, (x0, y0, x1, y1) in zip(crops, numbers, boxes, strict=True):
        part = frames[number, y0:y1, x0:x1]
        crop[:] = _gray(cv2.resize(part, size[::-1], interpolation=_FLAGS[interpolation]))
    return crops


def _gray(image: Any) -> Images:
    return np.asarray(image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGR2GRAY))
