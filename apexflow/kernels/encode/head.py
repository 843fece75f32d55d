"""Flow without the motion of the head, without the eyes, and without its noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels._validate import check_flow, check_number

Box = Sequence[float]


def remove_head_motion(flow: NDArray[np.float32], still: Box) -> NDArray[np.float32]:
    """Subtract the motion of a part of the face that only the head moves.

    Expressions move the tip of the nose least, so the median vector of the nose's region is
    taken as the head's motion.

    Parameters
    ----------
    flow : (H, W, 2) or (N, H, W, 2) float32
        Displacement (x, y) in pixels.
    still : (x0, y0, x1, y1)
        The region, in pixels of the flow.

    Returns
    -------
    ndarray
        A new flow of the same shape.

    Raises
    ------
    ValueError
        When the flow has another shape or dtype or is not finite, or the region lies outside.
    """
    flow = check_flow("flow", flow)
    rows, columns = _pixels("still", still, flow)
    head = np.median(flow[..., rows, columns, :], axis=(-3, -2), keepdims=True)
    return flow - head.astype(np.float32)


def mask_region(flow: NDArray[np.float32], region: Box) -> NDArray[np.float32]:
    """Set the flow of a region to zero: blinks are motion, and no expression.

    Parameters
    ----------
    flow : (H, W, 2) or (N, H, W, 2) float32
    region : (x0, y0, x1, y1)
        In pixels of the flow.

    Returns
    -------
    ndarray
        A new flow of the same shape.

    Raises
    ------
    ValueError
        When the flow has another shape or dtype or is not finite, or the region lies outside.
    """
    masked = check_flow("flow", flow).copy()
    rows, columns = _pixels("region", region, masked)
    masked[..., rows, columns, :] = 0
    return masked


def suppress_noise(flow: NDArray[np.float32], noise: float) -> NDArray[np.float32]:
    """Take the length of noise off every vector; none of a shorter one is left.

    Soft thresholding [1]_: what is left is continuous, where cutting off would draw an edge, and
    a flow that is noise alone becomes zero, so that no stretching makes it a motion.

    Parameters
    ----------
    flow : (H, W, 2) or (N, H, W, 2) float32
    noise : float
        In pixels of the flow, at least 0.

    Returns
    -------
    ndarray
        A new flow of the same shape.

    Raises
    ------
    ValueError
        When an argument has another shape, dtype or value.

    References
    ----------
    .. [1] D. L. Donoho, "De-noising by soft-thresholding", IEEE Transactions on Information
       Theory 41, 1995. https://doi.org/10.1109/18.382009
    """
    flow, noise = check_flow("flow", flow), check_number("noise", noise, minimum=0)
    length = np.hypot(flow[..., :1], flow[..., 1:])
    level = np.float32(noise)
    left = np.maximum(length - level, np.float32(0))
    shortened: NDArray[np.float32] = (flow * (left / np.maximum(length, _TINY))).astype(np.float32)
    return shortened


_TINY = np.float32(1e-30)


def _pixels(name: str, box: Box, flow: NDArray[np.float32]) -> tuple[slice, slice]:
    height, width = flow.shape[-3:-1]
    x0, y0, x1, y1 = (round(float(value)) for value in box)
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, width), min(y1, height)
    if x0 >= x1 or y0 >= y1:
        raise ValueError(f"{name} must hold a pixel of the flow, {height}x{width}. Got {box!r}.")
    return slice(y0, y1), slice(x0, x1)
