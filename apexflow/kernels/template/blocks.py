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
from numpy.typing import NDArray

from apexflow.kernels.compiled import njit
from apexflow.kernels.simd import LANES, aligned, keep, muladd, pointer, splat
from apexflow.kernels.simd import load as load_floats
from apexflow.kernels.simd import total as sum_lanes
from apexflow.kernels.simd_bytes import WIDTH, dot, flip, load, store, zeros
from apexflow.kernels.template.sums import CENTRE, Where, copy

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Longs = NDArray[np.int64]
Ints = NDArray[np.int32]

_STEP = 2 * LANES
"""Columns at a time: two vectors hide each other's latency."""

FINE = 8
"""Side of the blocks that bound single positions."""
STRIPS = 3
"""Into which the rows of fine blocks are cut: most positions are given up after the first."""
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
    tails: Doubles
    """(STRIPS, phases): the length, at least, of the means below each strip of the rows;"""
    lengths: Doubles
    """(phases,): and of the rests."""
    error: float
    """How much a product with it may be wrong, relative to the length of the other factor."""


@njit
def blocks_across(size: int, side: int) -> int:
    """Return how many blocks a template of this size touches at most."""
    return (size + 2 * side - 2) // side


@njit
def sum_along(row: NDArray[np.uint8], means: Doubles, line: Doubles, line_squared: Doubles) -> None:
    """Sum the pixels (w, C) of a row less the means, and their squares, up to each: (w + 1,)."""
    value = square = 0.0
    for x in range(row.shape[0]):
        for c in range(row.shape[1]):
            centred = row[x, c] - means[c]
            value += centred
            square += centred * centred
        line[x + 1], line_squared[x + 1] = value, square


@njit
def template_parts(
    template: NDArray[np.uint8], means: Doubles, length: float, side: int
) -> tuple[Floats, Floats]:
    """Lay a template on blocks, at all (side, side) phases.

    Parameters
    ----------
    template : (h, w, C) uint8
    means : (C,)
        What is taken from each channel.
    length : float
        Of what is left, by which t and f are divided.
    side : int
        Of the blocks.
    """
    height, width, channels = template.shape
    rows, columns = blocks_across(height, side), blocks_across(width, side)
    lanes = -(-columns // _STEP) * _STEP
    t = aligned(side * side * rows * lanes).reshape((side, side, rows, lanes))
    f = aligned(side * side * rows * lanes).reshape((side, side, rows, lanes))
    t[:], f[:] = 0, 0
    scale = 1 / length
    root = scale / math.sqrt(side * side * channels)
    # Sums along a row; over the width of a block, of its last rows; over its height as well.
    line, line_squared = np.zeros(width + 1), np.zeros(width + 1)
    last, last_squared = np.zeros((2, side, side, columns))
    sums, squares = np.zeros((2, side, columns))
    edge, edge_squared = np.zeros((2, columns + 1))
    for y in range(height + side - 1):
        if y < height:
            sum_along(template[y], means, line, line_squared)
        elif y == height:
            line[:], line_squared[:] = 0, 0
        # At this phase it is the last row of its blocks.
        phase_y = side - 1 - y % side
        k = (y + 1 + phase_y) // side - 1
        for phase_x in range(side):
            for x in range(columns + 1):
                at = min(max(x * side - phase_x, 0), width)
                edge[x], edge_squared[x] = line[at], line_squared[at]
            plain, squared = sums[phase_x], squares[phase_x]
            behind, behind_squared = last[y % side, phase_x], last_squared[y % side, phase_x]
            means_here, rests_here = t[phase_y, phase_x, k], f[phase_y, phase_x, k]
            for x in range(columns):
                value = edge[x + 1] - edge[x]
                square = edge_squared[x + 1] - edge_squared[x]
                plain[x] += value - behind[x]
                squared[x] += square - behind_squared[x]
                behind[x], behind_squared[x] = value, square
                mean = root * plain[x]
                means_here[x] = mean
                rest = scale * scale * squared[x] - mean * mean
                rests_here[x] = math.sqrt(np.float32(max(rest, 0.0)))
    return t, f


def fine_grid(template: NDArray[np.uint8], means: Doubles, length: float) -> Grid:
    """Return the template on fine blocks, at every phase."""
    return _grid(*template_parts(template, means, length, FINE))


def coarse_grid(template: NDArray[np.uint8], means: Doubles, length: float) -> tuple[Grid, Doubles]:
    """Return the template on coarse blocks at the phases of the middles of cells.

    Also at least the cosine of the angle between the middle's numbers and those of any position
    of its cell.
    """
    cells = COARSE // CELL
    middles, cosines = [], np.zeros((cells, cells, CELL, CELL))
    for parts in template_parts(template, means, length, COARSE):
        by_cell = parts.reshape(cells, CELL, cells, CELL, -1)
        middle = np.ascontiguousarray(by_cell[:, CELL // 2, :, CELL // 2])
        cosines += np.einsum("yixjk,yxk->yxij", by_cell, middle, dtype=np.float64)
        middles.append(middle.reshape(cells, cells, *parts.shape[2:]))
    grid = _grid(*middles)
    return grid, np.clip(cosines.min((2, 3)) - grid.error, -1.0, 1.0)


def _grid(means: Floats, rests: Floats) -> Grid:
    rows = means.shape[2]
    # The rounding of `multiply`: of the terms that one lane adds up, and of the numbers.
    error = (means[0, 0].size / LANES + 64) * 2.0**-24
    tails = np.stack([_lengths(means[:, :, strip_end(k, rows) :]) for k in range(STRIPS)])
    return Grid(means, rests, tails * (1 + error), _lengths(rests) * (1 + error), error)


def _lengths(parts: Floats) -> Doubles:
    energies: Doubles = np.einsum("yxij,yxij->yx", parts, parts, dtype=np.float64).ravel()
    return np.sqrt(energies)


@njit
def strip_end(strip: int, rows: int) -> int:
    """Return the first row below a strip: a quarter, a half, all."""
    return rows >> (STRIPS - 1 - strip)


@njit
def block_sums(image: Where, centres: Longs) -> tuple[Ints, Ints]:
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
    sums, squares = np.empty((rows, columns), np.int32), np.empty((rows, columns), np.int32)
    whole, total_centre = (centres * centres).sum(), centres.sum()
    for k in range(rows):
        count = min(FINE, height - k * FINE)
        phase = weight
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
                c = dot(c, pixels, load(phase))
            phase += WIDTH
            if phase == weight + channels * WIDTH:
                phase = weight
            out = line + i * WIDTH
            store(out, a)
            store(out + plane, b)
            store(out + 2 * plane, c)
        for i in range(vectors * LANES):
            # The squares of x - c: x (x - 128) + 128 x - 2 x (c - 128) - 256 x + c c.
            lanes[1, i] -= 2 * lanes[2, i] + CENTRE * lanes[0, i]
        add_lanes(lanes[0], channels, sums[k])
        add_lanes(lanes[1], channels, squares[k])
        for x in range(columns):
            pixels_here = count * min(FINE, width - x * FINE)
            sums[k, x] -= pixels_here * total_centre
            squares[k, x] += pixels_here * whole
    keep(ones)
    keep(weights)
    keep(last)
    return sums, squares


@njit(inline="always")
def add_lanes(lanes: Ints, channels: int, result: Ints) -> None:
    """Add up the lanes of each fine block, of which each lane has four values."""
    if channels == 1:
        for x in range(result.size):
            result[x] = np.int32(lanes[2 * x] + lanes[2 * x + 1])
    else:
        for x in range(result.size):
            low = lanes[6 * x] + lanes[6 * x + 1] + lanes[6 * x + 2]
            result[x] = np.int32(low + lanes[6 * x + 3] + lanes[6 * x + 4] + lanes[6 * x + 5])


@njit
def pool(values: Ints) -> Ints:
    """Add up the fine blocks of each coarse one."""
    side = COARSE // FINE
    rows, columns = -(-values.shape[0] // side), -(-values.shape[1] // side)
    result = np.zeros((rows, columns), np.int32)
    for y in range(values.shape[0]):
        for x in range(values.shape[1]):
            result[y // side, x // side] += values[y, x]
    return result


@njit
def region_parts(
    sums: Ints, squares: Ints, side: int, size: tuple[int, int, int], shape: tuple[int, int]
) -> tuple[Floats, Floats]:
    """Return m and e of a region's blocks.

    Parameters
    ----------
    sums, squares : (block rows, block columns) int32
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
    counts, inverse = np.empty(sums.shape[1]), np.empty(sums.shape[1])
    for y in range(sums.shape[0]):
        tall = min(side, height - y * side) * channels
        for x in range(counts.size):
            counts[x] = tall * min(side, width - x * side)
            inverse[x] = 1 / counts[x]
        plain, square, of_means, of_rests = sums[y], squares[y], means[y], rests[y]
        for x in range(counts.size):
            value = np.float64(plain[x])
            of_means[x] = root * (value * inverse[x] - mean)
            rest = (counts[x] * np.float64(square[x]) - value * value) * inverse[x]
            of_rests[x] = math.sqrt(np.float32(rest))
    return means, rests


@njit
def window_lengths(parts: Floats, rows: int, columns: int, result: Doubles) -> None:
    """Write the length of the parts in each window of so many rows and columns.

    To (tops, the columns of ``parts``): at the place of a window's first block, as `multiply`
    counts it. Windows that would reach over the edge are left out.
    """
    height, width = parts.shape
    column = np.zeros(width)
    for y in range(rows - 1):
        for x in range(width):
            column[x] += np.float64(parts[y, x]) * parts[y, x]
    for top in range(height - rows + 1):
        entering, leaving = parts[top + rows - 1], parts[top]
        for x in range(width):
            column[x] += np.float64(entering[x]) * entering[x]
        energy = column[:columns].sum()
        for left in range(width - columns + 1):
            result[top, left] = math.sqrt(max(energy, 0.0))
            if left + columns < width:
                energy += column[left + columns] - column[left]
        for x in range(width):
            column[x] -= np.float64(leaving[x]) * leaving[x]


@njit
def multiply(
    grid: Floats, region: Floats, phases: Longs, starts: Longs, first_row: int, last_row: int
) -> Doubles:
    """Multiply a template on blocks with a region's blocks, for windows of any phases and places.

    Parameters
    ----------
    grid : (phases in y, phases in x, block rows, lanes) float32
    region : (rows, columns) float32
    phases : (n,) int64
        y * (phases in x) + x of each window.
    starts : (n,) int64
        Where in ``region`` each window's first block lies, y * columns + x.
    first_row, last_row : int
        Of the template's block rows; the last is not counted.

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
        first, behind = ends[phase], ends[phase + 1]
        whole = behind - (behind - first) % 4
        begin = (phase * rows + first_row) * lanes
        for k in range(first, whole, 4):
            # Four windows share each load of the template.
            n0, n1, n2, n3 = order[k], order[k + 1], order[k + 2], order[k + 3]
            s0, s1, s2, s3 = starts[n0], starts[n1], starts[n2], starts[n3]
            a0, a1, a2, a3, b0, b1, b2, b3 = zero, zero, zero, zero, zero, zero, zero, zero
            at = begin
            for y in range(first_row * pitch, last_row * pitch, pitch):
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
        for k in range(whole, behind):
            a, b, at = zero, zero, begin
            start = starts[order[k]]
            for y in range(first_row * pitch, last_row * pitch, pitch):
                for x in range(start + y, start + y + lanes, _STEP):
                    a = muladd(load_floats(template, at), load_floats(image, x), a)
                    b = muladd(load_floats(template, at + LANES), load_floats(image, x + LANES), b)
                    at += _STEP
            result[order[k]] = sum_lanes(a + b)
    return result
