"""What both forms of magnification take, and the images that motion is measured between."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.kernels._validate import check_image, check_same_shape
from apexflow.kernels.light import normalize_light

Image = NDArray[Any]
Floats = NDArray[np.float32]
Frames = Sequence[Image] | NDArray[Any]
"""A clip: an array of frames, or anything that has a length and gives a frame by its index."""

MOVES_MOST = 99.9
"""Percentile of a flow's lengths that counts as its longest: a few pixels at the border err."""
SMALLEST_SIDE = 16  # px: of what flow is computed between


def check_clip(frames: Any) -> tuple[int, Image]:
    """Return how many frames there are, and the first, which the others must resemble."""
    try:
        count, first = len(frames), frames[0]
    except (TypeError, IndexError, KeyError):
        raise ValueError(
            f"frames must be a sequence of images, one at least. Got {type(frames).__name__}."
        ) from None
    return count, check_image("frames[0]", first, minimum_size=SMALLEST_SIDE)


def read_frames(frames: Frames) -> Iterator[Image]:
    """Yield each frame of a clip, checked against the first."""
    for number in range(len(frames)):
        yield read_frame(frames, number)


def read_frame(frames: Frames, number: int) -> Image:
    """Return one frame of a clip, checked against the first."""
    frame = check_image(f"frames[{number}]", frames[number])
    if number:
        first = np.asarray(frames[0])
        check_same_shape(f"frames[{number}]", frame, "frames[0]", first)
        if (frame.dtype == np.uint8) != (first.dtype == np.uint8):
            raise ValueError(
                f"frames[{number}] must be {first.dtype}, as frames[0]. Got {frame.dtype}."
            )
    return frame


def without_light(image: Image) -> Floats:
    """Return a gray or RGB image as flow is measured in it: gray, its light taken out."""
    gray = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return normalize_light(gray)


def finished(values: Floats, dtype: np.dtype[Any]) -> Image:
    """Return gray levels in the dtype of the frames: of uint8 rounded, within 0 and 255."""
    if dtype != np.uint8:
        return values
    return np.asarray(values.round().clip(0, 255), np.uint8)


def room_for(count: int, first: Image, out: Image | None) -> Image:
    """Return where magnified frames are written, ``out`` where it is given."""
    shape = (count, *first.shape)
    if out is None:
        return np.empty(shape, first.dtype)
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != first.dtype:
        found = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ValueError(f"out must be a NumPy array, {first.dtype} {shape}. Got {found}.")
    return out


def longest(flow: Floats) -> float:
    """Return the length in px of the longest motion of a flow (H, W, 2)."""
    return float(np.percentile(np.hypot(flow[..., 0], flow[..., 1]), MOVES_MOST))
