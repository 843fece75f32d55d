"""One store, as it is written: slots reserved and columns filled by one process, clips by many."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from apexflow.storage.chunks import ChunkWriter
from apexflow.storage.columns import fill_columns, write_csv
from apexflow.storage.format import (
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
)
from apexflow.storage.store import Store, crc32c, open_group
from apexflow.storage.target import Target, target_name


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

    Windows of one frame pair have no axis of pairs.
    """

    frames: NDArray[np.uint8] | None
    flow: Mapping[str, NDArray[np.floating[Any]]]
    maps: Mapping[str, NDArray[np.uint8]]
    roi: Mapping[str, NDArray[np.floating[Any]]] = field(default_factory=dict)

    def by_path(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield the path and the values of each array but the frames."""
        for group, arrays in (("flow", self.flow), ("roi", self.roi), ("maps", self.maps)):
            for name, values in arrays.items():
                yield f"{group}/{name}", values


class StoreWriter(Store):
    """A store opened for writing; see `open_writer`, and `create_store` for a new one.

    Any number of workers may hold one open and write clips at a time, each its own slot;
    reserving slots and finalising is one process's work.
    """

    def __init__(self, group: zarr.Group, name: str) -> None:
        super().__init__(group, name)
        self._writers: dict[str, ChunkWriter | None] = {}

    def reserve(self, rows: Sequence[ClipRow]) -> list[Slot]:
        """Give each clip its own rows of every array, and write what is known beforehand.

        A clip that the store knows keeps its slot, unless it has outgrown it. The number of
        rows is committed last: a reservation that was cut short never happened.
        """
        table = self._table()
        slots = _allocate(table, rows)
        self._resize(len(table.rows), table.frame_total)
        for name in (*TEXT_COLUMNS, *NUMBER_COLUMNS):
            if name != "frame_start":
                self._write_column(name, [getattr(row, name) for row in table.rows])
        self._write_column("frame_start", table.frame_start)
        self._set_clip_attrs(count=len(table.rows))
        return slots

    def begin(self) -> None:
        """Mark the store as being written; each clip must be in chunks of its own (`expand`)."""
        self._set_clip_attrs(complete=False)

    def refresh(self) -> None:
        """Look at the arrays again: their chunks may have been rewritten."""
        self._arrays.clear()

    def forget(self, slot: Slot) -> None:
        """Take back a clip's commit record, before its slot is written again."""
        self.forget_row(slot.index)

    def forget_row(self, index: int) -> None:
        """Take back the commit record of a row, so that the next run does its clip again."""
        self.array("clips/record")[index : index + 1] = ""

    def commit(
        self,
        slot: Slot,
        record: ClipRecord,
        arrays: ClipArrays | None,
        seconds: Mapping[str, float],
    ) -> dict[str, float]:
        """Write one clip into its slot; the record last, so that it vouches for the rest.

        Returns ``seconds`` with those of the writing, as "store".
        """
        started = time.perf_counter()
        placed = replace(record, frame_start=slot.frame_start)
        digests = {} if arrays is None else self._write_arrays(slot, placed, arrays)
        stages = self.layout.stages
        if arrays is not None:
            seconds = {**seconds, "store": time.perf_counter() - started}
        row = np.array([[seconds.get(stage, np.nan) for stage in stages]], np.float32)
        self._write_rows("clips/timings", slot.index, row)
        complete = replace(placed, digests=digests).to_json()
        writer = self._writer("clips/record")
        if writer is None:
            self.array("clips/record")[slot.index : slot.index + 1] = complete
        else:
            writer.write(slot.index, complete)
        return dict(seconds)

    def finalize(self) -> None:
        """Copy the records into the columns, for everyone who reads without apexflow."""
        fill_columns(self)
        write_csv(self)
        self._set_clip_attrs(complete=True)

    def _write_arrays(self, slot: Slot, record: ClipRecord, arrays: ClipArrays) -> dict[str, int]:
        layout = self.layout
        digests = {}
        if layout.keep_frames and arrays.frames is not None:
            start, crops = slot.frame_start, arrays.frames
            padded = whole_chunks(len(crops))
            rows = np.zeros((padded, *crops.shape[1:]), np.uint8)
            rows[: len(crops)] = crops
            self._write_rows("frames/image", start, rows)
            digests["frames/image"] = crc32c(crops)
        for path, given in arrays.by_path():
            values = given if path.startswith("maps/") else given.astype(layout.flow_dtype)
            self._write_part(path, slot, record, values)
            digests[path] = crc32c(values)
        return digests

    def _write_part(self, path: str, slot: Slot, record: ClipRecord, values: NDArray[Any]) -> None:
        window, array = self.window_of(path), self.array(path)
        if self.layout.windows[window] is not None:
            self._write_rows(path, slot.index, values[None])
            return
        # Whole chunks, so that nothing of an earlier form of the clip stays behind.
        rows = np.full((slot.frame_capacity, *values.shape[1:]), array.fill_value, values.dtype)
        rows[[row - slot.frame_start for row in record.pair_rows(window)]] = values
        self._write_rows(path, slot.frame_start, rows)

    def _write_rows(self, path: str, start: int, values: NDArray[Any]) -> None:
        """Write whole chunks of rows: a clip's own."""
        writer = self._writer(path)
        rows = 0 if writer is None else writer.rows
        if writer is None or start % rows or len(values) % rows:
            self.array(path)[start : start + len(values)] = values
            return
        for at in range(0, len(values), rows):
            writer.write((start + at) // rows, values[at : at + rows])

    def _writer(self, path: str) -> ChunkWriter | None:
        if path not in self._writers:
            self._writers[path] = ChunkWriter.of(self.array(path))
        return self._writers[path]

    def _table(self) -> _Table:
        names = [name for name in (*TEXT_COLUMNS, *NUMBER_COLUMNS) if name != "frame_start"]
        columns = [self.column(name).tolist() for name in names]
        rows = [ClipRow(**dict(zip(names, r, strict=True))) for r in zip(*columns, strict=True)]
        return _Table(rows, self.column("frame_start").tolist())

    def _resize(self, clips: int, frames: int) -> None:
        layout = self.layout
        names = (*TEXT_COLUMNS, *NUMBER_COLUMNS, *RESULT_TEXT_COLUMNS, *RESULT_NUMBER_COLUMNS)
        for name in (*names, *float_columns(layout), "record", "timings"):
            _grow(self.array(f"clips/{name}"), clips)
        kept = ("image",) if layout.keep_frames else ()
        for name in (*kept, "frame_number", *FRAME_FLOAT_COLUMNS):
            _grow(self.array(f"frames/{name}"), frames)
        for path in _picture_paths(layout):
            by_length = layout.windows[self.window_of(path)] is None
            _grow(self.array(path), frames if by_length else clips)

    def _write_column(self, name: str, values: Sequence[Any] | NDArray[Any]) -> None:
        array = self.array(f"clips/{name}")
        if len(values):
            array[: len(values)] = np.asarray(values, array.dtype)

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


def _picture_paths(layout: Layout) -> tuple[str, ...]:
    """Return the paths of all arrays of flow and maps."""
    groups = ("flow", "roi") if layout.regions else ("flow",)
    flows = (f"{group}/{window}" for group in groups for window in layout.windows)
    return (*flows, *(f"maps/{name}" for name in layout.maps))
