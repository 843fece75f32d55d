"""A frame whose scores are known, to search the frames that resemble it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels.simd_bytes import MAXIMUM_DOTS, WIDTH
from apexflow.kernels.template import cpu
from apexflow.kernels.template.sums import where

Scores = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
"""Positions (y * columns + x) in row-major order, with products and norms."""

MOST_CANDIDATES = 512
"""Positions whose computation takes about as long as the DFTs of a region."""

_FIRST = 3
"""Frames that show how many positions a fresh key frame leaves. One may be the template's own
frame, which leaves a single one."""


def can_be_key(region: tuple[int, ...], template: tuple[int, ...]) -> bool:
    """Whether `KeyFrame` serves regions and templates of these shapes.

    All windows must overlap, a row must fill a vector, and the sums of rows and columns must
    fit 32 bits. Other regions are searched by their spectra alone.
    """
    height, width, channels = template
    return (
        region[0] < 2 * height
        and region[1] < 2 * width
        and region[0] < 1 << 15
        and width * channels >= WIDTH
        and region[1] * channels <= MAXIMUM_DOTS * WIDTH
    )


class KeyFrame:
    """A region of (H, W, C) uint8 with bounds of its scores.

    Parameters
    ----------
    region : (H, W, C) uint8
        Copied.
    pattern
        The template.
    products : (H - h + 1, W - w + 1) float64
        At least the products at all positions.
    norms : (H - h + 1, W - w + 1) int64
        The norms at all positions.
    """

    def __init__(
        self,
        region: NDArray[np.uint8],
        pattern: cpu.Pattern,
        products: NDArray[np.float64],
        norms: NDArray[np.int64],
    ) -> None:
        self.shape = region.shape
        self._pattern = pattern
        self._key = _prepare_key(region, pattern, products, norms)
        self._hint = int(self._key.angles.argmin())
        self._served = self._usual = self._excess = 0

    def search(self, region: NDArray[np.uint8]) -> Scores | None:
        """Return the best positions of a region of the same shape, and near ties.

        None when it is too different from the key frame, or when the frames have drifted so far
        from it that a new key frame pays.
        """
        if self._excess > MOST_CANDIDATES:
            return None
        positions, products, norms, computed = cpu.search(
            region.ctypes.data,
            region.strides[0],
            self._key,
            self._pattern,
            self._hint,
            MOST_CANDIDATES,
        )
        if positions.size == 0:
            return None
        self._served += 1
        if self._served <= _FIRST:
            self._usual = max(self._usual, computed)
        self._excess += max(0, computed - self._usual)
        self._hint = int(positions[0])
        return positions, products, norms

    def products(
        self, region: NDArray[np.uint8], sums: NDArray[np.int64], at: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Return the exact products of a region at some positions, given its window sums."""
        y, x = np.divmod(at, sums.shape[1])
        height, width, channels = self.shape
        offsets = y * region.strides[0] + x * channels
        row_bytes = (width - sums.shape[1] + 1) * channels
        area = (height - sums.shape[0] + 1) * row_bytes // channels
        # The template counts from -128 on here, the region from 0.
        products = cpu.dot_products(*where(region)[:2], row_bytes, self._pattern.packed, offsets)
        return area * products - (sums[y, x] + 128 * area) @ self._pattern.sums


def near_best(
    products: NDArray[np.float64], error: float, norms: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the positions that may be the best if the products are wrong by ``error``."""
    scale = 1 / np.sqrt(np.maximum(norms, 1))
    wrong = error * (norms > 0) * scale  # the score of a flat window is 0 for certain
    scores = products * (norms > 0) * scale
    return np.flatnonzero(scores + wrong >= (scores - wrong).max())


def prepare_pattern(template: NDArray[np.uint8], sums: NDArray[np.int64], norm: int) -> cpu.Pattern:
    """Prepare a template of (h, w, C) uint8 for the compiled steps."""
    return cpu.Pattern(_flipped(template), sums, float(norm))


def _prepare_key(
    region: NDArray[np.uint8],
    pattern: cpu.Pattern,
    products: NDArray[np.float64],
    norms: NDArray[np.int64],
) -> cpu.Key:
    """Prepare a region of (H, W, C) uint8 whose products (at most these) and norms are known."""
    height, width, channels = region.shape
    pixels = np.array(region, order="C").reshape(height, -1)
    masks = np.zeros((channels, width, channels), np.uint8)
    masks[range(channels), :, range(channels)] = 1
    masks = cpu.pack_rows(masks.reshape(channels, -1))
    packed = _flipped(region)
    margin = (norms.shape[1] - 1) * channels
    address, stride = pixels.ctypes.data, pixels.strides[0]
    right = pixels.shape[1] - margin
    window_height = height - norms.shape[0] + 1
    area = window_height * (width - norms.shape[1] + 1)
    lengths = np.sqrt(norms)
    cosines = np.divide(
        products, lengths * np.sqrt(pattern.norm), out=np.zeros(norms.shape), where=norms > 0
    )
    return cpu.Key(
        pixels,
        packed,
        masks,
        cpu.row_sums(address, stride, pixels.shape[1], masks, packed),
        cpu.column_sums(address, stride, pixels, margin, right, norms.shape[0] - 1, window_height),
        np.arccos(np.clip(cosines, -1, 1)),
        lengths / np.sqrt(area),
    )


def _flipped(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the packed rows of ``image - 128``."""
    return cpu.pack_rows((image ^ np.uint8(128)).reshape(image.shape[0], -1))
