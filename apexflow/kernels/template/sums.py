"""Integer sums over an image at all positions of a window, compiled.

Pixels count as ``value - 128``, which halves the magnitudes and changes no correlation. An
image comes as the address of its first byte, the distance between rows in bytes, and its shape
(`where`), so that one compiled form serves all views of a frame.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels.compiled import njit
from apexflow.kernels.simd import LANES, keep
from apexflow.kernels.simd_bytes import (
    MAXIMUM_DOTS,
    WIDTH,
    any_bit,
    bytes_at,
    dot,
    flip,
    load,
    load_columns,
    note_unequal,
    store,
    total,
    zeros,
)

CENTRE = 128
"""What is subtracted from each pixel before it is multiplied."""

_UNIT = 3 * WIDTH
"""Bytes at a time: whole pixels, and three sums hide each other's latency."""

RowSums = tuple[int, int, int, int]
"""Of each of three channels (the others are 0), and of all squares."""

Where = tuple[int, int, int, int, int]
"""Address, stride, height, width, channels."""


def with_dense_rows(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the (H, W, C) image, or a copy of it whose rows have no gaps between pixels."""
    channels = image.shape[2]
    dense = image.strides[1:] == (channels, 1) and image.strides[0] >= image.shape[1] * channels
    return image if dense else np.ascontiguousarray(image)


def where(image: NDArray[np.uint8]) -> Where:
    """Say where an image with dense rows lies in memory; the caller keeps it alive."""
    return image.ctypes.data, image.strides[0], *image.shape


@njit
def window_sums(
    image: Where, window_height: int, window_width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sum the pixels under every position of a window, and their squares less the means'.

    Only the windows at the left are added up. From there to the right the sums change by the
    difference of two columns, which from one row to the next changes by four pixels.

    Returns
    -------
    sums : (positions in y, positions in x, C) int64
    norms : (positions in y, positions in x) int64
        The area times the sum of all squares, less the squares of the channels' sums.
    """
    address, stride, height, width, channels = image
    rows, columns = height - window_height + 1, width - window_width + 1
    length, area = window_width * channels, window_height * window_width
    masks, last = channel_masks(channels), np.zeros(_UNIT, np.uint8)
    left = row_sums(image, length, 0, window_height - 1, masks, last)
    steps = column_sums(address + length, stride, window_height - 1, (columns - 1) * channels)
    steps -= column_sums(address, stride, window_height - 1, (columns - 1) * channels)
    plain, squared = steps[0], steps[1]
    sums = np.empty((rows, columns, channels), np.int64)
    norms = np.empty((rows, columns), np.int64)
    for top in range(rows):
        behind = top + window_height
        left = add(left, row_sums(image, length, behind - 1, behind, masks, last), 1)
        add_steps(address + (behind - 1) * stride, length, plain, squared, 1)
        a, b, c, square = left
        i = 0
        for x in range(columns):
            sums[top, x, 0] = a
            if channels == 3:
                sums[top, x, 1] = b
                sums[top, x, 2] = c
            norms[top, x] = area * square - a * a - b * b - c * c
            if x < columns - 1:
                a += plain[i]
                square += squared[i]
                if channels == 3:
                    b += plain[i + 1]
                    c += plain[i + 2]
                    square += squared[i + 1] + squared[i + 2]
            i += channels
        left = add(left, row_sums(image, length, top, top + 1, masks, last), -1)
        add_steps(address + top * stride, length, plain, squared, -1)
    return sums, norms


@njit
def column_sums(address: int, stride: int, height: int, count: int) -> NDArray[np.int64]:
    """Sum the first bytes of all rows, and their squares, column by column: (2, count)."""
    result = np.zeros((2, count), np.int64)
    if count < LANES:
        add_columns(address, stride, height, result)
        return result
    ones = np.ones(WIDTH, np.uint8)
    lanes = np.empty((2, LANES), np.int32)
    one, line = ones.ctypes.data, lanes.ctypes.data
    most = 4 * MAXIMUM_DOTS
    for first in range(0, count, LANES):
        x = min(first, count - LANES)  # the last columns overlap those before
        result[:, x : x + LANES] = 0
        for top in range(0, height, most):
            behind = min(top + most, height)
            a, b = zeros(), zeros()
            whole = behind - (behind - top) % 4
            for y in range(top, whole, 4):
                pixels = load_columns(address + y * stride + x, stride)
                a = dot(a, pixels, load(one))
                b = dot(b, pixels, flip(pixels))
            store(line, a)
            store(line + 4 * LANES, b)
            for k in range(LANES):
                plain, square = np.int64(lanes[0, k]), np.int64(lanes[1, k])
                plain -= (whole - top) * CENTRE
                result[0, x + k] += plain
                result[1, x + k] += square - CENTRE * plain
            rest = address + whole * stride + x
            add_columns(rest, stride, behind - whole, result[:, x : x + LANES])
    keep(ones)
    keep(lanes)
    return result


@njit
def add_columns(address: int, stride: int, height: int, sums: NDArray[np.int64]) -> None:
    """Add the first bytes of all rows, and their squares, to (2, count)."""
    for y in range(height):
        row = bytes_at(address + y * stride, sums.shape[1])
        for x in range(sums.shape[1]):
            value = np.int64(row[x]) - CENTRE
            sums[0, x] += value
            sums[1, x] += value * value


@njit(inline="always")
def add_steps(
    row: int, length: int, plain: NDArray[np.int64], squared: NDArray[np.int64], sign: int
) -> None:
    """Add a row, or take it away, from what sums differ by between neighbouring windows."""
    count = plain.size
    leaving, entering = bytes_at(row, count), bytes_at(row + length, count)
    for x in range(count):
        out, into = np.int32(leaving[x]), np.int32(entering[x])
        difference = np.int32(into - out)
        plain[x] += sign * difference
        # The difference of the squares of both, less CENTRE each.
        squared[x] += sign * np.int32(difference * np.int32(into + out - np.int32(2 * CENTRE)))


@njit
def add(a: RowSums, b: RowSums, sign: int) -> RowSums:
    """Add b to a, or take it away."""
    return a[0] + sign * b[0], a[1] + sign * b[1], a[2] + sign * b[2], a[3] + sign * b[3]


@njit
def row_sums(
    image: Where,
    length: int,
    top: int,
    behind: int,
    masks: NDArray[np.uint8],
    last: NDArray[np.uint8],
) -> RowSums:
    """Sum the first bytes of some rows; what is beyond a row's last whole unit goes to ``last``."""
    address, stride, _, _, channels = image
    mask, buffer = masks.ctypes.data, last.ctypes.data
    most = MAXIMUM_DOTS * WIDTH // _UNIT * _UNIT  # bytes whose sums fit 32 bits
    first = second = third = squares = 0
    for start in range(0, length, most):
        rest = min(most, length - start)
        whole = rest // _UNIT * _UNIT
        strip = max(1, most // (whole + _UNIT))
        for y0 in range(top, behind, strip):
            a, b, c = zeros(), zeros(), zeros()
            d0, d1, d2 = zeros(), zeros(), zeros()
            count = min(strip, behind - y0)
            for y in range(y0, y0 + count):
                row = address + y * stride + start
                for x in range(0, rest, _UNIT):
                    at = row + x
                    if x == whole:
                        copy(last, at, rest - whole)
                        at = buffer
                    p0, p1, p2 = load(at), load(at + WIDTH), load(at + 2 * WIDTH)
                    d0 = dot(d0, p0, flip(p0))
                    d1 = dot(d1, p1, flip(p1))
                    d2 = dot(d2, p2, flip(p2))
                    a = dot(a, p0, load(mask))
                    a = dot(a, p1, load(mask + WIDTH))
                    a = dot(a, p2, load(mask + 2 * WIDTH))
                    if channels == 3:
                        b = dot(b, p0, load(mask + _UNIT))
                        b = dot(b, p1, load(mask + _UNIT + WIDTH))
                        b = dot(b, p2, load(mask + _UNIT + 2 * WIDTH))
                        c = dot(c, p0, load(mask + 2 * _UNIT))
                        c = dot(c, p1, load(mask + 2 * _UNIT + WIDTH))
                        c = dot(c, p2, load(mask + 2 * _UNIT + 2 * WIDTH))
            # Counted from CENTRE.
            each = CENTRE * (rest // channels) * count
            plain = total(a) + total(b) + total(c)
            squares += total(d0) + total(d1) + total(d2) - CENTRE * (plain - CENTRE * rest * count)
            first += total(a) - each
            if channels == 3:
                second += total(b) - each
                third += total(c) - each
    keep(last)
    return first, second, third, squares


@njit
def channel_masks(channels: int) -> NDArray[np.uint8]:
    """Return (C, _UNIT): 1 where a byte of a unit belongs to a channel."""
    masks = np.zeros((channels, _UNIT), np.uint8)
    for c in range(channels):
        masks[c, c::channels] = 1
    return masks


@njit(inline="always")
def copy(buffer: NDArray[np.uint8], address: int, count: int) -> None:
    """Copy bytes to the start of a buffer."""
    source = bytes_at(address, count)
    for i in range(count):
        buffer[i] = source[i]


def one_channel(image: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Return (H, W, 1) of a gray image stored in three equal channels; None of any other.

    The image has dense rows. Those of 64 bytes and less are not looked at.
    """
    if image.shape[2] == 1 or 3 * image.shape[1] <= WIDTH:
        return None
    one: NDArray[np.uint8] = _one_channel(where(image))
    return one if one.size else None


@njit
def _one_channel(image: Where) -> NDArray[np.uint8]:
    """Return one of three equal channels, (H, W, 1); nothing, (0, 0, 1), of others."""
    address, stride, height, width, _ = image
    plane = np.empty((height, width, 1), np.uint8)
    # Neighbouring bytes are compared: within a pixel, not from one to the next.
    masks = np.full(_UNIT, 255, np.uint8)
    masks[2::3] = 0
    mask, last = masks.ctypes.data, 3 * width - 1 - WIDTH
    for y in range(height):
        row, noted, phase = address + y * stride, zeros(), 0
        for x in range(0, last, WIDTH):
            at = row + x
            noted = note_unequal(noted, load(at), load(at + 1), load(mask + phase))
            phase = phase + 1 if phase < 2 else 0
        at = row + last
        noted = note_unequal(noted, load(at), load(at + 1), load(mask + last % 3))
        if any_bit(noted):
            plane = plane[:0, :0]
            break
        pixels, line = bytes_at(row, 3 * width), plane[y]
        for x in range(width):
            line[x, 0] = pixels[3 * x]
    keep(masks)
    return plane
