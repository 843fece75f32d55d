"""Rewriting a store's many small chunks into few large ones, and back.

A run writes every clip into chunks of its own, so that no two tasks ever write the same chunk:
thousands of small files. Training reads them all, and reads large chunks many times faster.

The content of an array never changes, only its chunks. The new chunks are written beside the
old ones under names of another form (``c/0/0`` beside ``c.0.0``), read back and compared; then
the array's one small metadata file is replaced, which switches all readers that open it from
there on. A compaction that is killed before has changed nothing. The old chunks are deleted at
the end, unless a reader still holds the store.

A run on a compacted store first brings it back into its working form, in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store as ZarrStore
from zarr.storage import WrapperStore

from apexflow.errors import ApexflowError, DamagedError
from apexflow.storage.holds import without_readers
from apexflow.storage.store import open_store
from apexflow.storage.target import Target, disk_errors, exclusive, sweep, sync_all, target_name
from apexflow.storage.writer import StoreWriter, open_writer
from apexflow.storage.zarr_private import ArrayV3Metadata, Buffer, BufferPrototype, sync

CHUNK_BYTES = 4 << 20
# A commit record of 75 frames is about 10 KB of JSON.
_RECORD_BYTES = 10 << 10
# How the numbers in a chunk's name are separated: rewriting changes from one to the other.
_OTHER = {".": "/", "/": "."}
_ROWS_BEFORE = "rows_before_compaction"
_AS_IT_WAS = "the store reads as it did; make room and give the same command again"


@dataclass(frozen=True, slots=True)
class Compaction:
    """What a compaction did.

    Attributes
    ----------
    arrays : tuple of str
        The paths of the arrays that were rewritten.
    chunks_before, chunks_after : int
        Number of their chunks, or shards.
    kept : bool
        Whether the old chunks are still there, because a reader holds the store; compacting
        again deletes them.
    """

    arrays: tuple[str, ...]
    chunks_before: int
    chunks_after: int
    kept: bool

    def __str__(self) -> str:
        if not self.arrays:
            return "already compact" + (self.kept * "; old chunks are kept for its readers")
        text = f"{len(self.arrays)} arrays: {self.chunks_before} chunks are now {self.chunks_after}"
        return text + self.kept * "; the old ones are kept for the store's readers"


def compact(target: Target, *, chunk_bytes: int = CHUNK_BYTES, shard_bytes: int = 0) -> Compaction:
    """Rewrite a store's small chunks into large ones, or into shards of large ones.

    The order of clips stays as it is, and every reader sees the same values before, during and
    after. One process at a time; `apexflow.process` may go on with the store later.

    Parameters
    ----------
    target : path, URL or Zarr store
    chunk_bytes : int, default 4 MiB
        Uncompressed size of a chunk, roughly.
    shard_bytes : int, default 0
        Uncompressed size of a shard, one file of many chunks; 0 makes no shards.

    Returns
    -------
    Compaction
        Which arrays, how many chunks before and after.

    Raises
    ------
    ApexflowError
        There is no such store, a run is writing it, it was not written to its end, a reader
        holds chunks from before the last rewriting, or what was written reads otherwise.
    """
    if chunk_bytes < 1 or shard_bytes < 0:
        raise ApexflowError(
            f"chunk_bytes must be 1 or more, shard_bytes 0 or more. "
            f"Got {chunk_bytes} and {shard_bytes}."
        )
    open_store(target).close()
    with exclusive(target), disk_errors(f"cannot compact {target_name(target)}", _AS_IT_WAS):
        store = open_writer(target)
        if not store.complete:
            raise ApexflowError(
                f"{store.name} is unfinished; the same process command goes on, then compact it"
            )
        sweep(target)
        todo = [path for path in _paths(store) if _rows_wanted(store, path, chunk_bytes)]
        before = sum(_chunk_count(store.array(path)) for path in todo)
        for path in todo:
            rows = _rows_wanted(store, path, chunk_bytes)
            shard = max(1, shard_bytes // chunk_bytes) * rows if shard_bytes else None
            _rewrite(store, path, rows, shard, {_ROWS_BEFORE: _rows(store.array(path))})
        if todo:
            store.next_generation()
            sync_all(target)
        after = sum(_chunk_count(store.array(path)) for path in todo)
        kept = not _delete_unused(store)
    return Compaction(tuple(todo), before, after, kept)


def expand(store: StoreWriter, *, lost_as_blank: bool = False) -> bool:
    """Bring a compacted store back into the form that tasks may write; say whether it was one.

    For the one process that holds the store. With ``lost_as_blank`` what cannot be read becomes
    the fill value: for a repair, which has taken back the records of such clips.

    Raises `DamagedError` when something cannot be read; the store is then as it was.
    """
    store.refresh()
    compacted = [path for path in _paths(store) if _is_compact(store.array(path))]
    for path in compacted:
        rows = int(str(store.array(path).attrs[_ROWS_BEFORE]))
        _rewrite(store, path, rows, None, {}, lost_as_blank=lost_as_blank)
    if compacted:
        store.next_generation()
        sync_all(store.group.store)
        _delete_unused(store)
    return bool(compacted)


class _HeldMetadata(WrapperStore[ZarrStore]):
    """A store in which one array can be written again before anyone can see it."""

    def __init__(self, store: ZarrStore, path: str) -> None:
        super().__init__(store)
        self._key = f"{path}/zarr.json"
        self._held: Buffer | None = None

    async def get(self, key: str, prototype: BufferPrototype, byte_range: Any = None) -> Any:
        if key == self._key:
            return self._held
        return await self._store.get(key, prototype, byte_range)

    async def exists(self, key: str) -> bool:
        return self._held is not None if key == self._key else await self._store.exists(key)

    async def set(self, key: str, value: Buffer) -> None:
        if key == self._key:
            self._held = value
        else:
            await self._store.set(key, value)

    def show(self) -> None:
        """Replace the metadata that everyone reads: one file, at once."""
        assert self._held is not None
        sync(self._store.set(self._key, self._held))


def _rewrite(
    store: StoreWriter,
    path: str,
    rows: int,
    shard: int | None,
    remember: dict[str, int],
    *,
    lost_as_blank: bool = False,
) -> None:
    """Write an array in chunks of ``rows`` beside its old ones, then switch to them."""
    old = store.array(path)
    metadata = old.metadata
    assert isinstance(metadata, ArrayV3Metadata)
    assert old.serializer is not None
    separator = _OTHER[_separator(old)]
    _make_room(store, path, separator)
    held = _HeldMetadata(store.group.store, path)
    attributes = {name: value for name, value in old.attrs.items() if name != _ROWS_BEFORE}
    new = zarr.create_array(
        held,
        name=path,
        shape=old.shape,
        chunks=(rows, *old.shape[1:]),
        shards=None if shard is None else (shard, *old.shape[1:]),
        dtype=metadata.data_type,
        fill_value=old.fill_value,
        filters=old.filters,
        compressors=old.compressors,
        serializer=old.serializer,
        chunk_key_encoding={"name": "default", "separator": separator},
        dimension_names=metadata.dimension_names,
        attributes=attributes | remember,
    )
    step = max(shard or rows, _rows(old))
    for start in range(0, old.shape[0], step):
        part = slice(start, min(start + step, old.shape[0]))
        values = _read_part(store, old, part, lost_as_blank=lost_as_blank)
        new[part] = values
        if not _equal(np.asarray(new[part]), values):
            raise ApexflowError(
                f"{store.name}: {path} does not read back as written; the store is as it was"
            )
    sync_all(store.group.store)
    held.show()
    store.refresh()


def _read_part(
    store: StoreWriter, array: zarr.Array[Any], part: slice, *, lost_as_blank: bool
) -> NDArray[Any]:
    try:
        return np.asarray(array[part])
    except OSError:
        raise
    except Exception as error:  # whatever a damaged chunk makes Zarr raise
        if lost_as_blank:
            shape = (part.stop - part.start, *array.shape[1:])
            return np.full(shape, array.fill_value, array.dtype)
        raise DamagedError(
            f"{store.name}: {array.path}, rows {part.start} to {part.stop - 1}, is damaged "
            f"({type(error).__name__}); {store.repaired_by}"
        ) from None


def _paths(store: StoreWriter) -> Iterator[str]:
    """Yield the arrays that are rewritten: pictures, and the records and timings of clips."""
    yield from ("clips/record", "clips/timings", *store.picture_paths())


def _rows_wanted(store: StoreWriter, path: str, chunk_bytes: int) -> int:
    """Return the rows of a chunk of that size; 0 where an array's are as large, or rewritten."""
    array = store.array(path)
    if _is_compact(array) or not array.shape[0]:
        return 0
    size = max(1, array.nbytes // array.shape[0])
    row_bytes = _RECORD_BYTES if path == "clips/record" else size
    before = _rows(array)
    rows = max(1, chunk_bytes // row_bytes // before) * before
    return min(rows, -(-array.shape[0] // before) * before) if rows > before else 0


def _rows(array: zarr.Array[Any]) -> int:
    return int((array.shards or array.chunks)[0])


def _is_compact(array: zarr.Array[Any]) -> bool:
    return _ROWS_BEFORE in array.attrs


def _separator(array: zarr.Array[Any]) -> str:
    metadata = array.metadata
    assert isinstance(metadata, ArrayV3Metadata)
    return "." if metadata.encode_chunk_key((0, 0)) == "c.0.0" else "/"


def _chunk_count(array: zarr.Array[Any]) -> int:
    return -(-array.shape[0] // _rows(array))


def _equal(found: Any, wanted: Any) -> bool:
    return bool(np.array_equal(found, wanted, equal_nan=wanted.dtype.kind == "f"))


def _delete_unused(store: StoreWriter) -> bool:
    """Delete the chunks under names that an array no longer uses, if no reader holds the store."""
    raw = store.group.store
    with without_readers(raw) as nobody_reads:
        if nobody_reads:
            for path in _paths(store):
                _delete_chunks(raw, path, _OTHER[_separator(store.array(path))])
    return nobody_reads


def _make_room(store: StoreWriter, path: str, separator: str) -> None:
    """Delete what an earlier attempt left: it would shine through where nothing is written.

    Chunks that are all fill value are not. A reader from before the last rewriting may still
    be reading what is in the way.
    """
    raw = store.group.store
    if not _has_chunks(raw, path, separator):
        return
    with without_readers(raw) as nobody_reads:
        if not nobody_reads:
            raise ApexflowError(
                f"{store.name}: a reader holds old chunks of {path}, which are in the way; "
                "close it and try again"
            )
        _delete_chunks(raw, path, separator)


def _has_chunks(raw: ZarrStore, path: str, separator: str) -> bool:
    async def names() -> list[str]:
        return [name async for name in raw.list_dir(path)]

    return any(name == "c" if separator == "/" else name.startswith("c.") for name in sync(names()))


def _delete_chunks(raw: ZarrStore, path: str, separator: str) -> None:
    async def delete() -> None:
        if separator == "/":
            await raw.delete_dir(f"{path}/c")
            return
        keys = [name async for name in raw.list_dir(path) if name.startswith("c.")]
        for name in keys:
            await raw.delete(f"{path}/{name}")

    sync(delete())
