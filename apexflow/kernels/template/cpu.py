"""The search by bounds: few positions are multiplied, and the best is among them for certain.

Images are handed over as the address of the first byte and the distance between rows in bytes
(see `sums.where`), so that any view of a frame will do; a row is interleaved channels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from apexflow.kernels.simd_bytes import MAXIMUM_DOTS, WIDTH, dot, load, total, zeros
from apexflow.kernels.template.blocks import (
    CELL,
    COARSE,
    FINE,
    Grid,
    add_energies,
    block_sums,
    coarse_grid,
    fine_grid,
    length_within,
    multiply,
    pool,
    region_parts,
)
from apexflow.kernels.template.sums import CENTRE, Where

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Longs = NDArray[np.int64]
Doubles = NDArray[np.float64]

_BLOCK = 256
"""Vectors of the template per pass over the candidates: 16 KiB stay in the first cache."""

MOST_BOUNDED = 3000
MOST_EXACT = 300
"""Positions that are bounded by fine blocks, and multiplied, at most, times the region's area over
the template's. Either takes about a fifth of the time of the DFTs, which give all positions."""


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
    flipped = (template ^ np.uint8(CENTRE)).reshape(height, -1)
    coarse, cosines = coarse_grid(template, means)
    return Pattern(
        pack_rows(flipped),
        sums,
        float(norm),
        np.rint(means).astype(np.int64),
        fine_grid(template, means),
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


@njit(cache=True, nogil=True)
def search(image: Where, sums: Longs, norms: Longs, pattern: Pattern) -> tuple[Longs, Longs, Longs]:
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
    positions, products, norms : (n,) int64
        The best and those whose score is equal but for rounding, in row-major order. Empty where
        the bounds leave too many positions, or no score is above 0.
    """
    nothing = np.empty(0, np.int64)
    rows, columns = norms.shape
    area = (image[2] - rows + 1) * (image[3] - columns + 1)
    lengths = np.sqrt(norms / area)
    sums_here, squares_here = block_sums(image, pattern.centres)
    cell, cells = _bound_cells(image, sums_here, squares_here, pattern, lengths)
    if cell < 0:
        return nothing, nothing, nothing
    shape = pattern.fine.means.shape
    shape = (rows - 1) // FINE + shape[2], (columns - 1) // FINE + shape[3]
    parts = region_parts(sums_here, squares_here, FINE, image[2:], shape)
    # Some good score for the start: of the best position, by its bound, of the best cell.
    positions = _positions_of_cell(cell, cells.shape[1], rows, columns)
    positions, bounds = _bounds(positions, parts, pattern.fine, lengths, -math.inf)
    start = positions[np.argmax(bounds)]
    product = exact_products(image, sums, pattern, np.full(1, start))[0]
    score = score_of(product, norms.flat[start]) / math.sqrt(pattern.norm)
    if not score > 0:
        return nothing, nothing, nothing
    areas = image[2] * image[3] / area
    most = int(MOST_BOUNDED * areas)
    candidates = _positions_above(cells, lengths, score, most)
    if candidates.size == most:
        return nothing, nothing, nothing
    candidates, bounds = _bounds(candidates, parts, pattern.fine, lengths, score)
    most = int(MOST_EXACT * areas)
    return _best_exactly(image, sums, norms, pattern, candidates, bounds, score, most)


@njit(cache=True, nogil=True)
def _bound_cells(
    image: Where, plain: Longs, squares: Longs, pattern: Pattern, lengths: Doubles
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
    window_height = image[2] - rows + 1
    window_width = image[3] - columns + 1
    cells_y, cells_x = -(-rows // CELL), -(-columns // CELL)
    phases = COARSE // CELL
    grid = pattern.coarse
    shape = (
        (cells_y - 1) // phases + grid.means.shape[2],
        (cells_x - 1) // phases + grid.means.shape[3],
    )
    means, rests = region_parts(pool(plain), pool(squares), COARSE, image[2:], shape)
    energies = np.zeros((shape[0] + 1, shape[1] + 1))
    add_energies(means, energies)
    add_energies(rests, energies)
    phase, start = np.empty(cells_y * cells_x, np.int64), np.empty(cells_y * cells_x, np.int64)
    for y in range(cells_y):
        for x in range(cells_x):
            phase[y * cells_x + x] = y % phases * phases + x % phases
            start[y * cells_x + x] = y // phases * shape[1] + x // phases
    products = multiply(grid.means, means, phase, start) + multiply(grid.rests, rests, phase, start)
    bounds = np.empty((cells_y, cells_x))
    best, highest = -1, -math.inf
    for y in range(cells_y):
        top, bottom = y // phases, ((y + 1) * CELL + window_height - 2) // COARSE + 1
        bottom = min(bottom, shape[0])
        for x in range(cells_x):
            left, right = x // phases, ((x + 1) * CELL + window_width - 2) // COARSE + 1
            length = length_within(energies, top, left, bottom, min(right, shape[1]))
            slack = 2 * grid.error * length
            product = products[y * cells_x + x] + slack
            cosine = pattern.cosines[y % phases, x % phases]
            bound = length
            if product < length * cosine:
                rest = math.sqrt(max(length * length - product * product, 0.0))
                bound = product * cosine + rest * math.sqrt(1 - cosine * cosine)
            bounds[y, x] = bound + slack
            window = lengths[
                min(y * CELL + CELL // 2, rows - 1), min(x * CELL + CELL // 2, columns - 1)
            ]
            if window > 0 and bound / window > highest:
                best, highest = y * cells_x + x, bound / window
    return best, bounds


@njit(cache=True, nogil=True)
def _positions_of_cell(cell: int, cells_x: int, rows: int, columns: int) -> Longs:
    first_y, first_x = cell // cells_x * CELL, cell % cells_x * CELL
    positions = np.empty(CELL * CELL, np.int64)
    count = 0
    for y in range(first_y, min(first_y + CELL, rows)):
        for x in range(first_x, min(first_x + CELL, columns)):
            positions[count] = y * columns + x
            count += 1
    return positions[:count]


@njit(cache=True, nogil=True)
def _positions_above(cells: Doubles, lengths: Doubles, score: float, most: int) -> Longs:
    """Return the positions whose cell's bound reaches a score, as many as there may be."""
    rows, columns = lengths.shape
    positions = np.empty(most, np.int64)
    count = 0
    for y in range(rows):
        for x in range(columns):
            if count < most and cells[y // CELL, x // CELL] >= score * lengths[y, x] > 0:
                positions[count] = y * columns + x
                count += 1
    return positions[:count]


@njit(cache=True, nogil=True)
def _bounds(
    positions: Longs,
    parts: tuple[Floats, Floats],
    grid: Grid,
    lengths: Doubles,
    score: float,
) -> tuple[Longs, Doubles]:
    """Bound the scores at single positions; return those that reach a score, with their bounds.

    The means come first, with the lengths of the rests. Few positions are left for the rests.
    """
    means, rests = parts
    columns, pitch = lengths.shape[1], means.shape[1]
    energies = np.zeros((means.shape[0] + 1, pitch + 1))
    add_energies(means, energies)
    slack = grid.error * math.sqrt(energies[-1, -1])
    energies[:] = 0
    add_energies(rests, energies)
    slack += 2 * grid.error * math.sqrt(energies[-1, -1])
    y, x = positions // columns, positions % columns
    phases, starts = y % FINE * FINE + x % FINE, y // FINE * pitch + x // FINE
    products = multiply(grid.means, means, phases, starts) + slack
    left = np.empty(positions.size, np.bool_)
    for k in range(positions.size):
        top, start = y[k] // FINE, x[k] // FINE
        bottom, end = top + grid.means.shape[2], start + grid.means.shape[3]
        rest = grid.lengths.flat[phases[k]] * length_within(energies, top, start, bottom, end)
        length = lengths.flat[positions[k]]
        left[k] = length > 0 and products[k] + rest >= score * length
    positions, products = positions[left], products[left]
    products += multiply(grid.rests, rests, phases[left], starts[left])
    for k in range(positions.size):
        products[k] /= lengths.flat[positions[k]]
    return positions, products


@njit(cache=True, nogil=True)
def _best_exactly(
    image: Where,
    sums: Longs,
    norms: Longs,
    pattern: Pattern,
    candidates: Longs,
    ratios: Doubles,
    score: float,
    most: int,
) -> tuple[Longs, Longs, Longs]:
    """Multiply candidates in the order of falling bounds of their scores until none can be best."""
    nothing = np.empty(0, np.int64)
    candidates, ratios = candidates[ratios >= score], ratios[ratios >= score]
    order = np.argsort(-ratios)
    found, products = np.empty(order.size, np.int64), np.empty(order.size, np.int64)
    best, done = score, 0
    scale = 1 / math.sqrt(pattern.norm)
    while done < order.size and ratios[order[done]] >= best * (1 - 1e-12):
        if done >= most:
            return nothing, nothing, nothing
        some = candidates[order[done : done + 4]]
        exact = exact_products(image, sums, pattern, some)
        for k in range(some.size):
            found[done + k], products[done + k] = some[k], exact[k]
            best = max(best, scale * score_of(exact[k], norms.flat[some[k]]))
        done += some.size
    near = np.empty(done, np.bool_)
    found = found[:done]
    for k in range(done):
        near[k] = scale * score_of(products[k], norms.flat[found[k]]) >= best * (1 - 1e-12)
    products = products[:done][near]
    found = found[near]
    order = np.argsort(found)
    found, products = found[order], products[order]
    chosen = np.empty(found.size, np.int64)
    for k in range(found.size):
        chosen[k] = norms.flat[found[k]]
    return found, products, chosen


@njit(cache=True, nogil=True)
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


@njit(cache=True, nogil=True)
def dot_products(
    address: int, stride: int, row_bytes: int, template: Bytes, offsets: Longs
) -> Longs:
    """Multiply the template with the windows that start at some offsets from the address."""
    height, vectors = template.shape[:2]
    last = row_bytes - WIDTH
    result = np.zeros(offsets.size, np.int64)
    rows = min(max(1, _BLOCK // vectors), MAXIMUM_DOTS // vectors)
    for first in range(0, height, rows):
        behind = min(first + rows, height)
        # Four windows share each load of the template, and hide the latency of `dot`.
        for k in range(0, offsets.size, 4):
            count = min(4, offsets.size - k)
            k1, k2, k3 = k + min(1, count - 1), k + min(2, count - 1), k + count - 1
            a, b, c, d = zeros(), zeros(), zeros(), zeros()
            for y in range(first, behind):
                row = address + y * stride
                for i in range(vectors):
                    pattern = load(template.ctypes.data + (y * vectors + i) * WIDTH)
                    at = row + min(i * WIDTH, last)
                    a = dot(a, load(at + offsets[k]), pattern)
                    if count > 1:
                        b = dot(b, load(at + offsets[k1]), pattern)
                        c = dot(c, load(at + offsets[k2]), pattern)
                        d = dot(d, load(at + offsets[k3]), pattern)
            result[k] += total(a)
            if count > 1:
                result[k1] += total(b)
            if count > 2:
                result[k2] += total(c)
            if count > 3:
                result[k3] += total(d)
    return result


@njit(cache=True, nogil=True)
def score_of(product: int, norm: int) -> float:
    """Return the score times the template's length; 0 for a flat window."""
    return product / math.sqrt(norm) if norm > 0 else 0.0
