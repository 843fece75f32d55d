"""Flow as people read it: direction as hue, length as saturation, white where nothing moves."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


def flow_colours(flow: NDArray[np.floating[Any]], longest: float) -> NDArray[np.uint8]:
    """Return flow as colours around a wheel.

    For eyes alone: `apexflow.kernels.encode_hsv` and its like make maps for networks.

    Parameters
    ----------
    flow : (2, H, W) float
        Displacement in pixels, x to the right and y down, as a store holds it.
    longest : float
        The length in pixels that has the full colour; longer vectors look the same.

    Returns
    -------
    uint8 (H, W, 3)
        RGB: red to the right, then, clockwise as seen, yellow, green, cyan, blue, magenta.
        White where flow is 0 or unknown.

    Raises
    ------
    ValueError
        Another shape, or ``longest`` is not above 0.

    References
    ----------
    S. Baker et al., "A Database and Evaluation Methodology for Optical Flow", International
    Journal of Computer Vision 92, 2011, doi:10.1007/s11263-010-0390-2: the idea of the wheel.
    """
    if flow.ndim != 3 or flow.shape[0] != 2:
        raise ValueError(f"flow must be (2, H, W). Got {flow.shape}.")
    if not longest > 0:
        raise ValueError(f"longest must be above 0 pixels. Got {longest}.")
    x, y = np.nan_to_num(np.asarray(flow, np.float32))
    degrees = np.degrees(np.arctan2(y, x)) % 360
    length = np.minimum(np.hypot(x, y) / longest, 1)
    hsv = np.stack([degrees, length, np.ones_like(length)], axis=-1)
    rgb = cv2.cvtColor(hsv.astype(np.float32), cv2.COLOR_HSV2RGB)
    return np.rint(255 * rgb).astype(np.uint8)


def colour_wheel(side: int) -> NDArray[np.uint8]:
    """Return the legend of `flow_colours`: uint8 (side, side, 3), the longest flow at the rim."""
    axis = np.linspace(-1, 1, side, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    wheel = flow_colours(np.stack([x, y]), 1.0)
    wheel[np.hypot(x, y) > 1] = 255
    return wheel
