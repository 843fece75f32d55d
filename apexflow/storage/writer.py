"""One store, as it is written: slots reserved and columns filled by one process, clips by many."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from apexflow.storage.arrays import make_column, make_floats
from apexflow.storage.chunks import ChunkWriter
from apexflow.storage.columns import fill_columns, write_csv
from apexflow.storage.coordinates import copy_coordinates
from apexflow.storage.digests import column_digest, crc32c
from apexflow.storage.format import (
    ADDED_COLUMNS,
    ADDED_FLOAT_COLUMNS,
    COORDINATES,
    FRAME_CHUNK,
    FRAME_FLOAT_COLUMNS,
    NUMBER_COLUMNS,
    RESULT_NUMBER_COLUMNS,
    RESULT_TEXT_COLUMNS,
    TEXT_COLUMNS,
    ClipRecord,
    ClipRow,
    Layout,
    Slot,
    float_columns,
    picture_dtype,
    picture_paths,
    sealed,
    window_of,
)
from apexflow.storage.store import Store, open_group
from apexflow.storage.target import Target, sync_all, sync_file, target_name
from apexflow.storage.zarr_private import sync

# A batch of more files than this is flushed with the whole file system at once.
_MOST_FILES_ONE_BY_ONE = 24


@dataclass(frozen=True, slots=True)
class ClipArrays:
    """The pixels of one clip, as its slot takes them.

    Attributes
    ----------
    frames : uint8 (n, height, width) or None
        Aligned crops; None when the recipe keeps none.
    flow : dict of window to float ([pair,] 2, height, width)
    maps : dict of name to uint8 ([pair,] [region,] height, width, 3)
    roi : dict of window to float ([pair,] region, 2, height, width)
    confidence : dict of window to float ([pair,] height, width)
        Of the flow; empty when the recipe keeps none.
    features : dict of name to float32 (feature,)
    interpolated : dict of "image" and "frame_number" to uint8 (n, height, width), float64 (n,)
        Empty where the recipe asks for none.

    Windows of one frame pair have no axis of pairs.
    """

    frames: NDArray[np.uint8] | None
    flow: Mapping[str, NDArray[np.floating[Any]]]
    maps: Mapping[str, NDArray[np.uint8]]
    roi: Mapping[str, NDArray[np.floating[Any]]] = field(default_factory=dict)
    confidence: Mapping[str, NDArray[np.floating[Any]]] = field(default_factory=dict)
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    interpolated: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    def by_path(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield the path and the values of each array but the frames."""
        for group in ("flow", "confidence", "roi", "maps", "interpolated", "features"):
            for name, values in getattr(self, group).items():
                yield f"{group}/{name}", values


class StoreWriter(Store):
    """A store opened for writing; see `open_writer`, and `create_store` for a new one.

    Any number of workers may hold one open and write clips at a time, each its own slot;
    reserving slots and finalising is one process's work.
    """

    _checks = False

    def __init__(self, group: zarr.Group, name: str) -> None:
        super().__init__(group, name)
        self._writers: dict[str, ChunkWriter | None] = {}
        self._own = threading.local()  # a worker's threads share a store, each with its batch

    def column(self, name: str) -> NDArray[Any]:
        """Return one column of the table, unchecked: a killed run may have left it half-written."""
        return self.raw_column(name)

    def reserve(
        self, rows: Sequence[ClipRow], *, standing: Mapping[int, str] | None = None
    ) -> list[Slot]:
        """Give each clip its own rows of every array, and write what is known beforehand.

        A clip that the store knows keeps its slot, unless it has outgrown it. The number of
        rows is committed last: a reservation that was cut short never happened.

        Parameters
        ----------
        rows : sequence of ClipRow
        standing : dict of row to "gone" or "kept", optional
            What becomes of rows that are not among ``rows``; the others stay as they are.
        """
        table = self._table()
        before = list(table.rows), list(table.frame_start)
        for index, found in (standing or {}).items():
            table.rows[index] = replace(table.rows[index], catalog=found)
        slots = _allocate(table, rows)
        if (table.rows, table.frame_start) != before or not self._table_is_vouched_for():
            self._write_table(table)
        return slots

    def table_stamp(self) -> object:
        """Return what changes when the table does."""
        attributes = self._attrs_now("clips")
        digests = attributes.get("column_digests", {})
        names = (*TEXT_COLUMNS, *NUMBER_COLUMNS)
        return attributes.get("count"), {name: digests.get(name) for name in names}

    def drop(self, indices: Collection[int]) -> None:
        """Take rows out of the table, with all that the store holds of their clips.

        The last rows move into their places. Each is in its old place until the table has been
        written: a kill between costs doing a clip again at most.
        """
        if not indices:
            return
        self.begin()
        table = self._table()
        for index in indices:
            self.forget_row(index)
            self._wipe_frames(table.frame_start[index], table.rows[index].frame_capacity)
        left = [i for i in range(len(table.rows)) if i not in set(indices)]
        holes = sorted(i for i in indices if i < len(left))
        moved = dict(zip(holes, (i for i in left if i >= len(left)), strict=True))
        for hole, last in moved.items():
            self._copy_row(last, hole)
        order = [moved.get(i, i) for i in range(len(left))]
        rows = [table.rows[i] for i in order]
        self._write_table(_Table(rows, [table.frame_start[i] for i in order]))
        self._cut(len(left))
        copy_coordinates(self.group, self.layout)

    def begin(self) -> None:
        """Mark the store as being written; each clip must be in chunks of its own (`expand`)."""
        self._set_clip_attrs(complete=False)

    def refresh(self) -> None:
        """Look at the arrays again: their chunks may have been rewritten."""
        super().refresh()
        self._writers.clear()

    def next_generation(self) -> None:
        """Tell readers that arrays have been rewritten, before what was there is deleted."""
        self._set_clip_attrs(generation=int(self._attrs_now("clips").get("generation", 0)) + 1)

    def forget_digests(self, names: Collection[str]) -> None:
        """No longer vouch for columns that are about to be written again."""
        digests = self._attrs_now("clips").get("column_digests", {})
        self._set_clip_attrs(column_digests={n: d for n, d in digests.items() if n not in names})

    def add_run(self, run: Mapping[str, Any]) -> None:
        """Add what a run was, to the store's attributes."""
        group = zarr.open_group(self.group.store, mode="r+")
        runs: Any = group.attrs.get("runs", [])
        group.attrs.update({"runs": [*runs, dict(run)]})

    def forget_row(self, index: int) -> None:
        """Take back the commit record of a row, so that the next run does its clip again."""
        array = self.array("clips/record")
        try:
            array[index : index + 1] = ""
        except OSError:
            raise
        except Exception:  # a damaged chunk of several rows: none of them can be read
            delete_chunk(array, index // array.chunks[0])

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Commit the clips of this block together, so that one flush serves them all.

        Their commit records are written at its end; clips that were finished when the block
        raises are not committed.
        """
        self._own.batch = batch = _Batch()
        try:
            yield
            self._flush(batch)
        finally:
            self._own.batch = None

    def commit(
        self,
        slot: Slot,
        record: ClipRecord,
        arrays: ClipArrays | None,
        seconds: Mapping[str, float],
    ) -> dict[str, float]:
        """Write one clip into its slot; the record last, so that it vouches for the rest.

        All is on disk, flushed, before the record is there, and the record when this returns;
        in a `batch`, when that ends. Returns ``seconds`` with those of the writing, as "store".
        """
        started = time.perf_counter()
        open_batch: _Batch | None = getattr(self._own, "batch", None)
        batch = open_batch or _Batch()
        placed = replace(record, frame_start=slot.frame_start)
        text = placed.to_json()  # what cannot be written is found before anything is
        text.encode()
        digests = {} if arrays is None else self._write_arrays(slot, placed, arrays, batch)
        stages = self.layout.stages
        if arrays is not None:
            seconds = {**seconds, "store": time.perf_counter() - started}
        row = np.array([[seconds.get(stage, np.nan) for stage in stages]], np.float32)
        batch.files += self._write_rows("clips/timings", slot.index, row)
        batch.records.append((slot.index, replace(placed, digests=digests).to_json()))
        if open_batch is None:
            self._flush(batch)
        return dict(seconds)

    def _flush(self, batch: _Batch) -> None:
        """Put the data of a batch on disk, then its records."""
        self._sync(batch.files)
        # Of several records one that is cut short after a power cut is that clip's alone.
        alone = len(batch.records) == 1
        writer = self._writer("clips/record")
        for index, text in batch.records:
            if writer is None:
                self.array("clips/record")[index : index + 1] = sealed(text)
            else:
                batch.written += writer.write(index, sealed(text), flush=alone)
        if alone:
            self._sync(batch.written, names_only=True)
        else:
            sync_all(self.group.store)

    def _sync(self, files: Sequence[Path], *, names_only: bool = False) -> None:
        if len(files) > _MOST_FILES_ONE_BY_ONE:
            sync_all(self.group.store)
            return
        for file in () if names_only else files:
            sync_file(file)
        for folder in dict.fromkeys(file.parent for file in files):
            sync_file(folder)

    def finalize(self) -> None:
        """Copy the records into the columns, for everyone who reads without apexflow."""
        self._add_columns()
        self._resize(self.clip_count, self.array("frames/frame_number").shape[0])
        digests = dict(self._attrs_now("clips").get("column_digests", {}))
        results = (*RESULT_TEXT_COLUMNS, *RESULT_NUMBER_COLUMNS, *float_columns(self.layout))
        self.begin()
        self.forget_digests(results)
        fill_columns(self)
        copy_coordinates(self.group, self.layout)
        write_csv(self)
        digests |= {name: column_digest(self.raw_column(name)) for name in results}
        sync_all(self.group.store)
        self._set_clip_attrs(complete=True, column_digests=digests)
        sync_all(self.group.store)

    def _write_arrays(
        self, slot: Slot, record: ClipRecord, arrays: ClipArrays, batch: _Batch
    ) -> dict[str, int]:
        layout = self.layout
        digests = {}
        if layout.keep_frames and arrays.frames is not None:
            start, crops = slot.frame_start, arrays.frames
            padded = whole_chunks(len(crops))
            rows = np.zeros((padded, *crops.shape[1:]), np.uint8)
            rows[: len(crops)] = crops
            batch.files += self._write_rows("frames/image", start, rows)
            digests["frames/image"] = crc32c(crops)
        for path, given in arrays.by_path():
            values = given.astype(picture_dtype(layout, path), copy=False)
            batch.files += self._write_part(path, slot, record, values)
            digests[path] = crc32c(values)
        return digests

    def _write_part(
        self, path: str, slot: Slot, record: ClipRecord, values: NDArray[Any]
    ) -> list[Path]:
        window, array = self.window_of(path), self.array(path)
        if self.layout.pairs(window) is not None:
            return self._write_rows(path, slot.index, values[None])
        # Whole chunks, so that nothing of an earlier form of the clip stays behind.
        rows = np.full((slot.frame_capacity, *values.shape[1:]), array.fill_value, values.dtype)
        rows[[row - slot.frame_start for row in record.pair_rows(window)]] = values
        return self._write_rows(path, slot.frame_start, rows)

    def _write_rows(self, path: str, start: int, values: NDArray[Any]) -> list[Path]:
        """Write whole chunks of rows, a clip's own; return the files, as far as they are known."""
        writer = self._writer(path)
        rows = 0 if writer is None else writer.rows
        if writer is None or start % rows or len(values) % rows:
            self.array(path)[start : start + len(values)] = values
            return []
        files: list[Path] = []
        for at in range(0, len(values), rows):
            files += writer.write((start + at) // rows, values[at : at + rows])
        return files

    def _writer(self, path: str) -> ChunkWriter | None:
        if path not in self._writers:
            self._writers[path] = ChunkWriter.of(self.array(path))
        return self._writers[path]

    def _table(self) -> _Table:
        names = [name for name in (*TEXT_COLUMNS, *NUMBER_COLUMNS) if name != "frame_start"]
        columns = [self.column(name).tolist() for name in names]
        rows = [ClipRow(**dict(zip(names, r, strict=True))) for r in zip(*columns, strict=True)]
        return _Table(rows, self.column("frame_start").tolist())

    def _table_is_vouched_for(self) -> bool:
        digests = self._attrs_now("clips").get("column_digests", {})
        return all(
            f"clips/{name}" in self.group and digests.get(name) == column_digest(self.column(name))
            for name in (*TEXT_COLUMNS, *NUMBER_COLUMNS)
        )

    def _write_table(self, table: _Table) -> None:
        """Write the table's columns: their number of rows and their digests at the very end."""
        before = self._attrs_now("clips")
        digests = dict(before.get("column_digests", {}))
        names = (*TEXT_COLUMNS, *NUMBER_COLUMNS)
        self.forget_digests(names)
        self._add_columns()
        self._resize(len(table.rows), table.frame_total)
        if before["count"] != len(table.rows):
            digests = {}  # of columns that have other rows now
        for name in names:
            values = (
                table.frame_start
                if name == "frame_start"
                else [getattr(row, name) for row in table.rows]
            )
            digests[name] = self._write_column(name, values)
        copy_coordinates(self.group, self.layout)
        sync_all(self.group.store)
        self._set_clip_attrs(count=len(table.rows), column_digests=digests)
        sync_all(self.group.store)

    def _add_columns(self) -> None:
        """Make the columns that stores of earlier versions lack."""
        for path, names, axis in (
            ("clips", ADDED_COLUMNS, "clip"),
            ("frames", COORDINATES, "frame"),
        ):
            group = self.group[path]
            assert isinstance(group, zarr.Group)
            for name in names:
                if name not in group:
                    make_column(group, name, axis=axis)
        for path, columns, axis in (
            ("clips", float_columns(self.layout), "clip"),
            ("frames", FRAME_FLOAT_COLUMNS, "frame"),
        ):
            group = self.group[path]
            assert isinstance(group, zarr.Group)
            for name in set(columns).intersection(ADDED_FLOAT_COLUMNS).difference(group):
                make_floats(group, name, *columns[name], axis=axis)

    def _wipe_frames(self, start: int, count: int) -> None:
        if not count:
            return
        for path in _frame_paths(self.layout):
            array = self.array(path)
            array[start : start + count] = array.fill_value

    def _copy_row(self, source: int, place: int) -> None:
        """Copy one clip's row of every array that has a row a clip; its record last."""
        pictures = (path for path in _clip_paths(self.layout) if not path.startswith("clips/"))
        for path in (*pictures, "clips/timings"):
            array = self.array(path)
            array[place : place + 1] = array[source : source + 1]
        sync_all(self.group.store)
        record = self.array("clips/record")
        record[place : place + 1] = record[source : source + 1]

    def _cut(self, clips: int) -> None:
        """Shorten the arrays that have a row a clip; chunks beyond are deleted."""
        for path in _clip_paths(self.layout):
            array = self.array(path)
            if array.shape[0] > clips:
                array.resize((clips, *array.shape[1:]))
        self.refresh()

    def _resize(self, clips: int, frames: int) -> None:
        for path in _clip_paths(self.layout):
            _grow(self.array(path), clips)
        columns = (f"frames/{name}" for name in ("frame_number", *COORDINATES))
        for path in (*_frame_paths(self.layout), *columns):
            _grow(self.array(path), frames)
        for name in FRAME_FLOAT_COLUMNS:
            _grow(self.array(f"frames/{name}"), frames)

    def _write_column(self, name: str, values: Sequence[Any] | NDArray[Any]) -> int:
        """Write the first rows of a column; return their digest."""
        array = self.array(f"clips/{name}")
        rows = np.asarray(values, array.dtype)
        if len(rows):
            array[: len(rows)] = rows
        return column_digest(rows)

    def _set_clip_attrs(self, **values: Any) -> None:
        zarr.open_group(self.group.store, path="clips", mode="r+").attrs.update(values)


def open_writer(target: Target) -> StoreWriter:
    """Open a store for writing clips.

    Raises `ApexflowError` when there is none, or one of another format.
    """
    return StoreWriter(open_group(target, mode="r+"), target_name(target))


@dataclass(slots=True)
class _Table:
    """The rows of a store while slots are handed out."""

    rows: list[ClipRow]
    frame_start: list[int]

    @property
    def frame_total(self) -> int:
        ends = (
            start + row.frame_capacity
            for start, row in zip(self.frame_start, self.rows, strict=True)
        )
        return max(ends, default=0)


def _allocate(table: _Table, rows: Sequence[ClipRow]) -> list[Slot]:
    known = {row.key: i for i, row in enumerate(table.rows)}
    free = table.frame_total
    slots = []
    for row in rows:
        wanted = whole_chunks(row.frame_capacity)
        index = known.get(row.key)
        if index is None:
            index = len(table.rows)
            table.rows.append(row)
            table.frame_start.append(free)
            held = 0
        else:
            held = table.rows[index].frame_capacity
        if wanted > held:
            table.frame_start[index] = free
            free += wanted
        table.rows[index] = replace(row, frame_capacity=max(wanted, held))
        slots.append(Slot(index, table.frame_start[index], max(wanted, held)))
    return slots


def whole_chunks(frames: int) -> int:
    """Return how many rows the frames of a clip take, so that no chunk holds two clips."""
    return -(-frames // FRAME_CHUNK) * FRAME_CHUNK


def _grow(array: zarr.Array[Any], rows: int) -> None:
    if array.shape[0] < rows:
        array.resize((rows, *array.shape[1:]))


def delete_chunk(array: zarr.Array[Any], number: int) -> None:
    """Delete a chunk along the first axis; its rows are the fill value from then on."""
    key = array.metadata.encode_chunk_key((number, *(0,) * (array.ndim - 1)))
    sync(array.store.delete(f"{array.path}/{key}"))


@dataclass(slots=True)
class _Batch:
    """What is written and not yet vouched for: the files of clips, and their records."""

    files: list[Path] = field(default_factory=list)
    records: list[tuple[int, str]] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)


def _clip_paths(layout: Layout) -> tuple[str, ...]:
    """Return the paths of all arrays that have a row a clip."""
    names = (*TEXT_COLUMNS, *NUMBER_COLUMNS, *RESULT_TEXT_COLUMNS, *RESULT_NUMBER_COLUMNS)
    columns = (f"clips/{n}" for n in (*names, *float_columns(layout), "record", "timings"))
    long = _frame_paths(layout)
    return (*columns, *(path for path in picture_paths(layout) if path not in long))


def _frame_paths(layout: Layout) -> tuple[str, ...]:
    """Return the paths of the pictures along the frame axis."""
    return tuple(
        path
        for path in picture_paths(layout)
        if path == "frames/image" or layout.pairs(window_of(layout, path)) is None
    )
