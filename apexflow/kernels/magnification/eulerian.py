"""Eulerian magnification: what changes at each place is amplified, scale by scale.

H.-Y. Wu, M. Rubinstein, E. Shih, J. Guttag, F. Durand, W. Freeman, "Eulerian video magnification
for revealing subtle changes in the world", ACM Transactions on Graphics 31(4), 2012,
doi:10.1145/2185520.2185561.

To first order a gray level changes by motion times slope, so that alpha times that change, added,
looks like a motion of 1 + alpha times. How far this holds depends on the wavelength of what moves:
(1 + alpha) delta < lambda / 8 for a motion of delta px.

Temporal and spatial filters are linear and commute: the band in time is taken first, of whole
frames, and one pyramid is built of each change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.kernels._validate import check_integer, check_number, check_numbers
from apexflow.kernels.flow_clg import clg
from apexflow.kernels.magnification.arguments import (
    Floats,
    Frames,
    Image,
    check_clip,
    finished,
    longest,
    read_frames,
    room_for,
    without_light,
)
from apexflow.kernels.magnification.band import Band

FINEST = 5.0
"""Wavelength in px of the finest level; each further one has twice that of the one before.

Where a level of a pyramid of OpenCV's (taps 1, 4, 6, 4, 1) responds most is 10 px for the second,
20 for the third; the finest responds from 2 to 10 px.
"""
BOUND = 8.0
"""The published bound: (1 + alpha) delta < lambda / 8."""
_COARSEST_SIDE = 5  # px: published code's


@dataclass(frozen=True, slots=True)
class Level:
    """One scale of the pyramid.

    Attributes
    ----------
    wavelength : float
        lambda, in px.
    alpha : float
        What it was amplified by: alpha, or where the bound allows less, lambda / (8 delta) - 1,
        at least 0.
    """

    wavelength: float
    alpha: float


@dataclass(frozen=True, slots=True)
class EulerianMagnified:
    """A magnified clip, and how far the bound let it be magnified.

    Attributes
    ----------
    frames : ndarray
        Of shape and dtype of the clip.
    alpha : float
        What was asked for.
    motion : float
        delta, in px: the longest motion in the band, that the bound was checked with.
    levels : tuple of Level
        Finest first.
    """

    frames: Image
    alpha: float
    motion: float
    levels: tuple[Level, ...]

    @property
    def attenuated(self) -> tuple[Level, ...]:
        """The levels that the bound allowed less than alpha."""
        return tuple(level for level in self.levels if level.alpha < self.alpha)

    @property
    def beyond_bound(self) -> bool:
        """Whether no level could be amplified by alpha: the motion is too large for it."""
        return len(self.attenuated) == len(self.levels)


def magnify_eulerian(
    frames: Frames,
    alpha: float,
    *,
    rate: float,
    low: float = 0.0,
    high: float = 10.0,
    reference: int = 0,
    numbers: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    motion: float | None = None,
    out: Image | None = None,
) -> EulerianMagnified:
    """Magnify the motion of a clip by amplifying how the gray levels of each place change.

    Linear Eulerian magnification [1]_. The change of each pixel since the reference frame,
    within a band of frequencies, is taken apart into a Laplacian pyramid; each level is
    multiplied by alpha and added to the frame. A level at which (1 + alpha) delta exceeds
    lambda / 8, with delta the longest motion and lambda the level's wavelength, is amplified by
    lambda / (8 delta) - 1 only, as published; the result says which were. What is left below
    the coarsest level, mostly light, is not amplified.

    The filter is ideal (it takes the frequencies in the band as they are and nothing else), has
    no delay, and sees the clip mirrored at its ends: by the cosine transform, so that a clip
    that ends otherwise than it began does not ring.

    Parameters
    ----------
    frames : sequence of (H, W) or (H, W, 3) ndarray
        uint8 or float32, gray or RGB, sides of 16 px at least: an array (n, H, W), or anything
        with a length that gives a frame by its index. Each is read twice; what is kept are as
        many images as there are frequencies in the band, 2 (high - low) a second of the clip.
    alpha : float
        Motion becomes 1 + alpha times as large; 0 changes nothing.
    rate : float
        Frames a second.
    low, high : float
        The band in Hz, its ends included. With low = 0 only what is constant is left out. An
        expression of .2 to .5 s has little beyond 10 Hz.
    reference : int
        The index of the frame that stays as it is.
    numbers : sequence of int, optional
        The number of each frame, rising, where frames are missing. For the filter those are
        halfway between their neighbours; half of the frames at most may be missing.
    motion : float, optional
        delta in px. When not given it is measured: the longest flow (by the 99.9th percentile,
        `clg`) from the reference to the frame that differs from it the most, both within the
        band.
    out : ndarray, optional
        Where the magnified frames are written, such as an array that is mapped to disk.

    Returns
    -------
    EulerianMagnified

    Raises
    ------
    ValueError
        If an argument has a wrong shape, dtype or value, or no frequency of the clip lies in
        the band.

    References
    ----------
    .. [1] H.-Y. Wu, M. Rubinstein, E. Shih, J. Guttag, F. Durand, W. Freeman, "Eulerian video
       magnification for revealing subtle changes in the world", ACM Transactions on Graphics
       31(4), 2012. https://doi.org/10.1145/2185520.2185561

    Examples
    --------
    >>> import numpy as np
    >>> from apexflow.kernels import magnify_eulerian
    >>> x = np.arange(64, dtype=np.float32)
    >>> wave = lambda shift: 100 + 50 * np.sin((x - shift) / 4) * np.ones((64, 1), np.float32)
    >>> frames = np.stack([wave(0.02 * t) for t in range(11)])
    >>> magnified = magnify_eulerian(frames, 4, rate=25, high=12.5)
    >>> round(magnified.motion, 1), bool(abs(magnified.frames[10] - wave(1.0)).max() < 4)
    (0.2, True)
    """
    count, first = check_clip(frames)
    alpha = check_number("alpha", alpha, minimum=0)
    rate = check_number("rate", rate, above=0)
    low = check_number("low", low, minimum=0)
    high = check_number("high", high, above=low)
    reference = check_integer("reference", reference, minimum=0, maximum=count - 1)
    if motion is not None:
        motion = check_number("motion", motion, minimum=0)
    taken = check_numbers(numbers, count)
    result = room_for(count, first, out)
    band = Band(frames, taken, rate, low, high)
    if motion is None:
        motion = _longest_motion(band, reference)
    levels = levels_within_bound(first.shape[:2], alpha, motion)
    for number, frame in enumerate(read_frames(frames)):
        enlarged = _amplified(band.change(number, reference), levels)
        result[number] = finished(frame + enlarged, first.dtype)
    return EulerianMagnified(result, alpha, motion, levels)


def levels_within_bound(size: tuple[int, ...], alpha: float, motion: float) -> tuple[Level, ...]:
    """Return the levels of a pyramid of (height, width), each with what the bound allows."""
    wavelengths = FINEST * 2.0 ** np.arange(max(1, int(np.log2(min(size) / _COARSEST_SIDE))))
    most = wavelengths / (BOUND * motion) - 1 if motion else np.full(len(wavelengths), np.inf)
    allowed = np.clip(most, 0, alpha)
    return tuple(Level(*pair) for pair in zip(wavelengths.tolist(), allowed.tolist(), strict=True))


def _longest_motion(band: Band, reference: int) -> float:
    """Return the length of the longest motion in px, to where the frames differ most."""
    ends = (band.frame(number) for number in (reference, band.farthest(reference)))
    flow = clg(*(without_light(end) for end in ends))
    return longest(flow)


def _amplified(change: Floats, levels: Sequence[Level]) -> Floats:
    """Return a change, each scale of it times its level's alpha."""
    details = []
    for _ in levels:
        coarser = cv2.pyrDown(change)
        details.append(change - cv2.pyrUp(coarser, dstsize=change.shape[1::-1]))
        change = coarser
    total = np.zeros_like(change)
    for detail, level in zip(reversed(details), reversed(levels), strict=True):
        total = cv2.pyrUp(total, dstsize=detail.shape[1::-1]) + np.float32(level.alpha) * detail
    return np.asarray(total)
