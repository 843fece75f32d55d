"""Estimates of the apex, for data sets that annotate none: on crops in which the face is still.

Both take the frame that shows most of the expression. What the whole face does together (the rest
of the alignment, below a pixel, and the light) is taken out first: without that step the estimates
are worse than the middle of the clip. Each comes with a confidence: how much of the motion that one
half of the frames shows is found again in the other half. Noise is not.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.quality import Flag

ApexMethod = Literal["middle", "difference", "flow"]
Curve = NDArray[np.float64]
Images = NDArray[np.float32]

CLEAR = 0.4
"""The least confidence of a clear apex.

Clips without motion have less in light that drifts or flickers, expressions of 1 px more. Light
that takes one course over the clip, from the side or in its gamma, is found in both halves as
motion is: docs/motion.md has the figures (benchmarks/apex.py).
"""

_SIDE = 112  # px; at 56 errors are two to three times as large, at 224 a tenth smaller
_BLUR = 1.0  # px at that side: below it noise decides, at 2 the error doubles
_SPREAD = 1 / 16  # of the clip: smoothing of the curve over time
_NORMALIZATION = 4.0  # px at that side, as of crops twice as large
_SMOOTHNESS, _NEIGHBOURHOOD = 100.0, 4.0  # the same of `clg`
_CANDIDATES = 12  # frames of which the one that moved most begins
_MEAN = 1 / 32  # of the clip: a mean takes this on each side
_FITS = 2  # of amplitudes, each along the flow to the peak of the amplitudes before
_HALVES = 1 / 12  # of the clip: frames on each side that the confidence compares


class ApexEstimate(NamedTuple):
    """Where the apex is, and how sure that is.

    Attributes
    ----------
    position : int
        0 <= position < n; for n >= 3 neither the first nor the last frame.
    confidence : float
        0 to 1. From each half of the frames around the first and around the apex, the even and
        the odd ones, a flow is computed, and the other half's frames are projected on it: the
        mean amplitude of the apex there, 1 where they show the same motion and 0 where they
        show none. 0, too, where the curve is highest at an end of the clip, which is no peak,
        and where fewer than two frames lie before the apex.
    """

    position: int
    confidence: float


def apex_flags(confidence: float | None) -> tuple[Flag, ...]:
    """Return the flag ``apex-unclear`` with the confidence, where an estimate's is below `CLEAR`.

    None, of an apex that was not estimated, has no flag. A clip's is in `ClipPlan.apex_confidence`.
    """
    if confidence is None or confidence >= CLEAR:
        return ()
    return (Flag("apex-unclear", confidence),)


def estimate_apex(frames: NDArray[np.uint8], *, method: ApexMethod) -> ApexEstimate:
    """Find the frame in which the expression is strongest.

    Parameters
    ----------
    frames : uint8 (n, H, W)
        Aligned crops from onset to offset, n >= 1.
    method : {"middle", "difference", "flow"}
        "middle" is the position halfway. The others take the light out first. "difference" is
        the largest mean square difference from the first frame that an affine motion of the
        head does not explain, to first order and in least squares. "flow" computes flow
        (`apexflow.kernels.clg`) from the first frames to where the face has moved most, and
        gives each frame its amplitude along that flow, beside an affine motion of the head: the
        largest one is the apex. Better where the motion is small.

    Returns
    -------
    ApexEstimate
        ``(position, confidence)``; a clip of equal frames gives the middle, with confidence 0.

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
    if len(frames) < 3 or (frames == frames[0]).all():
        return ApexEstimate(middle, 0.0)
    images = _evened(_reduced(frames))
    if method == "middle":
        return ApexEstimate(middle, _confidence(images, middle))
    curve = _smoothed(_differences(images) if method == "difference" else _amplitudes(images))
    position = _peak(curve)
    if curve.argmax() in (0, len(curve) - 1):
        return ApexEstimate(position, 0.0)
    return ApexEstimate(position, _confidence(images, position))


def _peak(curve: Curve) -> int:
    """Return where a curve is highest between its ends."""
    return 1 + int(np.argmax(curve[1:-1]))


def _reduced(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = frames.shape[1:]
    scale = min(1.0, _SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames])


def _differences(images: Images) -> Curve:
    """Return the mean square of what the head's motion does not explain."""
    blurred = _blurred(images)
    first = blurred[0]
    # A shift of (dx, dy) changes the picture by dx * its x gradient + dy * its y gradient.
    affine = _affine(first.shape)
    causes = [gradient * motion for gradient in _gradients(first) for motion in affine]
    change = (blurred - first).reshape(len(images), -1).T
    return _unexplained(np.stack(causes, axis=-1).reshape(-1, len(causes)), change)


def _evened(frames: NDArray[np.uint8]) -> Images:
    """Return frames without their light."""
    from apexflow.kernels import normalize_light

    return np.stack([normalize_light(frame, sigma=_NORMALIZATION) for frame in frames])


def _amplitudes(images: Images) -> Curve:
    """Return how much of the clip's strongest motion each frame shows; about 1 at the apex."""
    count = len(images)
    near = max(1, round(count * _MEAN))
    first = images[: near + 1]

    def flow_to(position: int) -> Images:
        return _flow(first, images[max(0, position - near) : position + near + 1])

    spread = np.linspace(1, count - 2, min(_CANDIDATES, count - 2))
    candidates = np.unique(np.rint(spread).astype(int)).tolist()
    position = max(candidates, key=lambda candidate: _deformation(flow_to(candidate)))
    for _ in range(_FITS):
        curve = _projected(images, first, flow_to(position))
        position = _peak(_smoothed(curve))
    return curve


def _confidence(images: Images, apex: int) -> float:
    """Return how much of a half's motion the other half shows, see `ApexEstimate`."""
    numbers = np.arange(len(images))
    reach = max(2, round(len(images) * _HALVES))
    rest_ends = min(reach, max(1, (apex - 1) // 2))
    rest = numbers[: rest_ends + 1]
    top = numbers[(abs(numbers - apex) <= reach) & (numbers > max(rest_ends, apex // 2))]
    shares = []
    for parity in (0, 1):
        own = [part[part % 2 == parity] for part in (rest, top)]
        other = [part[part % 2 != parity] for part in (rest, top)]
        if apex < 2 or not all(map(len, (*own, *other))):
            return 0.0
        flow = _flow(*(images[part] for part in own))
        shares.append(_projected(images[other[1]], images[other[0]], flow).mean())
    return float(np.clip(np.mean(shares), 0, 1))


def _flow(first: Images, second: Images) -> Images:
    """Return the flow (H, W, 2) between the means of images (n, H, W)."""
    from apexflow.kernels import clg

    return clg(first.mean(axis=0), second.mean(axis=0), alpha=_SMOOTHNESS, rho=_NEIGHBOURHOOD)


def _deformation(flow: Images) -> float:
    """Return the mean square of a flow without its affine part."""
    affine = np.stack(_affine(flow.shape[:2]), axis=-1).reshape(-1, 3)
    parts = flow.astype(np.float64).reshape(-1, 2)
    return float(_unexplained(affine, parts).sum())


def _projected(images: Images, first: Images, flow: Images) -> Curve:
    """Return the amplitude (n,) of images along a flow, against the mean of the first ones.

    To first order and in least squares, beside an affine motion of the head.
    """
    blurred = _blurred(images)
    reference = _blurred(first).mean(axis=0)
    gradients = _gradients(reference)
    along = sum(gradients[axis] * flow[..., axis] for axis in (0, 1))
    head = [gradient * motion for gradient in gradients for motion in _affine(reference.shape)]
    causes = np.stack([along, *head], axis=-1).reshape(reference.size, -1)
    change = (reference - blurred).reshape(len(images), -1).T
    return _weights(causes, change)[0]


def _blurred(images: NDArray[Any]) -> Curve:
    return np.stack([cv2.GaussianBlur(i.astype(np.float64), (0, 0), _BLUR) for i in images])


def _gradients(image: Curve) -> tuple[Curve, Curve]:
    """Return the derivatives of an image in x and y."""
    padded = np.pad(image, 1, mode="edge")
    return (
        (padded[1:-1, 2:] - padded[1:-1, :-2]) / 2,
        (padded[2:, 1:-1] - padded[:-2, 1:-1]) / 2,
    )


def _affine(shape: tuple[int, ...]) -> tuple[Curve, Curve, Curve]:
    """Return 1, x and y of each pixel: what the motion of a rigid head is made of."""
    y, x = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij")
    return np.ones_like(x), x, y


def _unexplained(causes: Curve, change: Curve) -> Curve:
    """Return the mean square of ``change`` (pixels, n) that ``causes`` (pixels, k) leave."""
    return np.asarray(((change - causes @ _weights(causes, change)) ** 2).mean(axis=0))


def _weights(causes: Curve, change: Curve) -> Curve:
    """Return the weights (k, n) of the causes that explain most of the change."""
    # By the small normal equations: lstsq decomposes all the pixels, five times slower.
    return np.asarray(np.linalg.pinv(causes.T @ causes, hermitian=True) @ (causes.T @ change))


def _smoothed(curve: Curve) -> Curve:
    spread = max(0.5, len(curve) * _SPREAD)
    reach = int(3 * spread) + 1
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / spread) ** 2)
    padded = np.pad(curve, reach, mode="edge")
    return np.convolve(padded, weights / weights.sum(), mode="valid")
