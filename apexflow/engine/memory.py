"""Keeping the memory of one frame for the next."""

from __future__ import annotations

import ctypes
import sys
from functools import cache

# From <malloc.h> of glibc.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# The most that glibc takes, and the most that it goes to by itself.
_LARGEST_BLOCK = 32 << 20
_FREE_AT_MOST = 256 << 20


@cache
def keep_freed_memory() -> None:
    """Keep what a frame leaves free for the next one, instead of giving it back to the system.

    By default each frame's megabytes are fresh pages, which the system clears and hands over
    one by one: a third of the time that decoding takes. A Dask worker is even told to give
    back everything at once. No effect where the C library is not glibc.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)
        mallopt(_M_TRIM_THRESHOLD, _FREE_AT_MOST)
