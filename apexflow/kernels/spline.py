"""Images as cubic B-splines: read between pixels, through the pixels themselves."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.kernels.compiled import njit

Image = NDArray[np.float32]
Points = NDArray[np.float64]


def spline(image: Image) -> Image:
    """Return the coefficients of the cubic B-spline through an image (H, W).

    Exact inverse filter of the kernel (1, 4, 1)/6, an exponential with pole sqrt(3) - 2, cut
    where it falls under 2e-6 [1]_.

    References
    ----------
    .. [1] M. Unser, "Splines: a perfect fit for signal and image processing", IEEE Signal
       Processing Magazine 16(6), 1999. DOI 10.1109/79.799930
    """
    reach = np.abs(np.arange(-10, 11))
    kernel = np.sqrt(3.0) * (np.sqrt(3.0) - 2.0) ** reach
    return cv2.sepFilter2D(image, cv2.CV_32F, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)


@njit
def sample(coefficients: Image, points: Points) -> Image:
    """Read a spline (H, W) at points (…, …, 2), (x, y); beyond its edge the edge repeats."""
    out = np.empty(points.shape[:2], np.float32)
    for i in range(points.shape[0]):
        for j in range(points.shape[1]):
            out[i, j] = read(coefficients, points[i, j, 0], points[i, j, 1])
    return out


@njit
def read(coefficients: Image, x: float, y: float) -> np.float32:
    """Value of the spline at (x, y)."""
    height, width = coefficients.shape
    x = min(max(x, 1.0), width - 2.000001)
    y = min(max(y, 1.0), height - 2.000001)
    # Unsigned indices spare the test for negative ones.
    i, j = np.uint32(y), np.uint32(x)
    a0, a1, a2, a3 = _weights(np.float32(x - j))
    b0, b1, b2, b3 = _weights(np.float32(y - i))
    r0, r1, r2, r3 = (
        coefficients[i - 1, j - 1 :],
        coefficients[i, j - 1 :],
        coefficients[i + 1, j - 1 :],
        coefficients[i + 2, j - 1 :],
    )
    t0 = b0 * r0[0] + b1 * r1[0] + b2 * r2[0] + b3 * r3[0]
    t1 = b0 * r0[1] + b1 * r1[1] + b2 * r2[1] + b3 * r3[1]
    t2 = b0 * r0[2] + b1 * r1[2] + b2 * r2[2] + b3 * r3[2]
    t3 = b0 * r0[3] + b1 * r1[3] + b2 * r2[3] + b3 * r3[3]
    return a0 * t0 + a1 * t1 + a2 * t2 + a3 * t3


@njit
def _weights(t: np.float32) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Cubic B-spline weights of the four neighbours at fraction t."""
    one, sixth = np.float32(1), np.float32(1 / 6)
    s = one - t
    w0 = sixth * s * s * s
    w3 = sixth * t * t * t
    w1 = np.float32(2 / 3) - np.float32(0.5) * t * t * (np.float32(2) - t)
    return w0, w1, one - w0 - w1 - w3, w3
