"""The compiled walks through JPEG's entropy-coded data; see `jpeg`.

Each takes the data without stuffing, ``offsets`` of its parts between restarts, the units a
part codes and in all, and returns (units that are there, bytes left over, whether a code does
not exist). Reading on behind a part gives zeros, as libjpeg does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Offsets = NDArray[np.int64]
Found = tuple[int, int, bool]

SHORT = 11
FULL = 1 << 16
"""A table says (length << 8 | symbol) for each 16 bits that may follow, 0 where no code does,
and behind these for each 11 bits, 0 where the code is longer."""


@njit(cache=True, nogil=True, inline="always")
def _peek(data: Bytes, end: int, bit: int) -> Any:
    """Return the 16 bits that follow ``bit``, zeros behind ``end``."""
    at = bit >> 3
    word = np.int64(0)
    if at + 2 < end:
        word = (np.int64(data[at]) << 16) | (np.int64(data[at + 1]) << 8) | np.int64(data[at + 2])
    else:
        if at < end:
            word = np.int64(data[at]) << 16
        if at + 1 < end:
            word |= np.int64(data[at + 1]) << 8
    return (word >> (8 - (bit & 7))) & 0xFFFF


@njit(cache=True, nogil=True)
def sequential(  # noqa: PLR0912 - one loop
    data: Bytes,
    offsets: Offsets,
    per_segment: int,
    units: int,
    dc: NDArray[np.uint16],
    ac: NDArray[np.uint16],
) -> Found:
    """Walk a scan of baseline or extended sequential coding.

    ``data`` go on for 512 bytes behind the last part: a block may run over it by 64 codes of
    31 bits. Up to 64 bits wait in ``word``,
    the next one topmost.
    """
    done: Any = 0
    left: Any = 0
    for part in range(len(offsets) - 1):
        end = offsets[part + 1]
        at: Any = offsets[part]
        word = np.uint64(0)
        held: Any = 0
        for _ in range(min(per_segment, units - done)):
            for block in range(len(dc)):
                k: Any = 0
                while k < 64:
                    if held <= 32:
                        four = np.uint64(data[at]) << np.uint64(24)
                        four |= np.uint64(data[at + 1]) << np.uint64(16)
                        four |= np.uint64(data[at + 2]) << np.uint64(8)
                        four |= np.uint64(data[at + 3])
                        word |= four << np.uint64(32 - held)
                        at += 4
                        held += 32
                    table = dc if k == 0 else ac
                    # Short codes from a table that stays in the fastest cache.
                    entry: Any = np.int64(table[block, FULL + (word >> np.uint64(64 - SHORT))])
                    if entry == 0:
                        entry = np.int64(table[block, word >> np.uint64(48)])
                    if entry == 0:
                        return done, 0, at - (held >> 3) <= end - 2
                    size = entry & 15
                    used = (entry >> 8) + size
                    word <<= np.uint64(used)
                    held -= used
                    if k == 0:
                        k = 1
                    elif size == 0:
                        if entry & 0xF0 != 0xF0:
                            break
                        k += 16
                    else:
                        k += ((entry >> 4) & 15) + 1
                if at - (held >> 3) > end:
                    return done, 0, False
                if k > 64:
                    return done, 0, True
            done += 1
        left = max(left, end - at + (held >> 3))
    return done, left, False


@njit(cache=True, nogil=True)
def dc_scan(
    data: Bytes,
    offsets: Offsets,
    per_segment: int,
    units: int,
    dc: NDArray[np.uint16],
    refines: bool,
) -> Found:
    """Walk a progressive scan of the first coefficients."""
    done: Any = 0
    left: Any = 0
    for part in range(len(offsets) - 1):
        end = offsets[part + 1]
        bit: Any = offsets[part] * 8
        for _ in range(min(per_segment, units - done)):
            for block in range(len(dc)):
                if refines:
                    bit += 1
                    continue
                entry = np.int64(dc[block, _peek(data, end, bit)])
                if entry == 0:
                    return done, 0, bit <= end * 8 - 16
                bit += (entry >> 8) + (entry & 15)
            if bit > end * 8:
                return done, 0, False
            done += 1
        left = max(left, end - ((bit + 7) >> 3))
    return done, left, False


@njit(cache=True, nogil=True)
def ac_scan(
    data: Bytes,
    offsets: Offsets,
    per_segment: int,
    units: int,
    ac: NDArray[np.uint16],
    first: int,
    last: int,
    mask: NDArray[np.uint64],
) -> Found:
    """Walk the first progressive scan of a band; ``mask`` keeps which coefficients are not 0."""
    done: Any = 0
    left: Any = 0
    for part in range(len(offsets) - 1):
        end = offsets[part + 1]
        bit: Any = offsets[part] * 8
        skip: Any = 0
        for _ in range(min(per_segment, units - done)):
            k: Any = first
            if skip > 0:
                skip -= 1
                k = last + 1
            while k <= last:
                entry = np.int64(ac[_peek(data, end, bit)])
                if entry == 0:
                    return done, 0, bit <= end * 8 - 16
                run, size = (entry >> 4) & 15, entry & 15
                bit += entry >> 8
                if size:
                    k += run
                    if k > 63 and bit <= end * 8:
                        return done, 0, True
                    bit += size
                    if k <= 63:
                        mask[done] |= np.uint64(1) << np.uint64(k)
                    k += 1
                elif run == 15:
                    k += 16
                else:
                    skip = (1 << run) - 1
                    if run:
                        skip += _peek(data, end, bit) >> (16 - run)
                        bit += run
                    break
            if bit > end * 8:
                return done, 0, False
            done += 1
        left = max(left, end - ((bit + 7) >> 3))
    return done, left, False


@njit(cache=True, nogil=True)
def ac_refinement(  # noqa: PLR0912 - one loop
    data: Bytes,
    offsets: Offsets,
    per_segment: int,
    units: int,
    ac: NDArray[np.uint16],
    first: int,
    last: int,
    mask: NDArray[np.uint64],
) -> Found:
    """Walk a further scan of a band: a bit for each coefficient that is not 0 already."""
    done: Any = 0
    left: Any = 0
    one = np.uint64(1)
    for part in range(len(offsets) - 1):
        end = offsets[part + 1]
        bit: Any = offsets[part] * 8
        skip: Any = 0
        for _ in range(min(per_segment, units - done)):
            k: Any = first
            if skip == 0:
                while k <= last:
                    entry = np.int64(ac[_peek(data, end, bit)])
                    if entry == 0:
                        return done, 0, bit <= end * 8 - 16
                    run, size = (entry >> 4) & 15, entry & 15
                    bit += entry >> 8
                    if size:
                        bit += 1
                    elif run != 15:
                        skip = 1 << run
                        if run:
                            skip += _peek(data, end, bit) >> (16 - run)
                            bit += run
                        break
                    while k <= last:
                        if (mask[done] >> np.uint64(k)) & one:
                            bit += 1
                        else:
                            if run == 0:
                                break
                            run -= 1
                        k += 1
                    if size and k <= 63:
                        mask[done] |= one << np.uint64(k)
                    k += 1
            if skip > 0:
                while k <= last:
                    if (mask[done] >> np.uint64(k)) & one:
                        bit += 1
                    k += 1
                skip -= 1
            if bit > end * 8:
                return done, 0, False
            done += 1
        left = max(left, end - ((bit + 7) >> 3))
    return done, left, False
