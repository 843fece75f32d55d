"""A store held by its readers, across forks, spawned workers and compaction."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from apexflow.storage.store import Store, open_store
from apexflow.storage.target import Target, local_path


class HeldStore:
    """Opens a store when it is first read, and holds it against the deletion of old chunks.

    A compaction leaves the chunks that it replaced where they are while a reader is there.
    A copy in another process (pickled for a spawned worker) opens the store for itself.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._store: Store | None = None
        self._handle: int | None = None

    @property
    def store(self) -> Store:
        if self._store is None:
            # Held before it is opened: what the opened metadata says stays on disk.
            self._handle = hold(self._target)
            self._store = open_store(self._target)
        return self._store

    def close(self) -> None:
        """Let go of the store; the next use opens it again."""
        if self._handle is not None:
            os.close(self._handle)
        self._store = self._handle = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_target": self._target, "_store": None, "_handle": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def __del__(self) -> None:
        self.close()


def hold(target: Target) -> int | None:
    """Take a shared hold on a local store's chunks; None for any other kind of store.

    Given back by closing the handle, or by the operating system when the process dies.
    """
    path = local_path(target)
    if sys.platform == "win32" or path is None or not (path / "clips").is_dir():
        return None
    import fcntl

    # The folder itself: files of a Zarr store are replaced, folders stay.
    handle = os.open(path / "clips", os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_SH)
    return handle


@contextmanager
def without_readers(target: Target) -> Iterator[bool]:
    """Keep readers from opening a local store; say whether none has it open.

    Of any other kind of store nobody can know who reads it: True. Windows has no such holds:
    False.
    """
    path = local_path(target)
    if sys.platform == "win32" or path is None:
        yield path is None
        return
    import fcntl

    handle = os.open(path / "clips", os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
    finally:
        os.close(handle)
