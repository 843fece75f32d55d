"""The search on a GPU: all frames of a clip at once.

Per region of 680 x 580 gray pixels about 30 MB move, nearly all of them in the DFTs: 6 us at the
4.8 TB/s of an H200, and memory is what bounds the rest too. Everything stays on the device.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels.gpu import Device, in_batches
from apexflow.kernels.template.sums import CENTRE

_SOURCE = "template/template.cu"
_THREADS = 256  # a block; `SCAN_THREADS` where the source says so
_SCAN_THREADS = 128
_MOST_TRANSFORMS = 16
_BLOCKS = 1056  # eight on each of 132 processors: enough to keep an H200 busy

_STAGE_ERROR = 10 * 2.0**-24
"""Of a float32 DFT for each doubling of its length, relative to the sum of magnitudes.

Higham 2002, Accuracy and Stability of Numerical Algorithms, section 24.1: ``mu + 4 sqrt(2) u``
with u = 2 ** -24 and mu <= 4 u for the error of the roots of unity. A radix of 3, 5 or 7 sums more
terms in one stage, which stands for more doublings.
"""


def relative_error(points: int) -> float:
    """Bound the error of a float32 correlation by DFT, relative to the norms of both images.

    The errors e of the two forward transforms, in norm, change the product of the spectra by
    ``2 e |R| |T|`` in the sum of magnitudes, and so each value of the inverse by as much. The
    inverse's own error is `_STAGE_ERROR` times that sum, which is at most ``|R| |T|`` too, for
    each stage. Two stages more stand for transforms of real numbers, one for the products.

    Parameters
    ----------
    points : int
        Length of the DFT, both dimensions together.
    """
    return (3 * (math.log2(points) + 2) + 1) * _STAGE_ERROR


class DeviceMatcher:
    """One template on a device, prepared to be found in many regions.

    Parameters
    ----------
    template : (h, w, C) uint8
        NumPy's.
    sums : (C,) int64
        Of its pixels less 128.
    norm : int
        The area times the sum of squares, less the squares of the sums.
    device : Device
    """

    def __init__(
        self, template: NDArray[np.uint8], sums: NDArray[np.int64], norm: int, *, device: Device
    ) -> None:
        self._template = template
        self._norm = norm
        self._area = template.shape[0] * template.shape[1]
        self._device = device
        self._means = np.rint(sums / self._area).astype(np.int64)
        self._deviation = _norm_about(self._means, template)
        self._pattern = device.xp.asarray(_packed(template))
        self._sums_there = device.xp.asarray(sums)
        self._means_there = device.xp.asarray(self._means)
        self._spectra: dict[tuple[int, int], Any] = {}

    def match_all(self, regions: Any) -> tuple[Any, Any, Any]:
        """Find the template in regions (N, H, W, C) uint8 of the device.

        Returns
        -------
        y, x : (N,) int32
        score : (N,) float64
        """
        xp, count = self._device.xp, len(regions)
        if self._norm == 0:
            zeros = xp.zeros(count, np.int32)
            return zeros, zeros.copy(), xp.zeros(count)
        regions = xp.ascontiguousarray(regions)
        each = self._bytes_each(regions.shape[1:])
        parts = in_batches(lambda part: self._search(regions[part]), count, each, self._device)
        y, x, score = (xp.concatenate(part) for part in zip(*parts, strict=True))
        return y, x, score

    def _search(self, regions: Any) -> tuple[Any, Any, Any]:
        return self.choose(regions, *self.correlate(regions))

    def correlate(self, regions: Any) -> tuple[Any, Any, Any]:
        """Multiply the template with all windows, in float32.

        Returns
        -------
        correlations : (N, plane height, plane width) float32
            Sums of (pixel - mean of the region) * (pixel - mean of the template), at the
            positions in the upper left corner.
        means : (N, C) int64
            Whole numbers near the means of the regions' pixels less 128.
        errors : (N,) float64
            How much a correlation may be wrong.
        """
        xp = self._device.xp
        count, height, width, channels = regions.shape
        sums = xp.empty((count, channels), np.int64)
        squares = xp.empty_like(sums)
        size = np.int32(height), np.int32(width), np.int32(channels)
        source = (regions, *size)
        self._start("sum_pixels", (count * channels,), _THREADS, *source, sums, squares)
        pixels = height * width
        means = xp.rint(sums / pixels).astype(np.int64)
        norms = xp.sqrt((squares - 2 * means * sums + pixels * means * means).sum(axis=1))
        plane = _plane_size(height, width)
        batch = _transforms(count)
        planes = xp.empty((-(-count // batch) * batch, channels, *plane), np.float32)
        planes[count:] = 0
        self._start(
            "spread_planes",
            (_blocks(plane[0] * plane[1]), count, channels),
            _THREADS,
            *source,
            means,
            planes,
            *map(np.int32, plane),
        )
        correlations = xp.empty((count, *plane), np.float32)
        for start in range(0, count, batch):
            spectra = xp.fft.rfft2(planes[start : start + batch])
            spectra *= self._spectrum(plane)
            product = spectra[:, 0] if channels == 1 else spectra.sum(axis=1)
            stop = min(start + batch, count)
            correlations[start:stop] = xp.fft.irfft2(product, s=plane)[: stop - start]
        errors = norms * (relative_error(plane[0] * plane[1]) * self._deviation)
        return correlations, means, errors

    def choose(
        self, regions: Any, correlations: Any, means: Any, errors: Any
    ) -> tuple[Any, Any, Any]:
        """Return y, x, score of the best position, exactly, if correlations err by ``errors``."""
        xp = self._device.xp
        count, height, width, channels = regions.shape
        h, w = self._template.shape[:2]
        rows, columns = height - h + 1, width - w + 1
        positions = rows * columns
        integers = {
            "width": width,
            "channels": channels,
            "window_height": h,
            "window_width": w,
            "rows": rows,
            "columns": columns,
        }
        shape = tuple(map(np.int32, integers.values()))
        sums = xp.empty((count, rows, channels, width), np.uint32)
        squares = xp.empty((count, rows, width), np.uint64)
        self._start(
            "sum_columns",
            (_blocks(width), count),
            _THREADS,
            regions,
            *shape[:3],
            shape[4],
            sums,
            squares,
        )
        self._start("accumulate_rows", (count * rows,), _SCAN_THREADS, sums, squares, *shape[:2])
        least, largest = (xp.empty((count, positions), np.float64) for _ in range(2))
        self._start(
            "bound_scores",
            (_blocks(positions), count),
            _THREADS,
            correlations,
            *map(np.int32, correlations.shape[1:]),
            sums,
            squares,
            *shape,
            means,
            self._means_there,
            self._sums_there,
            # Rounding of the float64 steps that follow is far below.
            errors * self._area * (1 + 1e-6),
            least,
            largest,
        )
        candidates = xp.empty((count, positions), np.int32)
        counts = xp.empty(count, np.int32)
        self._start(
            "find_candidates",
            (count,),
            _SCAN_THREADS,
            least,
            largest,
            np.int32(positions),
            candidates,
            counts,
        )
        products, norms = (xp.empty((count, positions), np.int64) for _ in range(2))
        words = self._packed_regions(regions)
        # How many candidates there are only the device knows: its blocks share them out.
        self._start(
            "multiply_exactly",
            (max(4, _BLOCKS // count), count),
            _THREADS,
            words,
            *map(np.int32, words.shape[1:]),
            self._pattern,
            np.int32(self._pattern.shape[1]),
            sums,
            squares,
            *shape,
            self._sums_there,
            candidates,
            counts,
            products,
            norms,
        )
        y, x = (xp.empty(count, np.int32) for _ in range(2))
        score = xp.empty(count, np.float64)
        self._start(
            "choose_best",
            (count,),
            _SCAN_THREADS,
            candidates,
            counts,
            products,
            norms,
            np.int32(positions),
            shape[5],
            np.float64(self._norm),
            y,
            x,
            score,
        )
        return y, x, score

    def _packed_regions(self, regions: Any) -> Any:
        count, height, width, channels = regions.shape
        length = width * channels
        pitch = -(-length // 4) + 1  # a window that starts within a word reads one more
        words = self._device.xp.empty((count, height, pitch), np.uint32)
        self._start(
            "pack_words",
            (_blocks(height * pitch), count),
            _THREADS,
            regions,
            np.int32(height),
            np.int32(length),
            words,
            np.int32(pitch),
        )
        return words

    def _spectrum(self, plane: tuple[int, int]) -> Any:
        """Return the template's conjugate spectra (C, ...), kept for the next regions."""
        if plane not in self._spectra:
            xp = self._device.xp
            h, w, channels = self._template.shape
            planes = np.zeros((channels, *plane), np.float32)
            centred = self._template.astype(np.float32) - (CENTRE + self._means)
            planes[:, :h, :w] = np.moveaxis(centred, 2, 0)
            self._spectra = {plane: xp.conj(xp.fft.rfft2(xp.asarray(planes)))}
        return self._spectra[plane]

    def _bytes_each(self, shape: tuple[int, ...]) -> int:
        """Estimate the memory that one region takes."""
        height, width, channels = shape
        rows, columns = height - self._template.shape[0] + 1, width - self._template.shape[1] + 1
        points = math.prod(_plane_size(height, width))
        # Planes and spectra, as much again for the DFT's work, and the correlations.
        transforms = points * (16 * channels + 12)
        sums = rows * (width * (4 * channels + 8) + columns * 36)
        return transforms + sums + height * (width * channels + 8)

    def _start(self, name: str, grid: tuple[int, ...], threads: int, *arguments: Any) -> None:
        self._device.kernel(_SOURCE, name)(grid, (threads,), arguments)


def _norm_about(means: NDArray[np.int64], template: NDArray[np.uint8]) -> float:
    centred = template.astype(np.int64) - (CENTRE + means)
    return math.sqrt(float((centred * centred).sum()))


def _packed(template: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return rows of words of four signed bytes, filled up with zeros."""
    rows = template.reshape(template.shape[0], -1) ^ np.uint8(CENTRE)
    words = np.zeros((rows.shape[0], -(-rows.shape[1] // 4) * 4), np.uint8)
    words[:, : rows.shape[1]] = rows
    return words.view("<u4").astype(np.uint32)


def _plane_size(height: int, width: int) -> tuple[int, int]:
    """Return the size of the DFT: products of 2, 3, 5 and 7, for which it is fastest.

    The region's own size would be large enough: no valid position wraps around. A plan of a DFT
    takes milliseconds to make and megabytes to keep, and each face has a size of its own: rounded
    to few sizes, clips find the plans of those before them.
    """
    return _smooth(height, _step(height)), _smooth(width, _step(width))


def _step(length: int) -> int:
    """Return what sizes of about that length are multiples of: a sixteenth to an eighth of it."""
    return max(2, 1 << max(0, length.bit_length() - 4))


def _transforms(count: int) -> int:
    """Return of how many regions the DFTs are made together: few numbers, for few plans."""
    return min(_MOST_TRANSFORMS, 1 << (count - 1).bit_length())


def _smooth(length: int, step: int) -> int:
    """Return the next product of 2, 3, 5 and 7 that ``step`` divides."""
    length = -(-length // step) * step
    while _without_small_factors(length) > 1:
        length += step
    return length


def _without_small_factors(number: int) -> int:
    for factor in (2, 3, 5, 7):
        while number % factor == 0:
            number //= factor
    return number


def _blocks(threads: int) -> int:
    return -(-threads // _THREADS)
