"""What operating systems do in ways of their own, each with a portable form.

Linux has all of it, macOS the locks and groups of processes, Windows none. Nothing else of
apexflow asks which system it runs on for these.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
import sys
from contextlib import suppress
from functools import lru_cache
from types import ModuleType
from typing import Any

# From <malloc.h> of glibc.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# The largest block that glibc takes, and goes to by itself; what is kept at the end of the heap.
_LARGEST_BLOCK = 32 << 20
_FREE_AT_MOST = 256 << 20


def _module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def locks_folders() -> bool:
    """Whether folders can be locked here: with ``flock``, which a dead process lets go of."""
    return _module("fcntl") is not None


def lock_folder(handle: int, *, shared: bool = False, wait: bool = False) -> None:
    """Lock an open folder until its handle is closed; does nothing where there are no locks.

    Raises `BlockingIOError` when somebody else holds it and ``wait`` is false, `OSError` on a
    file system that locks no folders.
    """
    fcntl: Any = _module("fcntl")
    if fcntl is not None:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        fcntl.flock(handle, kind if wait else kind | fcntl.LOCK_NB)


def cores() -> int:
    """Return how many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def end_group(leader: int) -> None:
    """End at once a process that leads a group, with all that it has started."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)
        return
    import psutil

    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(leader)
        for one in (*process.children(recursive=True), process):
            with suppress(psutil.NoSuchProcess):
                one.kill()


@lru_cache(maxsize=1)
def keep_freed_memory() -> None:
    """Keep what a frame or a batch leaves free for the next one, instead of giving it back.

    By default each one's megabytes are fresh pages, which the system clears and hands over one by
    one: a third of the time that decoding takes, 5 to 20 % of the training of most networks. A
    Dask worker is even told to give back everything at once. No effect where the C library is
    not glibc.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_BLOCK)
        mallopt(_M_TRIM_THRESHOLD, _FREE_AT_MOST)


def limit_memory(most: int) -> None:
    """Let this process hold at most so many bytes; 0 and other systems than Linux set no limit."""
    resource: Any = _module("resource")
    if most and sys.platform == "linux" and resource is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
