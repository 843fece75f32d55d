"""Integer sums over an image at all positions of a window, compiled.

Pixels count as ``value - 128``, which halves the magnitudes and changes no correlation. An
image comes as the address of its first byte, the distance between rows in bytes, and its shape
(`where`), so that one compiled form serves all views of a frame.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from apexflow.kernels.simd_bytes import bytes_at

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


def gray_plane(image: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Return the one channel, (H, W, 1), of an (H, W, 3) image whose channels are all equal."""
    plane = np.empty(image.shape[:2], np.uint8)
    return plane[..., None] if _take_plane(where(image), plane) else None


@njit(cache=True, nogil=True)
def _take_plane(image: Where, plane: NDArray[np.uint8]) -> bool:
    address, stride, height, width, _ = image
    for y in range(height):
        row, out = bytes_at(address + y * stride, 3 * width), plane[y]
        different = np.uint8(0)
        for x in range(width):
            value = row[3 * x]
            different |= (value ^ row[3 * x + 1]) | (value ^ row[3 * x + 2])
            out[x] = value
        if different:
            return False
    return True


@njit(cache=True, nogil=True)
def window_sums(
    image: Where, window_height: int, window_width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sum the pixels, and their squares, under every position of a window.

    Returns
    -------
    sums : (positions in y, positions in x, C) int64
    squares : (positions in y, positions in x) int64
        Pooled over the channels.
    """
    address, stride, height, width, channels = image
    rows = height - window_height + 1
    columns = width - window_width + 1
    sums = np.zeros((rows, columns, channels), np.int64)
    squares = np.zeros((rows, columns), np.int64)
    length = width * channels
    column = np.zeros(length, np.int64)
    column_squared = np.zeros(length, np.int64)
    reach = (window_width - 1) * channels
    for y in range(height):
        entering = bytes_at(address + y * stride, length)
        for x in range(length):
            value = np.int64(entering[x]) - CENTRE
            column[x] += value
            column_squared[x] += value * value
        top = y - window_height + 1
        if top < 0:
            continue
        for channel in range(channels):
            total = np.int64(0)
            total_squared = np.int64(0)
            for x in range(channel, reach, channels):
                total += column[x]
                total_squared += column_squared[x]
            for x in range(columns):
                at = x * channels + channel
                total += column[at + reach]
                total_squared += column_squared[at + reach]
                sums[top, x, channel] = total
                squares[top, x] += total_squared
                total -= column[at]
                total_squared -= column_squared[at]
        leaving = bytes_at(address + top * stride, length)
        for x in range(length):
            value = np.int64(leaving[x]) - CENTRE
            column[x] -= value
            column_squared[x] -= value * value
    return sums, squares
