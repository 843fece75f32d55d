"""The compiled steps of the search near a key frame.

Images are handed over as the address of the first byte and the distance between rows in bytes
(see `simd_bytes.bytes_at`), so that any view of a frame will do; a row is `row_bytes` bytes of
interleaved channels. Pixels count from 0 to 255 on the left of a product and from -128 to 127
on the right, which changes neither a covariance nor, hence, a score.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from apexflow.kernels.simd_bytes import (
    MAXIMUM_DOTS,
    WIDTH,
    bytes_at,
    dot,
    flip,
    load,
    total,
    zeros,
)

Bytes = NDArray[np.uint8]
Longs = NDArray[np.int64]
Doubles = NDArray[np.float64]


class Pattern(NamedTuple):
    """A template of h rows, w columns and C channels as the compiled steps read it."""

    packed: Bytes
    """(h, vectors, 64): its rows, flipped and packed."""
    sums: Longs
    """(C,): of the pixels, counted from -128 to 127."""
    norm: float
    """The area times the sum of squares, less the squares of the sums."""


class Key(NamedTuple):
    """A frame of H rows, W columns and C channels whose scores are known everywhere."""

    pixels: Bytes
    """(H, W * C)"""
    packed: Bytes
    """(H, vectors, 64): its rows, flipped and packed."""
    masks: Bytes
    """(C, vectors, 64): 1 where a byte of a row belongs to the channel, packed."""
    rows: Longs
    """(C + 2, H): `row_sums` of the frame with itself."""
    columns: Longs
    """(3, 2 * margin): `column_sums` of the frame with itself."""
    angles: Doubles
    """(H - h + 1, W - w + 1): between each window and the template, at least."""
    lengths: Doubles
    """(H - h + 1, W - w + 1): of each window without its mean, at least."""


_BLOCK = 256
"""Vectors of the template per pass over the candidates: 16 KiB stay in the first cache."""

_ANGLE_ERROR = 1e-6
"""Far above what rounding does to an angle: acos(1 - 1e-16) is 1.5e-8."""


def pack_rows(rows: NDArray[np.uint8]) -> Bytes:
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
def row_sums(address: int, stride: int, row_bytes: int, masks: Bytes, key: Bytes) -> Longs:
    """Sum each row of a frame.

    Parameters
    ----------
    address, stride, row_bytes : int
        The frame.
    masks : (C, vectors, 64) uint8
        One packed row for each channel, 1 where a byte belongs to it.
    key : (H, vectors, 64) uint8
        The key frame, packed and flipped.

    Returns
    -------
    (C + 2, H) int64
        Sums of each channel, of the squares, and of the products with the key frame.
    """
    channels, vectors = masks.shape[:2]
    height = key.shape[0]
    last = row_bytes - WIDTH
    sums = np.empty((channels + 2, height), np.int64)
    mask, packed = masks.ctypes.data, key.ctypes.data
    own = (vectors - 1) * WIDTH
    step = vectors * WIDTH
    for y in range(height):
        row = address + y * stride
        squares, products, a, b, c = zeros(), zeros(), zeros(), zeros(), zeros()
        for i in range(vectors):
            pixels = load(row + min(i * WIDTH, last))
            products = dot(products, pixels, load(packed + y * step + i * WIDTH))
            if i < vectors - 1:
                squares = dot(squares, pixels, flip(pixels))
            a = dot(a, pixels, load(mask + i * WIDTH))
            if channels == 3:
                b = dot(b, pixels, load(mask + step + i * WIDTH))
                c = dot(c, pixels, load(mask + 2 * step + i * WIDTH))
        sums[0, y] = total(a)
        if channels == 3:
            sums[1, y], sums[2, y] = total(b), total(c)
        # The last vector overlaps the one before, so its squares are added one by one.
        tail = 0
        for value in bytes_at(row + own, row_bytes - own):
            tail += int(value) * (int(value) - 128)
        everything = sums[:channels, y].sum()
        sums[channels, y] = total(squares) + tail + 128 * everything
        sums[channels + 1, y] = total(products) + 128 * everything
    return sums


@njit(cache=True, nogil=True)
def column_sums(
    address: int, stride: int, key: Bytes, margin: int, right: int, first: int, behind: int
) -> Longs:
    """Sum the outer columns of a frame over the rows that all windows share.

    Parameters
    ----------
    address, stride : int
        The frame.
    key : (H, row_bytes) uint8
        The key frame.
    margin, right : int
        Bytes 0 to margin - 1 and the margin bytes from right on are summed.
    first, behind : int
        The rows.

    Returns
    -------
    (3, 2 * margin) int64
        Sums of each byte column, of the squares, and of the products with the key frame.
    """
    sums = np.zeros((3, 2 * margin), np.int32)  # enough for 2 ** 15 rows
    for y in range(first, behind):
        for side in range(2):
            start = side * right
            pixels = bytes_at(address + y * stride + start, margin)
            keys = key[y, start : start + margin]
            plain = sums[0, side * margin : side * margin + margin]
            squares = sums[1, side * margin : side * margin + margin]
            products = sums[2, side * margin : side * margin + margin]
            for x in range(margin):
                value = np.int32(pixels[x])
                plain[x] = np.int32(plain[x] + value)
                squares[x] = np.int32(squares[x] + value * value)
                products[x] = np.int32(products[x] + value * np.int32(keys[x]))
    return sums.astype(np.int64)


@njit(cache=True, nogil=True)
def light_change(rows: Longs, key_rows: Longs, count: int) -> tuple[float, Doubles]:
    """Fit frame = gain * key + offset of the channel, by least squares over the whole frame.

    Any other gain and offset would do for the bounds; these make them tight.
    """
    channels = rows.shape[0] - 2
    plain, key_plain = rows[:channels].sum(1) / count, key_rows[:channels].sum(1) / count
    products = rows[channels + 1].sum() - count * (plain * key_plain).sum()
    squares = key_rows[channels].sum() - count * (key_plain * key_plain).sum()
    gain = products / squares if squares > 0 else 0.0
    return gain, plain - gain * key_plain


@njit(cache=True, nogil=True)
def residuals(
    rows: Longs, columns: Longs, key: Key, height: int, gain: float, offsets: Doubles
) -> tuple[Doubles, Doubles]:
    """Sum (pixel - gain * key - offset) ** 2 over windows.

    Returns
    -------
    strips : (positions in y,) float64
        The sum over the rows of a window at y, whole rows.
    outside : (positions in x,) float64
        The part of it that lies for certain outside a window at x: its outer columns in the
        rows that all windows share.
    """
    channels = offsets.size
    steps_y, steps_x = key.angles.shape
    width = key.pixels.shape[1] // channels
    margin = (steps_x - 1) * channels
    squared = gain * gain
    line = np.empty(rows.shape[1])
    for y in range(line.size):
        rest = rows[channels, y] - 2 * gain * rows[channels + 1, y]
        rest += squared * key.rows[channels, y]
        for c in range(channels):
            both = 2 * (gain * key.rows[c, y] - rows[c, y])
            rest += offsets[c] * (width * offsets[c] + both)
        line[y] = rest
    strips = np.empty(steps_y)
    strips[0] = line[:height].sum()
    for y in range(1, steps_y):
        strips[y] = strips[y - 1] + line[y + height - 1] - line[y - 1]
    column = np.empty(2 * margin)
    shared = height - (steps_y - 1)
    for x in range(column.size):
        offset = offsets[x % channels]
        both = 2 * (gain * key.columns[0, x] - columns[0, x])
        column[x] = columns[1, x] - 2 * gain * columns[2, x] + squared * key.columns[1, x]
        column[x] += offset * (shared * offset + both)
    outside = np.empty(steps_x)
    outside[0] = column[margin:].sum()
    for x in range(1, steps_x):
        outside[x] = outside[x - 1]
        for c in range((x - 1) * channels, x * channels):
            outside[x] += column[c] - column[margin + c]
    return strips, outside


@njit(cache=True, nogil=True)
def evaluate(
    address: int, stride: int, rows: Longs, columns: Longs, key: Key, pattern: Pattern, at: Longs
) -> tuple[Longs, Longs]:
    """Compute scores exactly at some positions, as products and norms.

    The sums over a window are those over its whole rows without the outer columns.
    """
    channels = pattern.sums.size
    height = pattern.packed.shape[0]
    steps_y, steps_x = key.angles.shape
    margin = (steps_x - 1) * channels
    row_bytes = key.pixels.shape[1] - margin
    area = height * row_bytes // channels
    offsets = at // steps_x * stride + at % steps_x * channels
    products = dot_products(address, stride, row_bytes, pattern.packed, offsets)
    norms = np.empty_like(products)
    outer = columns.copy()
    top, behind = steps_y - 1, height
    sums = np.empty(channels, np.int64)
    for k in range(at.size):
        y, x = at[k] // steps_x, at[k] % steps_x
        first = x * channels
        add_rows(outer, address, stride, margin, row_bytes, y, top, 1)
        add_rows(outer, address, stride, margin, row_bytes, top, y, -1)
        add_rows(outer, address, stride, margin, row_bytes, behind, y + height, 1)
        top, behind = y, y + height
        for c in range(channels):
            sums[c] = rows[c, y : y + height].sum()
            sums[c] -= outer[0, c:first:channels].sum()
            sums[c] -= outer[0, margin + first + c :: channels].sum()
        squares = rows[channels, y : y + height].sum()
        squares -= outer[1, :first].sum() + outer[1, margin + first :].sum()
        norms[k] = area * squares
        products[k] *= area
        for c in range(channels):
            norms[k] -= sums[c] * sums[c]
            products[k] -= sums[c] * pattern.sums[c]
    return products, norms


@njit(cache=True, nogil=True)
def add_rows(
    outer: Longs,
    address: int,
    stride: int,
    margin: int,
    right: int,
    first: int,
    behind: int,
    sign: int,
) -> None:
    """Add the pixels of the outer columns in some rows, and their squares, to ``outer``."""
    for y in range(first, behind):
        for side in range(2):
            pixels = bytes_at(address + y * stride + side * right, margin)
            plain = outer[0, side * margin : side * margin + margin]
            squares = outer[1, side * margin : side * margin + margin]
            for x in range(margin):
                value = sign * np.int64(pixels[x])
                plain[x] += value
                squares[x] += value * np.int64(pixels[x])


@njit(cache=True, nogil=True)
def search(
    address: int, stride: int, key: Key, pattern: Pattern, hint: int, limit: int
) -> tuple[Longs, Longs, Longs, int]:
    """Find the best positions in a frame that resembles the key frame.

    Windows without their means, scaled to length 1, are points of a sphere, and a score is the
    cosine of the angle between a window and the template. If the frame is
    ``gain * key + offset + rest``, the angle between the same window of both is at most
    ``asin(|rest| / (gain * |key|))``; by the triangle inequality a position whose angle in the
    key frame exceeds the best angle by more cannot be the best, and is not computed.

    Parameters
    ----------
    address, stride : int
        The frame.
    key, pattern
        The key frame and the template.
    hint : int
        A position likely to be the best, y * (positions in x) + x.
    limit : int
        Most positions worth computing.

    Returns
    -------
    positions, products, norms : (n,) int64
        The best, in row-major order, and those whose score is equal but for rounding. Empty when
        the frame is too different from the key frame.
    computed : int
        How many positions had to be computed.
    """
    channels = pattern.sums.size
    height, row_bytes = pattern.packed.shape[0], key.pixels.shape[1]
    steps_y, steps_x = key.angles.shape
    margin = (steps_x - 1) * channels
    none = np.empty(0, np.int64)
    rows = row_sums(address, stride, row_bytes, key.masks, key.packed)
    gain, offsets = light_change(rows, key.rows, rows.shape[1] * row_bytes // channels)
    if not gain > 0:
        return none, none, none, 0
    columns = column_sums(
        address, stride, key.pixels, margin, row_bytes - margin, steps_y - 1, height
    )
    strips, outside = residuals(rows, columns, key, height, gain, offsets)
    product, norm = evaluate(
        address, stride, rows, columns, key, pattern, np.full(1, hint, np.int64)
    )
    score = score_of(product[0], norm[0]) / math.sqrt(pattern.norm)
    reach = math.acos(min(max(score, -1.0), 1.0)) + _ANGLE_ERROR
    # What rounding may have hidden from the residuals.
    slack = rows[channels].sum() + gain * gain * key.rows[channels].sum()
    slack = 1e-12 * (slack + (offsets * offsets).sum() * rows.shape[1] * row_bytes)
    widest = math.sqrt(strips.max() - outside.min() + slack) / gain
    shortest = key.lengths.min()
    horizon = reach + math.asin(widest / shortest) if widest < shortest else math.inf
    candidates = np.empty(limit, np.int64)
    count = 0
    for y in range(steps_y):
        for x in range(steps_x):
            distance = key.angles[y, x] - reach
            if key.angles[y, x] > horizon:
                continue
            if distance > 0:
                rest = math.sqrt(max(strips[y] - outside[x], 0.0) + slack) / gain
                if rest < math.sin(min(distance, math.pi / 2)) * key.lengths[y, x]:
                    continue
            if count == limit:
                return none, none, none, limit
            candidates[count] = y * steps_x + x
            count += 1
    candidates = candidates[:count]
    others = candidates != hint
    products, norms = np.full(count, product[0]), np.full(count, norm[0])
    products[others], norms[others] = evaluate(
        address, stride, rows, columns, key, pattern, candidates[others]
    )
    best = -math.inf
    for k in range(count):
        best = max(best, score_of(products[k], norms[k]))
    near = np.empty(count, np.bool_)
    for k in range(count):
        near[k] = score_of(products[k], norms[k]) >= best - abs(best) * 1e-12
    return candidates[near], products[near], norms[near], count


@njit(cache=True, nogil=True)
def score_of(product: int, norm: int) -> float:
    """Return the score times the template's length; 0 for a flat window."""
    return product / math.sqrt(norm) if norm > 0 else 0.0
