"""Integer sums over an image at all positions of a window, compiled.

Pixels count as ``value - 128``, which halves the magnitudes and changes no correlation. An
image comes as the address of its first byte, the distance between rows in bytes, and its shape
(`where`), so that one compiled form serves all views of a frame.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from apexflow.kernels.simd import keep
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

CENTRE = 128
"""What is subtracted from each pixel before it is multiplied."""

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


@njit(cache=True, nogil=True)
def window_sums(
    image: Where, window_height: int, window_width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sum the pixels, and their squares, under every position of a window.

    Only the windows at the left are added up. From there to the right the sums change by the
    difference of two columns, which from one row to the next changes by four pixels.

    Returns
    -------
    sums : (positions in y, positions in x, C) int64
    squares : (positions in y, positions in x) int64
        Pooled over the channels.
    """
    address, stride, height, width, channels = image
    rows = height - window_height + 1
    columns = width - window_width + 1
    length = window_width * channels
    lines = row_sums(address, stride, height, length, channels)
    sums = np.empty((rows, columns, channels), np.int64)
    squares = np.empty((rows, columns), np.int64)
    left = np.zeros(channels + 1, np.int64)
    steps = np.zeros((2, (columns - 1) * channels), np.int64)
    plain, squared = steps[0], steps[1]
    for y in range(window_height - 1):
        add_steps(address + y * stride, length, plain, squared, 1)
        left += lines[y]
    for top in range(rows):
        behind = top + window_height
        add_steps(address + (behind - 1) * stride, length, plain, squared, 1)
        left += lines[behind - 1]
        for c in range(channels):
            value = left[c]
            for x in range(columns - 1):
                sums[top, x, c] = value
                value += plain[x * channels + c]
            sums[top, columns - 1, c] = value
        value = left[channels]
        for x in range(columns - 1):
            squares[top, x] = value
            for k in range(x * channels, (x + 1) * channels):
                value += squared[k]
        squares[top, columns - 1] = value
        add_steps(address + top * stride, length, plain, squared, -1)
        left -= lines[top]
    return sums, squares


@njit(cache=True, nogil=True, inline="always")
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


@njit(cache=True, nogil=True)
def row_sums(
    address: int, stride: int, height: int, length: int, channels: int
) -> NDArray[np.int64]:
    """Sum the first bytes of each row of an image.

    Returns
    -------
    (height, C + 1) int64
        The sums of the channels, and of all squares.
    """
    masks, last = channel_masks(channels), np.zeros(WIDTH, np.uint8)
    mask, step = masks.ctypes.data, channels * WIDTH
    sums = np.zeros((height, channels + 1), np.int64)
    most = MAXIMUM_DOTS // 3 * 3 * WIDTH  # whole pixels in vectors whose sums fit 32 bits
    for y in range(height):
        for start in range(0, length, most):
            row, rest = address + y * stride + start, min(most, length - start)
            squares, a, b, c = zeros(), zeros(), zeros(), zeros()
            phase = 0
            for first in range(0, rest, WIDTH):
                at = row + first
                if rest - first < WIDTH:
                    copy(last, at, rest - first)
                    at = last.ctypes.data
                pixels = load(at)
                squares = dot(squares, pixels, flip(pixels))
                a = dot(a, pixels, load(mask + phase))
                if channels == 3:
                    b = dot(b, pixels, load(mask + step + phase))
                    c = dot(c, pixels, load(mask + 2 * step + phase))
                    phase = (phase + WIDTH) % step
            # Counted from CENTRE.
            each = CENTRE * (rest // channels)
            plain, second, third = total(a), total(b), total(c)
            sums[y, 0] += plain - each
            if channels == 3:
                sums[y, 1] += second - each
                sums[y, 2] += third - each
            sums[y, channels] += total(squares) - CENTRE * (plain + second + third - CENTRE * rest)
    keep(masks)
    keep(last)
    return sums


@njit(cache=True, nogil=True)
def channel_masks(channels: int) -> NDArray[np.uint8]:
    """Return (C, C, 64): 1 where a byte of every C-th vector of a row belongs to a channel."""
    masks = np.zeros((channels, channels * WIDTH), np.uint8)
    for c in range(channels):
        masks[c, c::channels] = 1
    return masks.reshape(channels, channels, WIDTH)


@njit(cache=True, nogil=True, inline="always")
def copy(buffer: NDArray[np.uint8], address: int, count: int) -> None:
    """Copy bytes to the start of a buffer."""
    source = bytes_at(address, count)
    for i in range(count):
        buffer[i] = source[i]
