"""The Gaussian that light and flow are averaged with: separable, exact, truncated at 4 sigma.

As `cv2.GaussianBlur` truncates it for float images; beyond the image it sees what is mirrored
at the border pixels (BORDER_REFLECT_101). A sum of 65 terms a pixel and direction costs less
than it seems: 224x224 pixels at sigma 8 take 0.1 ms in whole vectors, so nothing recursive, and
no running sum that drifts, is needed.

The kernels work on planes: rows of whole vectors, `pitch` floats long, with a gap of `GAP`
floats before each row and two behind the last.
"""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels.compiled import njit
from apexflow.kernels.simd import LANES, load, muladd, splat, store

Floats = NDArray[np.float32]

GAP = 16
TRUNCATION = 4.0

_PAIR = 2 * LANES


@functools.lru_cache(maxsize=64)
def gaussian_taps(sigma: float) -> Floats:
    """Return one half of the weights, the middle one first: of a sum of 1, within rounding."""
    radius = int(TRUNCATION * sigma + 0.5)
    weights = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    weights /= weights[0] + 2 * weights[1:].sum()
    return weights.astype(np.float32)


@njit
def pitch_of(width):  # type: ignore[no-untyped-def]
    """Return the length of a plane's row: a whole number of pairs of vectors, and the gap."""
    return -(-width // _PAIR) * _PAIR + GAP


@njit
def plane_size(height, width):  # type: ignore[no-untyped-def]
    """Return how many floats a plane takes."""
    return height * pitch_of(width) + 2 * GAP


@njit
def mirrored(index, length):  # type: ignore[no-untyped-def]
    """Return an index mirrored at the first and last place as often as it takes."""
    if length == 1:
        return 0
    period = 2 * (length - 1)
    index = abs(index) % period
    return index if index < length else period - index


@njit
def row_room(width, radius):  # type: ignore[no-untyped-def]
    """Return how many floats `blur_down` needs for a row with what lies beyond its ends."""
    return pitch_of(width) + 2 * row_start(radius) + _PAIR


@njit
def row_start(radius):  # type: ignore[no-untyped-def]
    """Return where the row begins in that room."""
    return -(-radius // LANES) * LANES


@njit
def fill_offsets(offsets, height, width, radius):  # type: ignore[no-untyped-def]
    """Fill in where in a plane rows -radius to height + radius - 1 begin, mirrored."""
    pitch = pitch_of(width)
    for i in range(height + 2 * radius):
        offsets[i] = GAP + mirrored(i - radius, height) * pitch


@njit
def blur_down(  # type: ignore[no-untyped-def]
    planes, plane, offsets, y, width, taps, radius, row
):
    """Blur row ``y`` of the plane that starts at ``plane`` along its columns into ``row``.

    The ends of the row are mirrored beyond it, ready for `blur_across`.
    """
    start = row_start(radius)
    middle = y + radius
    for x in range(0, width, _PAIR):
        at = plane + offsets[middle] + x
        weight = splat(taps[0])
        a, b = load(planes, at) * weight, load(planes, at + LANES) * weight
        for k in range(1, radius + 1):
            above, below = plane + offsets[middle - k] + x, plane + offsets[middle + k] + x
            weight = splat(taps[k])
            a = muladd(load(planes, above) + load(planes, below), weight, a)
            b = muladd(load(planes, above + LANES) + load(planes, below + LANES), weight, b)
        store(row, start + x, a)
        store(row, start + x + LANES, b)
    for k in range(1, radius + 1):
        row[start - k] = row[start + mirrored(k, width)]
        row[start + width - 1 + k] = row[start + mirrored(width - 1 + k, width)]


@njit
def blur_across(row, x, taps, radius):  # type: ignore[no-untyped-def]
    """Return 16 pixels from ``x`` on of a row that `blur_down` left, blurred along the row."""
    at = row_start(radius) + x
    total = load(row, at) * splat(taps[0])
    for k in range(1, radius + 1):
        total = muladd(load(row, at - k) + load(row, at + k), splat(taps[k]), total)
    return total
