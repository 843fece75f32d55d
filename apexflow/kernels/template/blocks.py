"""Images cut into square blocks, of which two numbers bound every product with a template.

Let T be a template without its mean and W a window of a region. Of the n values of each block b
of the *region* are kept: its mean part m, sqrt(n) times the mean, and the length e of the rest.
The template, laid on the same blocks, gives t and f. By Cauchy-Schwarz on the rests

    <T, W>  =  sum_b (t_b m_b + <rest, rest>_b)  <=  sum_b (t_b m_b + f_b e_b),

which is one product of short vectors: for blocks of 8 pixels a 32nd of the multiplications. How
the template lies on the blocks depends on the window's place within a block, its *phase*: the
template's numbers are prepared once for each. Any constant may be taken from the region first,
another one from each channel; with one near the mean the bound is tight.

A block that the region's edge cuts off counts its own pixels, and those it lacks as their mean:
no window reaches those. Channels are pooled, so that the bound costs the same for colour.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from apexflow.kernels.simd import LANES, keep, muladd, pointer, splat
from apexflow.kernels.simd import load as load_floats
from apexflow.kernels.simd import total as sum_lanes
from apexflow.kernels.simd_bytes import WIDTH, dot, flip, load, store, zeros
from apexflow.kernels.template.sums import CENTRE, Where, copy

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Longs = NDArray[np.int64]

_STEP = 2 * LANES
"""Columns at a time: two vectors hide each other's latency."""

FINE = 8
"""Side of the blocks that bound single positions."""
CELL = 3
"""Positions on each side of a cell, which the coarse blocks bound together."""
COARSE = 24
"""Side of the coarse blocks; cells never cross their edges."""


class Grid(NamedTuple):
    """A template on the blocks of a region, at several phases.

    All lengths are divided by the template's.
    """

    means: Floats
    """(phases in y, phases in x, block rows, columns): t; the columns fill whole vectors."""
    rests: Floats
    """The same of f."""
    lengths: Doubles
    """(phases in y, phases in x): of the rests, at least."""
    error: float
    """How much a product with it may be wrong, relative to the length of the other factor."""


@njit(cache=True, nogil=True)
def template_parts(template: NDArray[np.uint8], means: Doubles, side: int) -> tuple[Floats, Floats]:
    """Lay a template (h, w, C) less its channels' means on blocks, at all (side, side) phases."""
    height, width, channels = template.shape
    rows = (height + 2 * side - 2) // side
    columns = (width + 2 * side - 2) // side
    lanes = -(-columns // _STEP) * _STEP
    plain, squared = np.zeros((height, width + 1)), np.zeros((height, width + 1))
    for y in range(height):
        value, square = 0.0, 0.0
        for x in range(width):
            for c in range(channels):
                centred = template[y, x, c] - means[c]
                value += centred
                square += centred * centred
            plain[y, x + 1] = value
            squared[y, x + 1] = square
    scale = 1 / math.sqrt(squared[:, width].sum())
    root = scale / math.sqrt(side * side * channels)
    t = np.zeros((side, side, rows, lanes), np.float32)
    f = np.zeros_like(t)
    # Sums over the columns of a block, and over all rows above.
    sums, squares = np.zeros((height + 1, columns)), np.zeros((height + 1, columns))
    rest, edges = np.empty(columns), np.empty(columns + 1, np.int64)
    for phase_x in range(side):
        for k in range(columns + 1):
            edges[k] = min(max(k * side - phase_x, 0), width)
        for y in range(height):
            for k in range(columns):
                value = plain[y, edges[k + 1]] - plain[y, edges[k]]
                square = squared[y, edges[k + 1]] - squared[y, edges[k]]
                sums[y + 1, k] = sums[y, k] + root * value
                squares[y + 1, k] = squares[y, k] + scale * scale * square
        for phase_y in range(side):
            for k in range(rows):
                first = min(max(k * side - phase_y, 0), height)
                behind = min((k + 1) * side - phase_y, height)
                for x in range(columns):
                    mean = sums[behind, x] - sums[first, x]
                    rest[x] = max(squares[behind, x] - squares[first, x] - mean * mean, 0.0)
                    t[phase_y, phase_x, k, x] = mean
                for x in range(columns):
                    f[phase_y, phase_x, k, x] = math.sqrt(rest[x])
    return t, f


def fine_grid(template: NDArray[np.uint8], means: Doubles) -> Grid:
    """Return the template on fine blocks, at every phase."""
    return _grid(*template_parts(template, means, FINE))


def coarse_grid(template: NDArray[np.uint8], means: Doubles) -> tuple[Grid, Doubles]:
    """Return the template on coarse blocks at the phases of the middles of cells.

    Also at least the cosine of the angle between the middle's numbers and those of any position
    of its cell.
    """
    cells = COARSE // CELL
    middles, cosines = [], np.zeros((cells, cells, CELL * CELL))
    for parts in template_parts(template, means, COARSE):
        by_cell = parts.reshape(cells, CELL, cells, CELL, -1)
        middle = np.ascontiguousarray(by_cell[:, CELL // 2, :, CELL // 2])
        products = by_cell.transpose(0, 2, 1, 3, 4).reshape(cells, cells, CELL * CELL, -1)
        cosines += (products @ middle[..., None])[..., 0]
        middles.append(middle.reshape(cells, cells, *parts.shape[2:]))
    grid = _grid(*middles)
    return grid, np.clip(cosines.min(2) - grid.error, -1.0, 1.0)


def _grid(means: Floats, rests: Floats) -> Grid:
    # The rounding of `multiply`: of the terms that one lane adds up, and of the numbers.
    error = (means[0, 0].size / LANES + 64) * 2.0**-24
    lengths = np.sqrt((rests.astype(np.float64) ** 2).sum((2, 3)))
    return Grid(means, rests, lengths * (1 + error), error)


@njit(cache=True, nogil=True)
def block_sums(image: Where, centres: Longs) -> tuple[Longs, Longs]:
    """Sum pixels less their channel's centre, and the squares, over the fine blocks of an image.

    Blocks at the right and lower edge are summed as far as there are pixels.
    """
    address, stride, height, width, channels = image
    length = width * channels
    vectors = -(-length // WIDTH)
    rows, columns = -(-height // FINE), -(-width // FINE)
    ones = np.ones(WIDTH, np.uint8)
    weights = np.empty(channels * WIDTH, np.uint8)  # signed: the centres, less CENTRE
    for i in range(weights.size):
        weights[i] = (centres[i % channels] - CENTRE) & 255
    last = np.zeros((FINE, WIDTH), np.uint8)
    lanes = np.zeros((3, max(vectors * LANES, columns * FINE * channels // 4)), np.int32)
    one, weight, tail, line = (
        ones.ctypes.data,
        weights.ctypes.data,
        last.ctypes.data,
        lanes.ctypes.data,
    )
    plane = 4 * lanes.shape[1]
    sums, squares = np.empty((rows, columns), np.int64), np.empty((rows, columns), np.int64)
    each = FINE * channels // 4
    whole = 0
    for c in range(channels):
        whole += centres[c] * centres[c]
    for k in range(rows):
        count = min(FINE, height - k * FINE)
        for i in range(vectors):
            at, step = address + k * FINE * stride + i * WIDTH, stride
            rest = length - i * WIDTH
            if rest < WIDTH:
                for y in range(count):
                    copy(last[y], at + y * stride, rest)
                at, step = tail, WIDTH
            a, b, c = zeros(), zeros(), zeros()
            for y in range(count):
                pixels = load(at + y * step)
                a = dot(a, pixels, load(one))
                b = dot(b, pixels, flip(pixels))
                c = dot(c, pixels, load(weight + i % channels * WIDTH))
            out = line + i * WIDTH
            store(out, a)
            store(out + plane, b)
            store(out + 2 * plane, c)
        for x in range(columns):
            plain = squared = weighted = 0
            for i in range(x * each, (x + 1) * each):
                plain += lanes[0, i]
                squared += lanes[1, i]
                weighted += lanes[2, i]
            pixels_here = count * min(FINE, width - x * FINE)
            squared += CENTRE * plain
            weighted += CENTRE * plain
            squares[k, x] = squared - 2 * weighted + pixels_here * whole
            for c in range(channels):
                plain -= pixels_here * centres[c]
            sums[k, x] = plain
    keep(ones)
    keep(weights)
    keep(last)
    return sums, squares


@njit(cache=True, nogil=True)
def pool(values: Longs) -> Longs:
    """Add up the fine blocks of each coarse one."""
    side = COARSE // FINE
    rows, columns = -(-values.shape[0] // side), -(-values.shape[1] // side)
    result = np.zeros((rows, columns), np.int64)
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            result[y // side, x // side] += values[y, x]
    return result


@njit(cache=True, nogil=True)
def region_parts(
    sums: Longs, squares: Longs, side: int, size: tuple[int, int, int], shape: tuple[int, int]
) -> tuple[Floats, Floats]:
    """Return m and e of a region's blocks.

    Parameters
    ----------
    sums, squares : (block rows, block columns) int64
        As `block_sums` gives them.
    side : int
        Of the blocks.
    size : (height, width, channels)
        Of the region.
    shape : (rows, columns)
        Of the result, at least as many as there are blocks; there are zeros where no block is.
    """
    height, width, channels = size
    mean = sums.sum() / (height * width * channels)
    root = math.sqrt(side * side * channels)
    means, rests = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for y in range(sums.shape[0]):
        tall = min(side, height - y * side) * channels
        for x in range(sums.shape[1]):
            count = float(tall * min(side, width - x * side))
            plain, square = float(sums[y, x]), float(squares[y, x])
            means[y, x] = root * (plain / count - mean)
            rests[y, x] = math.sqrt((count * square - plain * plain) / count)
    return means, rests


@njit(cache=True, nogil=True)
def add_energies(parts: Floats, energies: Doubles) -> None:
    """Add the squares of parts, summed from the upper left corner, to (rows + 1, columns + 1)."""
    above = np.zeros(parts.shape[1])
    for y in range(parts.shape[0]):
        line = 0.0
        for x in range(parts.shape[1]):
            above[x] += np.float64(parts[y, x]) * parts[y, x]
            line += above[x]
            energies[y + 1, x + 1] += line


@njit(cache=True, nogil=True)
def length_within(energies: Doubles, top: int, left: int, bottom: int, right: int) -> float:
    """Return the length of the parts of some blocks, given `add_energies`'s sums."""
    outer = energies[bottom, right] - energies[top, right]
    return math.sqrt(max(outer - energies[bottom, left] + energies[top, left], 0.0))


@njit(cache=True, nogil=True)
def multiply(grid: Floats, region: Floats, phases: Longs, starts: Longs) -> Doubles:
    """Multiply a template on blocks with a region's blocks, for windows of any phases and places.

    Parameters
    ----------
    grid : (phases in y, phases in x, block rows, lanes) float32
    region : (rows, columns) float32
    phases : (n,) int64
        y * (phases in x) + x of each window.
    starts : (n,) int64
        Where in ``region`` each window's first block lies, y * columns + x.

    Returns
    -------
    (n,) float64
    """
    rows, lanes = grid.shape[2], grid.shape[3]
    pitch = region.shape[1]
    # The windows in the order of their phases.
    ends = np.zeros(grid.shape[0] * grid.shape[1] + 1, np.int64)
    for phase in phases:
        ends[phase + 1] += 1
    ends = np.cumsum(ends)
    order, place = np.empty(phases.size, np.int64), ends.copy()
    for n in range(phases.size):
        order[place[phases[n]]] = n
        place[phases[n]] += 1
    result = np.empty(phases.size)
    template, image = pointer(grid), pointer(region)
    zero = splat(np.float32(0))
    for phase in range(ends.size - 1):
        last = ends[phase + 1] - 1
        for first in range(ends[phase], last + 1, 4):
            # Four windows share each load of the template.
            n0, n1 = order[first], order[min(first + 1, last)]
            n2, n3 = order[min(first + 2, last)], order[min(first + 3, last)]
            s0, s1, s2, s3 = starts[n0], starts[n1], starts[n2], starts[n3]
            a0, a1, a2, a3, b0, b1, b2, b3 = zero, zero, zero, zero, zero, zero, zero, zero
            at = phase * rows * lanes
            for y in range(0, rows * pitch, pitch):
                for x in range(y, y + lanes, _STEP):
                    t = load_floats(template, at)
                    a0 = muladd(t, load_floats(image, s0 + x), a0)
                    a1 = muladd(t, load_floats(image, s1 + x), a1)
                    a2 = muladd(t, load_floats(image, s2 + x), a2)
                    a3 = muladd(t, load_floats(image, s3 + x), a3)
                    t = load_floats(template, at + LANES)
                    b0 = muladd(t, load_floats(image, s0 + x + LANES), b0)
                    b1 = muladd(t, load_floats(image, s1 + x + LANES), b1)
                    b2 = muladd(t, load_floats(image, s2 + x + LANES), b2)
                    b3 = muladd(t, load_floats(image, s3 + x + LANES), b3)
                    at += _STEP
            result[n0] = sum_lanes(a0 + b0)
            result[n1] = sum_lanes(a1 + b1)
            result[n2] = sum_lanes(a2 + b2)
            result[n3] = sum_lanes(a3 + b3)
    return result
