"""Integer sums over image windows, compiled.

Images are uint8 of shape (channels, height, width) or (height, width, channels) as stated;
pixels count as ``value - 128``, which halves the magnitudes and changes no correlation.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

CENTRE = 128
"""What is subtracted from each pixel before it is multiplied."""


def gray_plane(image: NDArray[np.uint8]) -> NDArray[np.uint8] | None:
    """Return the one channel of an (H, W, 3) image whose channels are all the same."""
    rows = np.ascontiguousarray(image).reshape(image.shape[0], -1)
    plane = np.empty((*image.shape[:2], 1), np.uint8)
    return plane if _take_plane(rows, plane[..., 0]) else None


@njit(cache=True, nogil=True)
def _take_plane(rows: NDArray[np.uint8], plane: NDArray[np.uint8]) -> bool:
    for y in range(plane.shape[0]):
        row, out = rows[y], plane[y]
        different = np.uint8(0)
        for x in range(out.size):
            value = row[3 * x]
            different |= (value ^ row[3 * x + 1]) | (value ^ row[3 * x + 2])
            out[x] = value
        if different:
            return False
    return True


@njit(cache=True, nogil=True)
def window_sums(
    region: NDArray[np.uint8], height: int, width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sum the pixels, and their squares, under every position of a window.

    Parameters
    ----------
    region : (H, W, C) uint8
    height, width : int
        Size of the window.

    Returns
    -------
    sums : (H - height + 1, W - width + 1, C) int64
    squares : (H - height + 1, W - width + 1) int64
        Pooled over the channels.
    """
    rows = region.shape[0] - height + 1
    columns = region.shape[1] - width + 1
    channels = region.shape[2]
    sums = np.zeros((rows, columns, channels), np.int64)
    squares = np.zeros((rows, columns), np.int64)
    column = np.zeros(region.shape[1], np.int64)
    column_squared = np.zeros(region.shape[1], np.int64)
    for channel in range(channels):
        column[:] = 0
        column_squared[:] = 0
        for y in range(region.shape[0]):
            entering = region[y, :, channel]
            for x in range(entering.size):
                value = np.int64(entering[x]) - CENTRE
                column[x] += value
                column_squared[x] += value * value
            top = y - height + 1
            if top < 0:
                continue
            total = np.int64(0)
            total_squared = np.int64(0)
            for x in range(width - 1):
                total += column[x]
                total_squared += column_squared[x]
            for x in range(columns):
                total += column[x + width - 1]
                total_squared += column_squared[x + width - 1]
                sums[top, x, channel] = total
                squares[top, x] += total_squared
                total -= column[x]
                total_squared -= column_squared[x]
            leaving = region[top, :, channel]
            for x in range(leaving.size):
                value = np.int64(leaving[x]) - CENTRE
                column[x] -= value
                column_squared[x] -= value * value
    return sums, squares
