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

_SIDE = 112  # px; at 56 errors are two to three times as large, at 224 a tenth smaller
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
        from the first frame that an affine motion of the head, a gain and an offset do not
        explain, to first order and in least squares. "flow" is the largest mean square
        Farnebäck flow from the first frame that an affine motion does not explain; better,
        and two to three times slower.

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
    """Return the mean square of what the head's motion and the light do not explain."""
    blurred = np.stack([cv2.GaussianBlur(f.astype(np.float64), (0, 0), _BLUR) for f in frames])
    first = blurred[0]
    # A shift of (dx, dy) changes the picture by dx * its x gradient + dy * its y gradient.
    padded = np.pad(first, 1, mode="edge")
    gradients = (
        (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2,
        (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2,
    )
    affine = _affine(first.shape)
    causes = [gradient * motion for gradient in gradients for motion in affine]
    causes += [first, np.ones_like(first)]
    change = (blurred - first).reshape(len(frames), -1).T
    return _unexplained(np.stack(causes, axis=-1).reshape(-1, len(causes)), change)


def _flows(frames: NDArray[np.uint8]) -> Curve:
    """Return the mean square flow from the first frame, without its affine part."""
    from apexflow.kernels.flow_farneback import farneback

    flows = [farneback(frames[0], frame) for frame in frames[1:]]
    affine = np.stack(_affine(frames.shape[1:]), axis=-1).reshape(-1, 3)
    parts = np.stack(flows).astype(np.float64).reshape(len(flows), -1, 2)
    motion = sum(_unexplained(affine, parts[:, :, axis].T) for axis in (0, 1))
    return np.concatenate([[0.0], motion])


def _affine(shape: tuple[int, ...]) -> tuple[Curve, Curve, Curve]:
    """Return 1, x and y of each pixel: what the motion of a rigid head is made of."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return np.ones_like(x), x, y


def _unexplained(causes: Curve, change: Curve) -> Curve:
    """Return the mean square of ``change`` (pixels, n) that ``causes`` (pixels, k) leave."""
    # By the small normal equations: lstsq decomposes all the pixels, five times slower.
    weights = np.linalg.pinv(causes.T @ causes, hermitian=True) @ (causes.T @ change)
    return np.asarray(((change - causes @ weights) ** 2).mean(axis=0))


def _smoothed(curve: Curve) -> Curve:
    spread = max(0.5, len(curve) * _SPREAD)
    reach = int(3 * spread) + 1
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / spread) ** 2)
    padded = np.pad(curve, reach, mode="edge")
    return np.convolve(padded, weights / weights.sum(), mode="valid")
