"""Estimates of the apex, for data sets that annotate none: on crops in which the face is still.

Both compare every frame with the first one and take the frame that moved most from it.
What the whole face does together (the rest of the alignment, below a pixel, and the light) is
taken out first: without that step the estimates are worse than the middle of the clip.
"""

from __future__ import annotations

from typing import Literal, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

ApexMethod = Literal["middle", "difference", "flow"]
Curve = NDArray[np.float64]

_SIDE = 112  # px; at 56 the error doubles, at 224 it gains a tenth of a frame
_BLUR = 1.0  # px at that side: below it noise decides, at 2 the error doubles
_SPREAD = 1 / 16  # of the clip: smoothing of the curve over time


def estimate_apex(frames: NDArray[np.uint8], *, method: ApexMethod) -> int:
    """Return the position of the frame in which the expression is strongest.

    Parameters
    ----------
    frames : uint8 (n, H, W)
        Aligned crops from onset to offset, n >= 1.
    method : {"middle", "difference", "flow"}
        "middle" is the position halfway. "difference" is the largest mean square difference
        from the first frame, after the best global translation, gain and offset are taken
        out by linear least squares. "flow" is the largest mean square Farnebäck flow from
        the first frame, after its median is taken out; better, and about four times slower.

    Returns
    -------
    int
        0 <= position < n; for n >= 3 neither the first nor the last frame. A clip of equal
        frames gives the middle.

    Raises
    ------
    ValueError
        Another shape, dtype or method.
    """
    if frames.ndim != 3 or frames.dtype != np.uint8 or not frames.size:
        raise ValueError(
            f"frames must be uint8 (n, H, W), not empty. Got {frames.dtype} {frames.shape}."
        )
    if method not in get_args(ApexMethod):
        raise ValueError(f"method must be one of {get_args(ApexMethod)}. Got {method!r}.")
    middle = (len(frames) - 1) // 2
    if method == "middle" or len(frames) < 3 or (frames == frames[0]).all():
        return middle
    small = _reduced(frames)
    motion = _differences(small) if method == "difference" else _flows(small)
    return 1 + int(np.argmax(_smoothed(motion)[1:-1]))


def _reduced(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = frames.shape[1:]
    scale = min(1.0, _SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames])


def _differences(frames: NDArray[np.uint8]) -> Curve:
    """Return the mean square of what translation and light do not explain."""
    blurred = np.stack([cv2.GaussianBlur(f.astype(np.float64), (0, 0), _BLUR) for f in frames])
    first = blurred[0]
    # A shift of (dx, dy) changes the picture by dx * its x gradient + dy * its y gradient.
    padded = np.pad(first, 1, mode="edge")
    gradient_x = (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2
    gradient_y = (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2
    causes = np.stack([gradient_x, gradient_y, first, np.ones_like(first)], axis=-1).reshape(-1, 4)
    change = (blurred - first).reshape(len(frames), -1).T
    explained = causes @ np.linalg.lstsq(causes, change, rcond=None)[0]
    return np.asarray(((change - explained) ** 2).mean(axis=0))


def _flows(frames: NDArray[np.uint8]) -> Curve:
    """Return the mean square flow from the first frame, against its median."""
    from apexflow import kernels

    motion = np.zeros(len(frames))
    for i, frame in enumerate(frames[1:], start=1):
        flow = kernels.farneback(frames[0], frame)
        motion[i] = ((flow - np.median(flow, axis=(0, 1))) ** 2).sum(axis=-1).mean()
    return motion


def _smoothed(curve: Curve) -> Curve:
    spread = max(0.5, len(curve) * _SPREAD)
    reach = int(3 * spread) + 1
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / spread) ** 2)
    padded = np.pad(curve, reach, mode="edge")
    return np.convolve(padded, weights / weights.sum(), mode="valid")
