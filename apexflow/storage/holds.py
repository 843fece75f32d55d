"""A store held by its readers, so that a compaction leaves them the chunks that they read.

Holds are locks of the operating system (``flock``) on the store's folder ``clips``. Where there
are none (Windows, buckets, some network file systems) nobody can know who reads: old chunks are
deleted, and a reader that looks for them sees by the digests that it must open the arrays again.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from apexflow.storage.target import Target, local_path
from apexflow.system import lock_folder, locks_folders


def hold(target: Target) -> int | None:
    """Take a shared hold on a local store's chunks; None where there are no holds.

    Given back by closing the handle, or by the operating system when the process dies.
    """
    handle = _open(target)
    if handle is None:
        return None
    try:
        lock_folder(handle, shared=True, wait=True)
    except OSError:
        os.close(handle)
        return None
    return handle


@contextmanager
def without_readers(target: Target) -> Iterator[bool]:
    """Keep readers from opening a local store; say whether none is known to have it open."""
    handle = _open(target)
    if handle is None:
        yield True
        return
    try:
        yield _nobody_holds(handle)
    finally:
        os.close(handle)


def _open(target: Target) -> int | None:
    """Open the folder itself: files of a Zarr store are replaced, folders stay."""
    path = local_path(target)
    if not locks_folders() or path is None or not (path / "clips").is_dir():
        return None
    try:
        return os.open(path / "clips", os.O_RDONLY)
    except OSError:
        return None


def _nobody_holds(handle: int) -> bool:
    try:
        lock_folder(handle)
    except BlockingIOError:
        return False
    except OSError:  # a file system that locks no folder
        return True
    return True
