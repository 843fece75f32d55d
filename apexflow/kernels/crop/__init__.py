"""Crops out of frames: regions that are cut, turned and resized, as gray images of one size.

`cpu` has them by OpenCV one after the other, `gpu` and ``crop.cu`` those of all frames of a clip
at once, which agree with OpenCV's within a level. `geometry` says which pixels a crop looks at.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.kernels import gpu as devices
from apexflow.kernels._validate import check_choice
from apexflow.kernels.crop import cpu
from apexflow.kernels.crop.geometry import INTERPOLATIONS, Interpolation

__all__ = ["Interpolation", "resize_crops", "to_gray", "warp_crops"]

Images = NDArray[np.uint8]


def to_gray(frames: Images) -> Images:
    """Convert BGR frames to gray, as OpenCV does.

    Parameters
    ----------
    frames : (N, H, W) or (N, H, W, 3) uint8
        NumPy's or CuPy's; gray ones are returned as they are.

    Returns
    -------
    (N, H, W) uint8
    """
    if frames.ndim == 3:
        return frames
    if devices.is_device_array(frames):
        from apexflow.kernels.crop import gpu

        gray: Images = gpu.to_gray(frames, device=devices.cuda_device())
        return gray
    return np.stack([np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)) for frame in frames])


def warp_crops(
    frames: Images,
    numbers: NDArray[np.integer[Any]],
    matrices: NDArray[np.float64],
    size: tuple[int, int],
    interpolation: Interpolation,
) -> Images:
    """Sample crops at the places that matrices say, one interpolation of the frames' own pixels.

    "area" is bilinear, after a mean over as many pixels as fall into one of the crop, so that a
    crop that shrinks has no aliasing.

    Parameters
    ----------
    frames : (F, H, W) or (F, H, W, 3) uint8
        Gray or BGR; NumPy's or CuPy's. Beyond the border the last pixel is repeated.
    numbers : (N,) int
        Which frame each crop is cut from. NumPy's, as are the matrices: they are small, and go
        up with the call.
    matrices : (N, 2, 3) float64
        From (x, y, 1) of the crop to pixels of the frame; pixel centres at whole numbers.
    size : (height, width)
    interpolation : {"nearest", "linear", "cubic", "area", "lanczos4"}

    Returns
    -------
    (N, height, width) uint8
        Gray.

    Raises
    ------
    ValueError
        If an argument has a wrong shape or value.
    """
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    numbers = _checked_numbers(numbers, frames)
    matrices = np.asarray(matrices, np.float64).reshape(-1, 2, 3)
    if len(matrices) != len(numbers):
        raise ValueError(f"matrices must be one a crop, {len(numbers)}. Got {len(matrices)}.")
    if not np.isfinite(matrices).all():
        raise ValueError("matrices must be finite.")
    if devices.is_device_array(frames):
        from apexflow.kernels.crop import gpu

        crops: Images = gpu.warp_crops(
            frames, numbers, matrices, size, interpolation, device=devices.cuda_device()
        )
        return crops
    return cpu.warp_crops(frames, numbers, matrices, size, interpolation)


def resize_crops(
    frames: Images,
    numbers: NDArray[np.integer[Any]],
    boxes: NDArray[np.integer[Any]],
    size: tuple[int, int],
    interpolation: Interpolation,
) -> Images:
    """Cut boxes of whole pixels, resize them as ``cv2.resize`` does, and make them gray.

    Parameters
    ----------
    frames, numbers, size, interpolation
        As `warp_crops` takes them.
    boxes : (N, 4) int
        x0, y0, x1, y1 in pixels of the frame, inside it. NumPy's.

    Returns
    -------
    (N, height, width) uint8
        Gray.

    Raises
    ------
    ValueError
        If an argument has a wrong shape or value.
    """
    check_choice("interpolation", interpolation, INTERPOLATIONS)
    numbers = _checked_numbers(numbers, frames)
    boxes = np.asarray(boxes, np.int64).reshape(-1, 4)
    if len(boxes) != len(numbers):
        raise ValueError(f"boxes must be one a crop, {len(numbers)}. Got {len(boxes)}.")
    start, sides = boxes[:, :2], boxes[:, 2:] - boxes[:, :2]
    outside = (start < 0) | (sides < 1) | (boxes[:, 2:] > frames.shape[2:0:-1])
    if outside.any():
        wrong = boxes[outside.any(axis=1)][0].tolist()
        raise ValueError(f"boxes must lie inside frames of {frames.shape[1:3]}. Got {wrong}.")
    if devices.is_device_array(frames):
        from apexflow.kernels.crop import gpu

        crops: Images = gpu.resize_crops(
            frames, numbers, boxes, size, interpolation, device=devices.cuda_device()
        )
        return crops
    return cpu.resize_crops(frames, numbers, boxes, size, interpolation)


def _checked_numbers(numbers: NDArray[np.integer[Any]], frames: Any) -> NDArray[np.int64]:
    checked = np.asarray(numbers, np.int64).ravel()
    outside = checked[(checked < 0) | (checked >= len(frames))]
    if outside.size:
        raise ValueError(f"numbers must be below {len(frames)}. Got {outside[0]}.")
    return checked
