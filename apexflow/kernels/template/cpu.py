"""The search by bounds: few positions are multiplied, and the best is among them for certain.

Images are handed over as the address of the first byte and the distance between rows in bytes
(see `sums.where`), so that any view of a frame will do; a row is interleaved channels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels.compiled import njit
from apexflow.kernels.simd_bytes import MAXIMUM_DOTS, WIDTH, dot, load, total, zeros
from apexflow.kernels.template.blocks import (
    CELL,
    COARSE,
    FINE,
    STRIPS,
    Grid,
    block_sums,
    blocks_across,
    coarse_grid,
    fine_grid,
    multiply,
    pool,
    region_parts,
    strip_end,
    window_lengths,
)
from apexflow.kernels.template.sums import CENTRE, Where

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Longs = NDArray[np.int64]
Ints = NDArray[np.int32]
Doubles = NDArray[np.float64]

_BLOCK = 256
"""Vectors of the template per pass over the candidates: 16 KiB stay in the first cache."""

_TOGETHER = 16
"""Positions that are multiplied in one pass over the image."""

MOST_BOUNDED = 3000
MOST_EXACT = 300
"""Positions that are bounded by fine blocks, and multiplied, at most, times the region's area over
the template's. Either takes a fifth of the time of the DFTs at most, which give all positions."""


class Pattern(NamedTuple):
    """A template of h rows, w columns and C channels as the search reads it."""

    packed: Bytes
    """(h, vectors, 64): its rows, counted from -128 and packed."""
    sums: Longs
    """(C,): of the pixels, counted from -128."""
    norm: float
    """The area times the sum of squares, less the squares of the sums."""
    centres: Longs
    """(C,): whole numbers near the means."""
    fine: Grid
    coarse: Grid
    cosines: Doubles
    """Of the coarse grid, see `coarse_grid`."""


def can_bound(region: tuple[int, ...], template: tuple[int, ...]) -> bool:
    """Whether `search` serves regions and templates of these shapes.

    A template's row must fill a vector, and a sum over blocks must fit its lanes. Others are
    searched by their spectra alone.
    """
    return template[1] * template[2] >= WIDTH and region[1] * region[2] <= MAXIMUM_DOTS * WIDTH


def prepare_pattern(template: Bytes, sums: Longs, norm: int) -> Pattern:
    """Prepare a template of (h, w, C) uint8 whose sums (less 128) and norm are known."""
    height, width, _ = template.shape
    means = CENTRE + sums / (height * width)
    length = math.sqrt(norm / (height * width))
    flipped = (template ^ np.uint8(CENTRE)).reshape(height, -1)
    coarse, cosines = coarse_grid(template, means, length)
    return Pattern(
        pack_rows(flipped),
        sums,
        float(norm),
        np.rint(means).astype(np.int64),
        fine_grid(template, means, length),
        coarse,
        cosines,
    )


def pack_rows(rows: Bytes) -> Bytes:
    """Cut rows of at least 64 bytes into vectors, the last of which overlaps the one before.

    The overlap is filled with zeros, so that the products of a row and a packed row, vector by
    vector, add up to the products of the row, and no read leaves the row.
    """
    count = -(-rows.shape[1] // WIDTH)
    packed = np.zeros((rows.shape[0], count, WIDTH), np.uint8)
    whole = (count - 1) * WIDTH
    packed[:, :-1] = rows[:, :whole].reshape(rows.shape[0], count - 1, WIDTH)
    rest = rows.shape[1] - whole
    packed[:, -1, WIDTH - rest :] = rows[:, whole:]
    return packed


@njit
def search(image: Where, sums: Longs, norms: Longs, pattern: Pattern) -> tuple[Longs, Longs]:
    """Find the best positions in a region.

    Coarse blocks bound the scores of all positions of a cell at once, fine blocks those of single
    positions, and what remains is multiplied in the order of falling bounds.

    Parameters
    ----------
    image
        The region.
    sums, norms
        Of all windows.
    pattern
        The template.

    Returns
    -------
    positions, products : (n,) int64
        The best and those whose score is equal but for rounding, in any order. Empty where the
        bounds leave too many positions, or no score is above 0.
    """
    nothing = np.empty(0, np.int64)
    rows, columns = norms.shape
    area = (image[2] - rows + 1) * (image[3] - columns + 1)
    lengths = np.sqrt(norms) * math.sqrt(1 / area)
    sums_here, squares_here = block_sums(image, pattern.centres)
    cell, cells = _bound_cells(image, sums_here, squares_here, pattern, lengths)
    if cell < 0:
        return nothing, nothing
    blocks = _blocks(image, sums_here, squares_here, pattern.fine, norms.shape)
    # Some good score for the start: of the best position, by its bound, of the best cell.
    windows = _windows(cells, cell, cell, lengths, -math.inf, CELL * CELL + 1, blocks)
    positions, bounds = _bounds(windows, blocks, pattern.fine, lengths, -math.inf)
    start = positions[0]
    for k in range(1, positions.size):
        if bounds[k] > bounds[0]:
            start, bounds[0] = positions[k], bounds[k]
    product = exact_products(image, sums, pattern, np.full(1, start))[0]
    score = score_of(product, norms.flat[start]) / math.sqrt(pattern.norm)
    if not score > 0:
        return nothing, nothing
    areas = image[2] * image[3] / area
    most = int(MOST_BOUNDED * areas)
    windows = _windows(cells, 0, cells.size - 1, lengths, score, most, blocks)
    if windows.positions.size == most:
        return nothing, nothing
    positions, bounds = _bounds(windows, blocks, pattern.fine, lengths, score)
    most = int(MOST_EXACT * areas)
    return _best_exactly(image, sums, norms, pattern, positions, bounds, start, product, most)


@njit
def _bound_cells(
    image: Where, plain: Ints, squares: Ints, pattern: Pattern, lengths: Doubles
) -> tuple[int, Doubles]:
    """Bound the products of all positions of each cell, over the template's length.

    The numbers of the template at a cell's middle and at another of its positions form an angle
    of at most ``angle``; if ``u`` is the cosine between the middle's and the region's V, the
    position's product is at most ``|V| cos(acos(u) - angle)``.

    Returns
    -------
    best : int
        The cell with the highest bound of a score; -1 where all windows are flat.
    bounds : (rows, columns) float64
    """
    rows, columns = lengths.shape
    cells_y, cells_x = -(-rows // CELL), -(-columns // CELL)
    phases = COARSE // CELL
    grid = pattern.coarse
    block_rows, lanes = grid.means.shape[2:]
    shape = (cells_y - 1) // phases + block_rows, (cells_x - 1) // phases + lanes
    means, rests = region_parts(pool(plain), pool(squares), COARSE, image[2:], shape)
    across = blocks_across(image[3] - columns + 1, COARSE)
    tops = shape[0] - block_rows + 1
    in_means, in_rests = np.zeros((tops, shape[1])), np.zeros((tops, shape[1]))
    window_lengths(means, block_rows, across, in_means)
    window_lengths(rests, block_rows, across, in_rests)
    phase, start = np.empty(cells_y * cells_x, np.int64), np.empty(cells_y * cells_x, np.int64)
    for y in range(cells_y):
        for x in range(cells_x):
            phase[y * cells_x + x] = y % phases * phases + x % phases
            start[y * cells_x + x] = y // phases * shape[1] + x // phases
    products = multiply(grid.means, means, phase, start, 0, block_rows)
    products += multiply(grid.rests, rests, phase, start, 0, block_rows)
    bounds = np.empty((cells_y, cells_x))
    best, highest = -1, -math.inf
    for y in range(cells_y):
        for x in range(cells_x):
            cell = y * cells_x + x
            of_means, of_rests = in_means.flat[start[cell]], in_rests.flat[start[cell]]
            length = math.sqrt(of_means * of_means + of_rests * of_rests)
            slack = 2 * grid.error * length
            product = products[cell] + slack
            cosine = pattern.cosines.flat[phase[cell]]
            bound = length
            if product < length * cosine:
                rest = math.sqrt(max(length * length - product * product, 0.0))
                bound = product * cosine + rest * math.sqrt(1 - cosine * cosine)
            bounds[y, x] = bound + slack
            window = lengths[
                min(y * CELL + CELL // 2, rows - 1), min(x * CELL + CELL // 2, columns - 1)
            ]
            if window > 0 and bound / window > highest:
                best, highest = cell, bound / window
    return best, bounds


class Blocks(NamedTuple):
    """A region on fine blocks."""

    means: Floats
    """m, with zeros below and to the right; the rests likewise."""
    rests: Floats
    """e."""
    tails: Doubles
    """(STRIPS, tops, columns): at each window's first block the length of the means below each
    strip,"""
    lengths: Doubles
    """(tops, columns): and of the rests."""
    slack: float
    """How much a product may be wrong."""


@njit
def _blocks(image: Where, sums: Ints, squares: Ints, grid: Grid, shape: tuple[int, int]) -> Blocks:
    rows, columns = shape
    block_rows, lanes = grid.means.shape[2:]
    size = (rows - 1) // FINE + block_rows, (columns - 1) // FINE + lanes
    means, rests = region_parts(sums, squares, FINE, image[2:], size)
    across = blocks_across(image[3] - columns + 1, FINE)
    tops = size[0] - block_rows + 1
    tails, lengths = np.zeros((STRIPS, tops, size[1])), np.zeros((tops, size[1]))
    for strip in range(STRIPS - 1):
        end = strip_end(strip, block_rows)
        window_lengths(means[end:], block_rows - end, across, tails[strip])
    window_lengths(rests, block_rows, across, lengths)
    energy = 0.0
    for y in range(size[0]):
        for x in range(size[1]):
            energy += means[y, x] * means[y, x] + 4 * rests[y, x] * rests[y, x]
    slack = grid.error * math.sqrt(2 * energy)
    return Blocks(means, rests, tails, lengths, slack)


class Windows(NamedTuple):
    """Windows of a region, as `multiply` reads them: arrays of one length."""

    positions: Longs
    """y * columns + x."""
    phases: Longs
    starts: Longs


@njit
def _windows(
    cells: Doubles,
    first: int,
    last: int,
    lengths: Doubles,
    score: float,
    most: int,
    blocks: Blocks,
) -> Windows:
    """Return the windows from one cell to another whose cell's bound reaches a score.

    As many as there may be; the cells are the corners of a rectangle.
    """
    rows, columns = lengths.shape
    pitch = blocks.means.shape[1]
    positions = np.empty(most, np.int64)
    phases, starts = np.empty(most, np.int64), np.empty(most, np.int64)
    top, left = first // cells.shape[1] * CELL, first % cells.shape[1] * CELL
    bottom, right = (last // cells.shape[1] + 1) * CELL, (last % cells.shape[1] + 1) * CELL
    count = 0
    for y in range(top, min(bottom, rows)):
        for x in range(left, min(right, columns)):
            length = lengths[y, x]
            if count < most and length > 0 and cells[y // CELL, x // CELL] >= score * length:
                positions[count] = y * columns + x
                phases[count] = y % FINE * FINE + x % FINE
                starts[count] = y // FINE * pitch + x // FINE
                count += 1
    return Windows(positions[:count], phases[:count], starts[:count])


@njit
def _bounds(
    windows: Windows, blocks: Blocks, grid: Grid, lengths: Doubles, score: float
) -> tuple[Longs, Doubles]:
    """Bound the scores of single windows; return the positions that reach a score, with bounds.

    The windows are used up.

    The means come first, strip by strip, then the rests. What is still to come is bounded by
    the lengths, so that few windows are left for each next step.
    """
    rows, top = grid.means.shape[2], 0
    positions, phases, starts = windows
    products = np.full(positions.size, blocks.slack)
    for strip in range(STRIPS):
        end = strip_end(strip, rows)
        products += multiply(grid.means, blocks.means, phases, starts, top, end)
        top, count = end, 0
        for k in range(positions.size):
            bound = products[k] + grid.lengths[phases[k]] * blocks.lengths.flat[starts[k]]
            bound += grid.tails[strip, phases[k]] * blocks.tails[strip].flat[starts[k]]
            if bound >= score * lengths.flat[positions[k]]:
                positions[count], products[count] = positions[k], products[k]
                phases[count], starts[count] = phases[k], starts[k]
                count += 1
        positions, products = positions[:count], products[:count]
        phases, starts = phases[:count], starts[:count]
    products += multiply(grid.rests, blocks.rests, phases, starts, 0, rows)
    for k in range(positions.size):
        products[k] /= lengths.flat[positions[k]]
    return positions, products


@njit
def _best_exactly(
    image: Where,
    sums: Longs,
    norms: Longs,
    pattern: Pattern,
    positions: Longs,
    bounds: Doubles,
    start: int,
    product: int,
    most: int,
) -> tuple[Longs, Longs]:
    """Multiply windows in the order of falling bounds of their scores until none can be best.

    The product of one position is known.
    """
    scale = 1 / math.sqrt(pattern.norm)
    best, done = scale * score_of(product, norms.flat[start]), 1
    found, products = np.full(most + _TOGETHER, start), np.full(most + _TOGETHER, product)
    some = np.empty(_TOGETHER, np.int64)
    while done < most:
        count = _take_highest(positions, bounds, best * (1 - 1e-12), start, some)
        if count == 0:
            break
        exact = exact_products(image, sums, pattern, some[:count])
        for k in range(count):
            found[done], products[done] = some[k], exact[k]
            best = max(best, scale * score_of(exact[k], norms.flat[some[k]]))
            done += 1
    else:
        return found[:0], products[:0]
    count = 0
    for k in range(done):
        if scale * score_of(products[k], norms.flat[found[k]]) >= best * (1 - 1e-12):
            found[count], products[count] = found[k], products[k]
            count += 1
    return found[:count], products[:count]


@njit
def _take_highest(positions: Longs, bounds: Doubles, least: float, start: int, taken: Longs) -> int:
    """Take the positions with the highest bounds, but for the start; return how many."""
    count = 0
    while count < taken.size:
        highest = -1
        for k in range(positions.size):
            if bounds[k] < least or positions[k] == start:
                continue
            if highest < 0 or bounds[k] > bounds[highest]:
                highest = k
        if highest < 0:
            break
        taken[count], bounds[highest] = positions[highest], -math.inf
        count += 1
    return count


@njit
def exact_products(image: Where, sums: Longs, pattern: Pattern, positions: Longs) -> Longs:
    """Return the area times the sums of products, less the products of the sums."""
    address, stride, height, width, channels = image
    rows, columns = sums.shape[:2]
    row_bytes = (width - columns + 1) * channels
    area = (height - rows + 1) * (width - columns + 1)
    offsets = positions // columns * stride + positions % columns * channels
    products = dot_products(address, stride, row_bytes, pattern.packed, offsets)
    for k in range(positions.size):
        products[k] *= area
        for c in range(channels):
            # The template counts from -CENTRE on here, the region from 0.
            sum_here = sums[positions[k] // columns, positions[k] % columns, c] + CENTRE * area
            products[k] -= sum_here * pattern.sums[c]
    return products


@njit
def dot_products(
    address: int, stride: int, row_bytes: int, template: Bytes, offsets: Longs
) -> Longs:
    """Multiply the template with the windows that start at some offsets from the address."""
    height, vectors = template.shape[:2]
    last, pattern = row_bytes - WIDTH, template.ctypes.data
    result = np.zeros(offsets.size, np.int64)
    rows = min(max(1, _BLOCK // vectors), MAXIMUM_DOTS // vectors)
    whole = offsets.size - offsets.size % 4
    for first in range(0, height, rows):
        behind = min(first + rows, height)
        for k in range(0, whole, 4):
            # Four windows share each load of the template, and hide the latency of `dot`.
            s0, s1, s2, s3 = offsets[k], offsets[k + 1], offsets[k + 2], offsets[k + 3]
            a, b, c, d = zeros(), zeros(), zeros(), zeros()
            for y in range(first, behind):
                row, at = address + y * stride, pattern + y * vectors * WIDTH
                for i in range(vectors):
                    t, x = load(at + i * WIDTH), row + min(i * WIDTH, last)
                    a = dot(a, load(x + s0), t)
                    b = dot(b, load(x + s1), t)
                    c = dot(c, load(x + s2), t)
                    d = dot(d, load(x + s3), t)
            result[k] += total(a)
            result[k + 1] += total(b)
            result[k + 2] += total(c)
            result[k + 3] += total(d)
        for k in range(whole, offsets.size):
            # Two rows hide it for a single window.
            a, b = zeros(), zeros()
            for y in range(first, behind - 1, 2):
                row, at = address + y * stride + offsets[k], pattern + y * vectors * WIDTH
                for i in range(vectors):
                    x = row + min(i * WIDTH, last)
                    a = dot(a, load(x), load(at + i * WIDTH))
                    b = dot(b, load(x + stride), load(at + (i + vectors) * WIDTH))
            if (behind - first) % 2:
                row, at = address + (behind - 1) * stride, pattern + (behind - 1) * vectors * WIDTH
                for i in range(vectors):
                    x = row + min(i * WIDTH, last) + offsets[k]
                    a = dot(a, load(x), load(at + i * WIDTH))
            result[k] += total(a) + total(b)
    return result


@njit
def score_of(product: int, norm: int) -> float:
    """Return the score times the template's length; 0 for a flat window."""
    return product / math.sqrt(norm) if norm > 0 else 0.0
