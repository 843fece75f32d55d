"""The HSV map on a fixed scale: maps of different clips can be compared."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.kernels.encode.dispatch import encoded
from apexflow.kernels.encode.scaling import (
    Floats,
    Size,
    check_limit,
    check_size,
    resized,
    unsigned_bytes,
)


def encode_hsv_absolute(
    flow: NDArray[np.float32],
    size: tuple[int, int] | None = (28, 28),
    *,
    max_magnitude: float = 2.0,
) -> NDArray[np.uint8]:
    """Return the HSV map of a flow as RGB bytes, its value in fixed units.

    Hue is the direction (degrees / 2) and saturation is full, as in `encode_hsv`; value is
    the length in parts of ``max_magnitude``, so that equal motion is equally bright in every
    map and no motion is black.

    Parameters
    ----------
    flow : (H, W, 2) or (N, H, W, 2) float32
        Displacement (x, y) in pixels.
    size : (height, width) or None, default (28, 28)
        Size of the map; None keeps the flow's.
    max_magnitude : float, default 2.0
        The length in pixels that is brightest; longer vectors saturate. Micro-expressions
        move skin by up to about 2 px of a 224 px face.

    Returns
    -------
    (height, width, 3) or (N, height, width, 3) uint8
        RGB.

    Raises
    ------
    ValueError
        When an argument has another shape, dtype or value.

    Examples
    --------
    >>> import numpy as np
    >>> right = np.zeros((8, 8, 2), np.float32); right[..., 0] = 1
    >>> encode_hsv_absolute(right, (1, 1))[0, 0].tolist()
    [128, 0, 0]
    """
    limit = check_limit("max_magnitude", max_magnitude)
    target = check_size(size)
    return encoded(flow, _encode, "encode_hsv_absolute", target, limit)


def _encode(flow: Floats, size: Size, limit: float) -> NDArray[np.uint8]:
    x, y = (np.ascontiguousarray(flow[..., i]) for i in range(2))
    magnitude, angle = cv2.cartToPolar(x, y, angleInDegrees=True)
    hsv = np.full((*flow.shape[:2], 3), 255, np.uint8)
    hsv[..., 0] = angle / 2
    hsv[..., 2] = unsigned_bytes(magnitude, limit)
    return resized(np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)), size)
