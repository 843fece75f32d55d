"""One store, as it is read: the table, the records, the arrays of each clip.

Whoever reads holds the store, so that a compaction leaves the chunks in place, and checks what
was read against the clip's commit record. `opened` has the group and the table, `records` the
commit records; here is what a clip's part of the arrays is, and how a store is opened.
"""

from __future__ import annotations

import html
import os
from collections import Counter
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.errors import GroupNotFoundError

from apexflow.errors import ApexflowError, DamagedError, NotStoredError
from apexflow.names import find_clip
from apexflow.storage.digests import crc32c, first_line
from apexflow.storage.format import (
    DONE,
    FAILED,
    FORMAT,
    ClipRecord,
    picture_paths,
    window_of,
)
from apexflow.storage.holds import hold
from apexflow.storage.opened import Key
from apexflow.storage.records import RecordedStore
from apexflow.storage.table import ClipTable, read_table
from apexflow.storage.target import (
    Target,
    local_path,
    not_ours,
    store_exists,
    target_name,
    zarr_target,
)


class Store(RecordedStore):
    """A store of format 1, opened for reading; see `open_store`. `StoreWriter` is one to write.

    It holds the store until it is closed: by `close`, at the end of a ``with`` block, or when
    nobody refers to it any more.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a copy in another process open, and hold, the store for itself."""
        return _open_held, (self.group.store, self.name)

    @property
    def clips(self) -> ClipTable:
        """The table of clips, with `ClipTable.to_pandas`; read each time it is asked for."""
        return read_table(self)

    def __repr__(self) -> str:
        counts = Counter(self.column("status").tolist())
        told = ", ".join(f"{counts[status]} {status}" for status in (DONE, FAILED))
        datasets = ", ".join(self.attributes.get("datasets", []))
        state = "" if self.complete else " (unfinished)"
        arrays = ", ".join(self.picture_paths())
        return (
            f"Store {self.name}{state}\n"
            f"  clips   {self.clip_count} of {datasets or 'no data set'}: {told}\n"
            f"  recipe  {self.recipe_hash[:12]}\n"
            f"  arrays  {arrays}"
        )

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the same, and the first rows of the table."""
        return f"<pre>{html.escape(repr(self))}</pre>{self.clips._repr_html_()}"

    def row(self, clip: int | str | Key) -> int:
        """Return the row of a clip: its number, "subject/name", or its key.

        Raises `ApexflowError` when there is none, or several are called so.
        """
        if isinstance(clip, int):
            if not -self.clip_count <= clip < self.clip_count:
                raise ApexflowError(f"row must be below {self.clip_count}. Got {clip}.")
            return clip % self.clip_count
        name = clip if isinstance(clip, str) else "/".join(clip)
        return find_clip(self.keys(), name, self.name)

    def plot(self, clip: int | str | Key = 0) -> Any:
        """Draw one clip: key frames and maps, score and shift over its frames.

        Parameters
        ----------
        clip : int, str or (data set, subject, name)
            A row, "subject/name", or a key.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ApexflowError
            There is no such clip, or it is not done.
        """
        from apexflow.storage.plots import plot_clip

        index = self.row(clip)
        return plot_clip(self, index, self._done(index))

    def plot_flow(self, clip: int | str | Key = 0, *, window: str | None = None) -> Any:
        """Draw one clip's flow: colours, arrows, and the colour wheel with its scale in pixels.

        Parameters
        ----------
        clip : int, str or (data set, subject, name)
        window : str, optional
            Whose flow; the first window's, and its first frame pair, when not given.

        Returns
        -------
        matplotlib.figure.Figure

        Raises
        ------
        ApexflowError
            There is no such clip or window, or the clip is not done.
        """
        from apexflow.storage.plots import plot_flow

        index = self.row(clip)
        return plot_flow(self, index, self._done(index), window)

    def _done(self, index: int) -> ClipRecord:
        record = self.record(index)
        if record is None or not record.done:
            name = "/".join(self.keys()[index])
            why = "is not processed yet" if record is None else f"failed: {record.message}"
            raise ApexflowError(f"{self.name}: clip {name} {why}")
        return record

    def digest(self, path: str, index: int, record: ClipRecord) -> int:
        """Read one clip's part of an array, whatever it is, and return its CRC-32C."""
        return crc32c(self._read(path, index, record))

    def read(self, path: str, index: int, record: ClipRecord) -> NDArray[Any]:
        """Read one clip's part of an array of ``flow``, ``roi``, ``maps`` or ``frames/image``.

        Without the clip axis; a window of several frame pairs has their axis first, whatever way
        the store keeps it.

        Raises
        ------
        DamagedError
            It is missing, unreadable, or not what the clip's commit record vouches for.
        NotStoredError
            The recipe keeps no frames, and frames are asked for.
        """
        if path == "frames/image" and not self.layout.keep_frames:
            raise NotStoredError(f"{self.name} keeps no frames; its recipe has frames.keep = false")
        reason = ""
        for _ in range(2):
            try:
                values = self._read(path, index, record)
            except Exception as error:  # whatever a damaged chunk or record makes Zarr raise
                reason = first_line(error)
            else:
                wanted = record.digests.get(path)
                if wanted is not None and crc32c(values) == wanted:
                    return values
                reason = "its commit record vouches for other bytes, or for none"
            self.refresh()
        raise self._damaged(f"{path} of clip {'/'.join(map(str, record.key))}", reason)

    def frames(self, record: ClipRecord) -> NDArray[np.uint8]:
        """Read the aligned crops of one clip: uint8 (n, height, width); raises as `read` does."""
        return self.read("frames/image", -1, record)

    def _read(self, path: str, index: int, record: ClipRecord) -> NDArray[Any]:
        start = record.frame_start
        if path == "frames/image":
            return np.asarray(self.array(path)[start : start + len(record.frame_numbers)])
        window = self.window_of(path)
        if self.layout.pairs(window) is not None:
            return np.asarray(self.array(path)[index])
        rows = np.asarray(self.array(path)[start : start + len(record.frame_numbers)])
        return rows[[row - start for row in record.pair_rows(window)]]

    def picture_paths(self) -> tuple[str, ...]:
        """Return the paths of the arrays that a finished clip has a part of."""
        return picture_paths(self.layout)

    def window_of(self, path: str) -> str:
        """Return the window of an array of ``flow``, ``confidence``, ``roi`` or ``maps``."""
        return window_of(self.layout, path)


class HeldStore:
    """A store that is opened, and held, when it is first read, and may be closed between.

    A copy in another process (pickled for a spawned worker) opens the store for itself.
    """

    def __init__(self, target: Target) -> None:
        self._target = target
        self._store: Store | None = None

    @property
    def store(self) -> Store:
        if self._store is None:
            self._store = open_store(self._target)
        return self._store

    def close(self) -> None:
        """Let go of the store; the next use opens it again."""
        if self._store is not None:
            self._store.close()
        self._store = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_target": self._target, "_store": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def open_store(target: Target) -> Store:
    """Open a store for reading, and hold it until it is closed.

    While it is held, a compaction leaves the chunks that it replaces where they are.

    Parameters
    ----------
    target : path, URL or Zarr store

    Returns
    -------
    Store

    Raises
    ------
    ApexflowError
        There is none, or one of another format.
    """
    # Held before it is opened: what the opened metadata says stays on disk.
    handle = hold(target)
    try:
        return Store(open_group(target, mode="r"), target_name(target), handle=handle)
    except BaseException:
        if handle is not None:
            os.close(handle)
        raise


def _open_held(raw: Any, name: str) -> Store:
    store = open_store(raw)
    store.name = name
    return store


def open_group(target: Target, *, mode: str) -> zarr.Group:
    """Open the Zarr group of a store of this format, for reading (``r``) or writing (``r+``).

    Raises `ApexflowError` when there is none, or one of another format.
    """
    name = target_name(target)
    if not store_exists(target):
        raise ApexflowError(f"no store at {name}; `apexflow process` makes one")
    path = local_path(target)
    if path is not None and path.is_file():
        raise not_ours(name)
    try:
        # Zarr 2 can hold pickled objects, whose reading runs what their writer wished.
        group = zarr.open_group(
            zarr_target(target),
            mode=mode,  # type: ignore[arg-type]
            zarr_format=3,
        )
    except (GroupNotFoundError, ValueError, KeyError):
        raise not_ours(name) from None
    except OSError:
        raise
    except Exception as error:  # whatever damaged metadata makes Zarr raise
        raise DamagedError(f"{name}: zarr.json is damaged ({first_line(error)})") from None
    found = group.attrs.get("format")
    if found is None:
        raise not_ours(name)
    if found != FORMAT:
        raise ApexflowError(
            f"{name} has store format {found}; this apexflow reads {FORMAT}: use the version of "
            f"apexflow that wrote it, or another output"
        )
    return group
