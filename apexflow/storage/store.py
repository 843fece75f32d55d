"""One store, as it is read: the table, the records, the arrays of each clip."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.errors import GroupNotFoundError

from apexflow.errors import ApexflowError, NotStoredError
from apexflow.storage.format import FORMAT, ClipRecord, Layout
from apexflow.storage.target import (
    Target,
    local_path,
    not_ours,
    store_exists,
    target_name,
    zarr_target,
)

RECORD_BLOCK = 1024  # rows; of clips of 75 frames some 10 MB parsed

Key = tuple[str, str, str]


class Store:
    """A store of format 1, opened for reading; see `open_store`. `StoreWriter` is one to write."""

    def __init__(self, group: zarr.Group, name: str) -> None:
        self.group = group
        self.name = name
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._layout: Layout | None = None

    @property
    def attributes(self) -> dict[str, Any]:
        return dict(self.group.attrs)

    @property
    def layout(self) -> Layout:
        if self._layout is None:
            self._layout = Layout.from_dict(self.attributes["layout"])
        return self._layout

    @property
    def recipe_hash(self) -> str:
        return str(self.attributes["recipe_hash"])

    @property
    def clip_count(self) -> int:
        """Number of clips in the table: rows beyond it were never committed."""
        return int(self._attrs_now("clips")["count"])

    @property
    def complete(self) -> bool:
        """Whether the last run reached its end, so that the columns hold every result."""
        return bool(self._attrs_now("clips")["complete"])

    def array(self, path: str) -> zarr.Array[Any]:
        """Return an array of the store by its path, such as ``maps/hsv``."""
        if path not in self._arrays:
            found = self.group.get(path)
            if not isinstance(found, zarr.Array):
                raise ApexflowError(f"{self.name}: no array {path} in this store")
            self._arrays[path] = found
        return self._arrays[path]

    def column(self, name: str) -> NDArray[Any]:
        """Return one column of the table, a row a clip."""
        return np.asarray(self.array(f"clips/{name}")[: self.clip_count])

    def keys(self) -> list[Key]:
        """Return (data set, subject, clip) of each row."""
        columns = (self.column(name).tolist() for name in ("dataset", "subject", "clip"))
        return list(zip(*columns, strict=True))

    def record(self, index: int) -> ClipRecord | None:
        """Return the commit record of a row; None when the clip was never finished.

        Raises `ApexflowError` when it is damaged.
        """
        (found,) = self._read_records(index, index + 1)
        return found

    def records(self) -> list[ClipRecord | None]:
        """Return the commit record of every row."""
        return list(self.iter_records())

    def iter_records(self) -> Iterator[ClipRecord | None]:
        """Yield the commit record of every row, a block of rows in memory at a time.

        Raises `ApexflowError` when one is damaged.
        """
        count = self.clip_count
        for start in range(0, count, RECORD_BLOCK):
            yield from self._read_records(start, min(start + RECORD_BLOCK, count))

    def _read_records(self, start: int, stop: int) -> list[ClipRecord | None]:
        array = self.array("clips/record")
        try:
            texts = np.asarray(array[start:stop]).tolist()
            return [ClipRecord.from_json(text) if text else None for text in texts]
        except Exception as error:  # whatever a damaged chunk makes Zarr or the parser raise
            raise ApexflowError(
                f"{self.name}: a commit record is damaged ({error}); `apexflow verify` says "
                f"which, the process command with --repair does its clip again"
            ) from None

    def digest(self, path: str, index: int, record: ClipRecord) -> int:
        """Read one clip's part of an array and return its CRC-32C."""
        return crc32c(self.read(path, index, record))

    def read(self, path: str, index: int, record: ClipRecord) -> NDArray[Any]:
        """Read one clip's part of an array of ``flow``, ``roi``, ``maps`` or ``frames/image``.

        Without the clip axis; a window of several frame pairs has their axis first, whatever way
        the store keeps it.
        """
        if path == "frames/image":
            return self.frames(record)
        window = self.window_of(path)
        if self.layout.windows[window] is not None:
            return np.asarray(self.array(path)[index])
        start = record.frame_start
        rows = np.asarray(self.array(path)[start : start + len(record.frame_numbers)])
        return rows[[row - start for row in record.pair_rows(window)]]

    def window_of(self, path: str) -> str:
        """Return the window whose flow an array of ``flow``, ``roi`` or ``maps`` holds."""
        group, _, name = path.partition("/")
        return self.layout.maps[name].window if group == "maps" else name

    def frames(self, record: ClipRecord) -> NDArray[np.uint8]:
        """Read the aligned crops of one clip: uint8 (n, height, width)."""
        if not self.layout.keep_frames:
            raise NotStoredError(f"{self.name} keeps no frames; its recipe has frames.keep = false")
        stop = record.frame_start + len(record.frame_numbers)
        return np.asarray(self.array("frames/image")[record.frame_start : stop])

    def _attrs_now(self, path: str) -> dict[str, Any]:
        return dict(zarr.open_group(self.group.store, path=path, mode="r").attrs)


def open_store(target: Target) -> Store:
    """Open a store for reading.

    Raises `ApexflowError` when there is none, or one of another format.
    """
    return Store(open_group(target, mode="r"), target_name(target))


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
    found = group.attrs.get("format")
    if found is None:
        raise not_ours(name)
    if found != FORMAT:
        raise ApexflowError(
            f"{name} has store format {found}; this apexflow reads {FORMAT}: use the version of "
            f"apexflow that wrote it, or another output"
        )
    return group


def crc32c(values: NDArray[Any]) -> int:
    """Return the CRC-32C of an array's bytes, as commit records hold it."""
    return int(google_crc32c.value(np.ascontiguousarray(values).tobytes()))
