"""Magnitude and angle of a flow."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.kernels._validate import check_flow
from apexflow.kernels.gpu import cuda_device, is_device_array


def magnitude_angle(
    flow: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the length of each flow vector in pixels and its direction in degrees.

    OpenCV's `cartToPolar` does the work, so the angle carries the error of its polynomial,
    below 0.01 degrees.

    Parameters
    ----------
    flow : (H, W, 2) or (N, H, W, 2) float32
        Displacement (x, y) in pixels.

    Returns
    -------
    magnitude, angle : (H, W) or (N, H, W) float32
        Pixels, and degrees in [0, 360], clockwise on the screen because y points down. The
        angle of a zero vector is 0.

    Raises
    ------
    ValueError
        When the flow has another shape or dtype, is empty or is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> magnitude, angle = magnitude_angle(np.array([[[3, 4], [0, 2]]], np.float32))
    >>> magnitude.tolist()
    [[5.0, 2.0]]
    """
    flow = check_flow("flow", flow)
    if is_device_array(flow):
        from apexflow.kernels.encode import gpu

        batch = flow.reshape(-1, *flow.shape[-3:])
        measures = gpu.magnitude_angle(batch, device=cuda_device())
        return measures[0].reshape(flow.shape[:-1]), measures[1].reshape(flow.shape[:-1])
    # OpenCV wants two-dimensional planes: a batch is one tall image.
    planes = np.moveaxis(flow.reshape(-1, *flow.shape[-2:]), -1, 0)
    x, y = (np.ascontiguousarray(plane) for plane in planes)
    magnitude, angle = cv2.cartToPolar(x, y, angleInDegrees=True)
    shape = flow.shape[:-1]
    return magnitude.reshape(shape), angle.reshape(shape)
