"""The length and the direction of a flow as two channels."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels.encode.dispatch import encoded
from apexflow.kernels.encode.polar import magnitude_angle
from apexflow.kernels.encode.scaling import (
    Floats,
    Size,
    check_least,
    check_limit,
    check_normalize,
    check_size,
    resized,
    stretched_bytes,
    unsigned_bytes,
)


def encode_magnitude_angle(
    flow: NDArray[np.float32],
    size: tuple[int, int] | None = (28, 28),
    *,
    normalize: Literal["fixed", "minmax"] = "fixed",
    max_magnitude: float = 2.0,
    least: float = 0.0,
) -> NDArray[np.uint8]:
    """Return the length and the direction of a flow as bytes.

    The flow is brought to ``size`` before its direction is taken: directions have no mean.

    Parameters
    ----------
    flow : (H, W, 2) or (N, H, W, 2) float32
        Displacement (x, y) in pixels.
    size : (height, width) or None, default (28, 28)
        Size of the map; None keeps the flow's.
    normalize : {"fixed", "minmax"}, default "fixed"
        Of the length: 0..max_magnitude to 0..255, or each map stretched over 0..255.
    max_magnitude : float, default 2.0
        In pixels, for "fixed"; longer vectors saturate.
    least : float
        As in `encode_uv`.

    Returns
    -------
    (height, width, 3) or (N, height, width, 3) uint8
        Length, direction (0..360 degrees as 0..255), and an empty channel of zeros.

    Raises
    ------
    ValueError
        When an argument has another shape, dtype or value.

    Examples
    --------
    >>> import numpy as np
    >>> down = np.zeros((8, 8, 2), np.float32); down[..., 1] = 2
    >>> encode_magnitude_angle(down, (1, 1))[0, 0].tolist()
    [255, 64, 0]
    """
    check_normalize(normalize)
    target, least = check_size(size), check_least(least)
    limit = check_limit("max_magnitude", max_magnitude)
    return encoded(flow, _encode, "encode_magnitude_angle", target, normalize, limit, least)


def _encode(
    flow: Floats, size: Size, normalize: str, limit: float, least: float
) -> NDArray[np.uint8]:
    magnitude, angle = magnitude_angle(resized(flow, size))
    minmax = normalize == "minmax"
    length = stretched_bytes(magnitude, least) if minmax else unsigned_bytes(magnitude, limit)
    direction = unsigned_bytes(angle, 360)
    return np.stack([length, direction, np.zeros_like(length)], axis=-1)
