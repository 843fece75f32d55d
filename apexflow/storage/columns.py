"""Copying the records of clips into columns, for everyone who reads without apexflow."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.storage.csv_cells import safe_row
from apexflow.storage.format import (
    COLUMN_CHUNK,
    COORDINATES,
    CSV_COLUMNS,
    FRAME_FLOAT_COLUMNS,
    NO_NUMBER,
    RESULT_NUMBER_COLUMNS,
    RESULT_TEXT_COLUMNS,
    ClipRecord,
    float_columns,
)
from apexflow.storage.store import Store

_PLAIN = (*RESULT_TEXT_COLUMNS, *RESULT_NUMBER_COLUMNS)
# Columns that are called otherwise in a record.
_FIELDS: Mapping[str, Callable[[ClipRecord], Any]] = {
    "frame_count": lambda record: len(record.frame_numbers),
    "frame_number": attrgetter("frame_numbers"),
}
_NO_RECORD = ClipRecord(dataset="", subject="", clip="", status="")


def fill_columns(store: Store) -> None:
    """Copy every record into the columns of ``clips`` and ``frames``, some rows at a time."""
    index = np.arange(store.clip_count)
    starts, capacities = store.column("frame_start"), store.column("frame_capacity")
    of_clips = tuple(float_columns(store.layout))
    clips = _Columns(store, "clips", (*_PLAIN, *of_clips), index, index + 1)
    of_frames = ("frame_number", *FRAME_FLOAT_COLUMNS)
    frames = _Columns(store, "frames", (*of_frames, *COORDINATES), starts, starts + capacities)
    labels = store.column("label").tolist()
    total = store.array("frames/frame_number").shape[0]
    for row, found in enumerate(store.sound_records()):
        record = found or _NO_RECORD
        if not 0 <= record.frame_start <= total - len(record.frame_numbers):
            record = _NO_RECORD  # damaged: `verify` names it
        for name in _PLAIN:
            clips.put(name, row, [_value(record, name)])
        for name in of_clips:
            if (value := _value(record, name)) not in ((), None):
                clips.put(name, row, [value])
        for name in of_frames:
            if values := _value(record, name):
                frames.put(name, record.frame_start, values)
        count = len(record.frame_numbers)
        for name in COORDINATES if count else ():
            value = labels[row] if name == "label" else getattr(record, name)
            frames.put(name, record.frame_start, [value] * count)
        clips.finish(row)
        frames.finish(row)
    clips.finish_all()
    frames.finish_all()


def write_csv(store: Store) -> None:
    """Write the table of clips as a CSV file too: the one chunk of the array ``clips.csv``."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for start in range(0, store.clip_count, COLUMN_CHUNK):
        rows = slice(start, min(start + COLUMN_CHUNK, store.clip_count))
        columns = (np.asarray(store.array(f"clips/{name}")[rows]).tolist() for name in CSV_COLUMNS)
        writer.writerows(map(safe_row, zip(*columns, strict=True)))
    data = np.frombuffer(text.getvalue().encode(), np.uint8)
    store.group.create_array(
        "clips.csv",
        data=data,
        chunks=data.shape,
        compressors=None,
        overwrite=True,
        dimension_names=("byte",),  # without a name xarray opens no tree
    )


def _value(record: ClipRecord, name: str) -> Any:
    return _FIELDS.get(name, attrgetter(name))(record)


class _Columns:
    """Columns along one axis; only the chunks that are being filled are in memory.

    Parameters
    ----------
    store : Store
    group : str
    names : tuple of str
        The columns, all of one length.
    starts, stops : (clip,) int64
        The rows of each clip.
    """

    def __init__(
        self,
        store: Store,
        group: str,
        names: tuple[str, ...],
        starts: NDArray[np.int64],
        stops: NDArray[np.int64],
    ) -> None:
        self._arrays = {name: store.array(f"{group}/{name}") for name in names}
        self._length = self._arrays[names[0]].shape[0]
        self._open: dict[int, dict[str, NDArray[Any]]] = {}
        self._last_clip = _last_clips(-(-self._length // COLUMN_CHUNK), starts, stops)
        self._unwritten = set(range(len(self._last_clip)))

    def put(self, name: str, start: int, values: Any) -> None:
        """Put values into consecutive rows of a column."""
        end = start + len(values)
        for chunk in range(start // COLUMN_CHUNK, -(-end // COLUMN_CHUNK)):
            first = chunk * COLUMN_CHUNK
            low, high = max(start, first), min(end, first + COLUMN_CHUNK)
            rows = slice(low - first, high - first)
            self._chunk(chunk)[name][rows] = values[low - start : high - start]

    def finish(self, clip: int) -> None:
        """Write the chunks that no clip after this one has a row in."""
        for chunk in [chunk for chunk in self._open if self._last_clip[chunk] <= clip]:
            self._write(chunk)

    def finish_all(self) -> None:
        """Write the rest; what no clip has filled is blank, whatever it held before."""
        for chunk in sorted(self._unwritten):
            self._write(chunk)

    def _chunk(self, chunk: int) -> dict[str, NDArray[Any]]:
        if chunk not in self._open:
            rows = min(COLUMN_CHUNK, self._length - chunk * COLUMN_CHUNK)
            self._open[chunk] = {name: _blank(array, rows) for name, array in self._arrays.items()}
        return self._open[chunk]

    def _write(self, chunk: int) -> None:
        start = chunk * COLUMN_CHUNK
        for name, values in self._chunk(chunk).items():
            array = self._arrays[name]
            array[start : start + len(values)] = np.asarray(values, array.dtype)
        del self._open[chunk]
        self._unwritten.discard(chunk)


def _blank(array: Any, rows: int) -> NDArray[Any]:
    """Return rows of an array's fill value; of text, as any Python strings."""
    text = array.dtype.kind not in "fiu"
    return np.full((rows, *array.shape[1:]), array.fill_value, object if text else array.dtype)


def _last_clips(
    chunks: int, starts: NDArray[np.int64], stops: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the last clip that has a row in each chunk; -1 where there is none."""
    last = np.full(chunks, NO_NUMBER)
    clips = np.flatnonzero(stops > starts)
    first, behind = starts[clips] // COLUMN_CHUNK, -(-stops[clips] // COLUMN_CHUNK)
    while clips.size:
        np.maximum.at(last, first, clips)
        longer = first + 1 < behind
        clips, first, behind = clips[longer], first[longer] + 1, behind[longer]
    return last
