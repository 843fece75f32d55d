"""Main directional maximal difference (MDMD).

S.-J. Wang, S. Wu, X. Qian, J. Li, X. Fu, "A main directional maximal difference analysis for
spotting facial movements from long-term videos", Neurocomputing 230, 2017, DOI
10.1016/j.neucom.2016.12.034; as baseline of MEGC 2020: Y. He et al., DOI
10.1109/FG47880.2020.00036.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from apexflow.spotting.motion import CELLS

if TYPE_CHECKING:
    from apexflow.spotting.curves import Measured

BLOCKS = 6
_PART = 3  # the blocks that move most: one of so many
_CHUNK = 512


def curve(measured: Measured, lag: int) -> NDArray[np.float32]:
    """Return the method's curve (n,) of motion between frames ``lag`` samples apart.

    For each of 6x6 blocks the flow from k frames before falls into four directions; in the one
    that most of it has, the mean length is compared with that of the flow from k before to k
    behind. The third of the blocks in which it is most greater counts; a frame's value is its
    excess over the mean of those k before and behind.
    """
    lag = max(1, lag)
    count = len(measured)
    raw = np.empty(count, np.float32)
    for start in range(0, count, _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, count))
        here, before, behind = (
            _fields(measured, np.clip(rows + by, 0, count - 1)) for by in (0, -lag, lag)
        )
        raw[rows] = _largest(here - before, behind - before)
    rows = np.arange(count)
    around = (raw[np.clip(rows - lag, 0, None)] + raw[np.clip(rows + lag, None, count - 1)]) / 2
    return np.maximum(raw - around, 0).astype(np.float32)


def _fields(measured: Measured, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.asarray(measured.fields[rows], np.float32)


def _largest(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean difference of the blocks in which it is greatest, for each of n frames."""
    u, v = _blocks(first[:, 0]), _blocks(first[:, 1])
    # Four directions about the axes: right, down, left, up.
    direction = np.where(np.abs(u) >= np.abs(v), np.where(u >= 0, 0, 2), np.where(v >= 0, 1, 3))
    votes = np.stack([(direction == way).sum(axis=2) for way in range(4)])
    main = direction == votes.argmax(axis=0)[:, :, None]
    there = np.hypot(u, v)
    whole = np.hypot(_blocks(second[:, 0]), _blocks(second[:, 1]))
    most = np.maximum(main.sum(axis=2), 1)
    difference = ((there - whole) * main).sum(axis=2) / most
    count = difference.shape[1] // _PART
    return np.sort(difference, axis=1)[:, -count:].mean(axis=1)


def _blocks(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (n, CELLS, CELLS) as (n, block, cell)."""
    side = CELLS // BLOCKS
    cut = values.reshape(-1, BLOCKS, side, BLOCKS, side).swapaxes(2, 3)
    return cut.reshape(len(values), BLOCKS * BLOCKS, side * side)
