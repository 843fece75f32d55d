"""What depends on the image's size and the parameters alone: pyramid, taps, border weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels.simd import LANES

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Indices = NDArray[np.int64]
Size = tuple[int, int]
Tap = tuple[np.float32, ...]
T = TypeVar("T", bound=np.generic)

# OpenCV builds no pyramid level with a side below this.
MIN_SIDE = 32

# Rows of coefficients and flow have this many zeros before and after their pixels, so that a
# vector that holds one pixel of the image can be read whole.
PAD = LANES


class Taps(NamedTuple):
    """A one-dimensional filter per output position: ``out[i] = sum(weight[i] * x[source[i]])``."""

    source: Indices
    weight: Floats


@dataclass(frozen=True)
class Level:
    """One pyramid level: its size, and how it is reached from the full image and from below.

    Attributes
    ----------
    height, width : int
        Size in pixels.
    rows, columns : Taps
        Blur and bilinear reduction of the full image in one filter per axis.
    flow_rows, flow_columns : Taps
        Bilinear enlargement of the next coarser level's flow, of the vectors as well as of
        the grid; empty at the coarsest.
    border, border_rows : ndarray
        Weights of the observations: row ``y`` has the weights ``border[border_rows[y]]``.
    """

    height: int
    width: int
    rows: Taps
    columns: Taps
    flow_rows: Taps
    flow_columns: Taps
    border: Floats
    border_rows: Indices

    @property
    def pitch(self) -> int:
        """Elements of a row without margins: whole vectors."""
        return self.width + -self.width % LANES

    @property
    def storage(self) -> int:
        """Elements that `coefficients` takes."""
        return self.height * 5 * (PAD + self.pitch) + PAD

    def coefficients(self, place: Floats) -> Floats:
        """Lay (H, 5, PAD + pitch) coefficients out in the beginning of ``place``.

        PAD zeros follow, since vectors also reach over the end of the last row.
        """
        place[self.storage - PAD : self.storage] = 0
        return place[: self.storage - PAD].reshape(self.height, 5, PAD + self.pitch)


@lru_cache(maxsize=64)
def pyramid(height: int, width: int, pyr_scale: float, levels: int) -> tuple[Level, ...]:
    """Return the pyramid's levels, coarsest first, as OpenCV lays them out."""
    scales = [1.0]
    while len(scales) <= levels:
        scale = scales[-1] * pyr_scale
        if min(height, width) * scale < MIN_SIDE:
            break
        scales.append(scale)
    # Python's round and OpenCV's cvRound both take halves to the even number.
    sizes = [(round(height * scale), round(width * scale)) for scale in scales]
    steps = zip(scales, sizes, [*sizes[1:], (0, 0)], strict=True)
    built = [
        _level((height, width), size, coarser, scale, pyr_scale) for scale, size, coarser in steps
    ]
    return tuple(reversed(built))


def _level(full: Size, size: Size, coarser: Size, scale: float, pyr_scale: float) -> Level:
    border, border_rows = np.unique(border_weights(*size), axis=0, return_inverse=True)
    padding = ((0, 0), (0, -size[1] % LANES))
    return Level(
        *size,
        rows=_reduction(full[0], size[0], scale),
        columns=_reduction(full[1], size[1], scale),
        flow_rows=_enlargement(coarser[0], size[0], 1.0 / pyr_scale),
        flow_columns=_enlargement(coarser[1], size[1], 1.0),
        border=_frozen(np.pad(border, padding)),
        border_rows=_frozen(border_rows.reshape(-1).astype(np.int64)),
    )


def _reduction(size: int, reduced: int, scale: float) -> Taps:
    """Blur with the level's Gaussian, then sample bilinearly, along one axis."""
    sigma = (1.0 / scale - 1.0) * 0.5
    kernel = _gaussian(max(round(sigma * 5) | 1, 3), sigma)
    radius = len(kernel) // 2
    position = (np.arange(reduced) + 0.5) * (1.0 / (reduced / size)) - 0.5
    first, fraction = _cell(position, size)
    offsets = np.arange(-radius, radius + 2)
    index = _reflect101(first[:, None] + offsets, size)
    near, far = np.append(kernel, 0.0), np.append(0.0, kernel)
    weight = (1.0 - fraction)[:, None] * near + fraction[:, None] * far
    return Taps(_frozen(index), _frozen(weight.astype(np.float32)))


def _enlargement(size: int, enlarged: int, factor: float) -> Taps:
    """Bilinear weights; OpenCV rounds the position to float32 for two-channel images."""
    if size == 0:
        return Taps(np.zeros((0, 2), np.int64), np.zeros((0, 2), np.float32))
    position = (np.arange(enlarged) + 0.5) * (1.0 / (enlarged / size)) - 0.5
    first, fraction = _cell(position.astype(np.float32), size)
    index = np.minimum(first[:, None] + np.arange(2), size - 1)
    weight = np.stack([1.0 - fraction, fraction], axis=1) * factor
    return Taps(_frozen(index), _frozen(weight.astype(np.float32)))


def _cell(position: NDArray[np.floating], size: int) -> tuple[Indices, NDArray[np.floating]]:
    """Split positions into the sample before and the fraction, held inside [0, size - 1]."""
    position = np.clip(position, 0, size - 1)
    first = np.floor(position)
    return first.astype(np.int64), position - first


def _gaussian(length: int, sigma: float) -> NDArray[np.float64]:
    """Return OpenCV's kernel; sigma 0 (the full-size level, always of length 3) has its own."""
    if sigma <= 0:
        return np.array([0.25, 0.5, 0.25])
    x = np.arange(length) - length // 2
    kernel = np.exp(-(x**2) / (2 * sigma**2))
    return np.asarray(kernel / kernel.sum())


def _reflect101(index: Indices, size: int) -> Indices:
    """Mirror indices into [0, size - 1] without repeating the edge."""
    if size == 1:
        return np.zeros_like(index)
    index = np.abs(index) % (2 * (size - 1))
    return np.minimum(index, 2 * (size - 1) - index)


def border_weights(height: int, width: int) -> Floats:
    """Return the (H, W) weights by which OpenCV distrusts what lies near the border."""
    rows, columns = _border_profile(height), _border_profile(width)
    weights = rows[:, None] * columns
    # OpenCV compares x - 5 with size - 10 as unsigned numbers, so on sides below 10 px some
    # pixels count as inner ones.
    outer = _counts_as_border(height)[:, None] | _counts_as_border(width)
    return _frozen(np.where(outer, weights, np.float32(1)))


def _border_profile(size: int) -> Floats:
    profile = np.ones(size, np.float32)
    for i, weight in enumerate(np.array([0.14, 0.14, 0.4472, 0.4472, 0.4472], np.float32)[:size]):
        profile[i] *= weight
        profile[size - 1 - i] *= weight
    return profile


def _counts_as_border(size: int) -> NDArray[np.bool]:
    x = np.arange(size, dtype=np.int64)
    return (x - 5) % 2**32 >= (size - 10) % 2**32


@lru_cache(maxsize=64)
def poly_taps(n: int, sigma: float) -> tuple[tuple[Tap, Tap, Tap], float, float]:
    """Return the taps 0..n that fit a quadratic polynomial to a (2n+1)² neighbourhood.

    The fit is separable and weighted by a Gaussian g. Returned are g, x g and the taps of x²,
    which also take the constant's part away and hold their factor from the inverse of the
    normal equations; then the factors of x and y, and of xy.
    """
    if sigma < np.finfo(np.float32).eps:
        sigma = n * 0.3
    x = np.arange(-n, n + 1)
    kernel = np.exp(-(x**2) / (2 * sigma**2)).astype(np.float32)
    kernel = (kernel * (1.0 / kernel.sum(dtype=np.float64))).astype(np.float32)
    # The normal equations of 1, x, y, x², y², xy couple 1, x² and y² only.
    g = np.outer(kernel, kernel).astype(np.float64)
    s0, s2 = g.sum(), (g * x**2).sum()
    s4, s22 = (g * x**4).sum(), (g * x**2 * x[:, None] ** 2).sum()
    inverse = np.linalg.inv(np.array([[s0, s2, s2], [s2, s4, s22], [s2, s22, s4]]))
    half, x = kernel[n:].astype(np.float64), x[n:]
    curve = (inverse[0, 1] + x**2 * inverse[1, 1]) * half
    return (_tap(half), _tap(x * half), _tap(curve)), 1.0 / s2, 1.0 / s22


def _tap(values: NDArray[np.float64]) -> Tap:
    return tuple(np.float32(value) for value in values)


@lru_cache(maxsize=64)
def gaussian_window(winsize: int) -> Floats:
    """Return the weights of OpenCV's Gaussian averaging window, of odd length."""
    m = winsize // 2
    x = np.arange(1, m + 1)
    half = np.append(np.float32(1), np.exp(-(x**2) / (2 * (0.3 * m) ** 2)).astype(np.float32))
    half = half / (2.0 * half.sum(dtype=np.float64) - 1.0)
    return _frozen(np.concatenate([half[:0:-1], half]).astype(np.float32))


def _frozen(array: NDArray[T]) -> NDArray[T]:
    array = np.ascontiguousarray(array)
    array.flags.writeable = False
    return array
