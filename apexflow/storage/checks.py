"""Checking a store: every array readable, everything as the commit records say."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.storage.chunks import ChunkWriter
from apexflow.storage.coordinates import differing, has_coordinates
from apexflow.storage.digests import first_line
from apexflow.storage.format import (
    ADDED_FLOAT_COLUMNS,
    COORDINATES,
    FAILED,
    FRAME_FLOAT_COLUMNS,
    NUMBER_COLUMNS,
    PENDING,
    RESULT_NUMBER_COLUMNS,
    RESULT_TEXT_COLUMNS,
    TEXT_COLUMNS,
    ClipRecord,
    float_columns,
)
from apexflow.storage.store import Store, open_store
from apexflow.storage.target import Target


@dataclass(frozen=True, slots=True)
class Damage:
    """Something in a store that is not as it was written.

    Attributes
    ----------
    where, what : str
    index : int or None
        The row of the clip that has to be processed again to repair it; None where the end of
        any run repairs it.
    is_column : bool
        Whether a column cannot be read, of all clips together; ``where`` is its path.
    """

    where: str
    what: str
    index: int | None = None
    is_column: bool = False

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def verify(store: Store | Target) -> list[Damage]:
    """Read everything and return what is damaged; an empty list is a sound store.

    Each finished clip's part of each array is read and compared with the checksum in its
    commit record, so that a changed, truncated or lost chunk is named with its clip.

    Parameters
    ----------
    store : Store, or the path, URL or Zarr store of one

    Returns
    -------
    list of Damage

    Raises
    ------
    ApexflowError
        When there is no store, or one of another format.
    """
    if isinstance(store, Store):
        return list(_all_damages(store))
    with open_store(store) as opened:
        return list(_all_damages(opened))


def _all_damages(store: Store) -> Iterator[Damage]:
    """Yield every damage, whatever it does to those who look for it."""
    try:
        yield from _damages(store)
    except Exception as error:  # metadata may be damaged in any way
        yield Damage("metadata", _reason(error))


def _damages(store: Store) -> Iterator[Damage]:
    unreadable = list(_unreadable_columns(store))
    yield from unreadable
    if unreadable:
        return
    records: list[ClipRecord | None] = []
    lost: set[int] = set()
    for index, key in enumerate(store.keys()):
        name = "/".join(key)
        try:
            record = store.record(index)
        except Exception as error:  # a damaged chunk, or text that is not a record
            yield Damage(f"clips/record of clip {name}", _reason(error), index)
            lost.add(index)
            record = None
        records.append(record)
        if record is None:
            continue
        if record.key != key:
            yield Damage(
                f"clips/record[{index}]", f"is of {'/'.join(record.key)}, not {name}", index
            )
        elif record.done:
            yield from _clip_damages(store, index, name, record)
    yield from _shared_frames(store, records)
    if store.complete:
        yield from _column_damages(store, records, lost)


def _unreadable_columns(store: Store) -> Iterator[Damage]:
    count = store.clip_count
    names = (*TEXT_COLUMNS, *NUMBER_COLUMNS, *RESULT_TEXT_COLUMNS, *RESULT_NUMBER_COLUMNS)
    for name in (*names, *float_columns(store.layout), "timings"):
        if name in ADDED_FLOAT_COLUMNS and not store.has_column(name):
            continue
        try:
            column = Store.column(store, name)  # a writer's own does not check
        except Exception as error:  # whatever a damaged chunk or its metadata makes Zarr raise
            yield Damage(f"clips/{name}", _reason(error), is_column=True)
            continue
        if len(column) != count:
            what = f"has {len(column)} rows, the table {count}"
            yield Damage(f"clips/{name}", what, is_column=True)
    coordinates = COORDINATES if has_coordinates(store.group) else ()
    for name in ("frame_number", *FRAME_FLOAT_COLUMNS, *coordinates):
        if name in ADDED_FLOAT_COLUMNS and not store.has_array(f"frames/{name}"):
            continue
        try:
            store.array(f"frames/{name}")[:]
        except Exception as error:
            yield Damage(f"frames/{name}", _reason(error), is_column=True)


def _clip_damages(store: Store, index: int, name: str, record: ClipRecord) -> Iterator[Damage]:
    for path in store.picture_paths():
        if path not in record.digests:
            yield Damage(f"clips/record of clip {name}", f"vouches for no {path}", index)
    for path, wanted in record.digests.items():
        try:
            found = store.digest(path, index, record)
        except Exception as error:
            yield Damage(f"{path} of clip {name}", _reason(error), index)
            continue
        if found != wanted:
            what = f"checksum {found:08x}, written was {wanted:08x}"
            yield Damage(f"{path} of clip {name}", what, index)


def rows_with_shared_frames(
    store: Store, records: Iterable[ClipRecord | None]
) -> list[tuple[int, int]]:
    """Return the rows whose frames another person has too, with that one's row.

    As the last run found before it decoded anything, and as the records tell: equal files and
    equal pixels, whatever run and data set they are of. Rows that are gone are none of them.
    """
    people, gone = store.people(), store.gone()
    shared = store.shared()
    first: dict[str, int] = {}
    for row, record in enumerate(records):
        if record is None or gone[row] or not record.done or not record.identity:
            continue
        other = first.setdefault(record.identity, row)
        if people[other] != people[row]:
            shared.setdefault(row, other)
    return sorted(shared.items())


def _shared_frames(store: Store, records: list[ClipRecord | None]) -> Iterator[Damage]:
    """Yield the clips whose frames another person has too."""
    names, people = list(map("/".join, store.keys())), store.people()
    for row, other in rows_with_shared_frames(store, records):
        yield Damage(
            f"clip {names[row]}",
            f"has the frames of {names[other]}, under another person ({people[row]}, "
            f"{people[other]}): correct the table, then process again with --prune",
        )


def _column_damages(
    store: Store, records: list[ClipRecord | None], lost: Collection[int]
) -> Iterator[Damage]:
    coordinates: dict[str, NDArray[Any]] = {}
    if has_coordinates(store.group):
        coordinates = {name: np.asarray(store.array(f"frames/{name}")[:]) for name in COORDINATES}
        for path in differing(store.group, store.layout):
            yield Damage(path, "differs from the column that it is a copy of")
    columns = {name: store.column(name).tolist() for name in coordinates}
    status = [PENDING if record is None else record.status for record in records]
    counts = [0 if record is None else len(record.frame_numbers) for record in records]
    frame_number = np.asarray(store.array("frames/frame_number")[:])
    written_status, written_count = store.column("status"), store.column("frame_count")
    for index, (key, record) in enumerate(zip(store.keys(), records, strict=True)):
        if index in lost:
            continue
        name = "/".join(key)
        if written_status[index] != status[index]:
            yield Damage(f"clips/status of clip {name}", "differs from its commit record")
        if written_count[index] != counts[index]:
            yield Damage(f"clips/frame_count of clip {name}", "differs from its commit record")
        if record is not None and record.status != FAILED:
            rows = slice(record.frame_start, record.frame_start + counts[index])
            if frame_number[rows].tolist() != list(record.frame_numbers):
                yield Damage(f"frames/frame_number of clip {name}", "differs from its record")
            for path, values in coordinates.items():
                if set(values[rows].tolist()) - {columns[path][index]}:
                    yield Damage(f"frames/{path} of clip {name}", "differs from the table")


def _reason(error: Exception) -> str:
    return f"unreadable ({first_line(error)})"


def torn_clips(store: Store) -> set[int]:
    """Return the rows of finished clips that miss a chunk, or whose chunk is cut short.

    What a power cut or a full disk leaves: an empty or missing file, or one that is shorter than
    its own header says. Files are looked at and 16 bytes of each are read; a changed byte within
    is for `verify` to find. Stores in buckets and compacted arrays are not looked at: their
    chunks are written whole, and checked when they are read.
    """
    writers = {path: ChunkWriter.of(store.array(path)) for path in store.picture_paths()}
    files = {
        path: writer for path, writer in writers.items() if writer is not None and writer.local
    }
    found = set()
    for index, record in enumerate(store.sound_records()):
        if record is None or not record.done:
            continue
        for path, writer in files.items():
            chunks = _chunks(store, writer, path, index, record)
            if any(map(writer.is_torn, chunks)) and not _vouched_for(store, path, index, record):
                found.add(index)
                break
    return found


def _vouched_for(store: Store, path: str, index: int, record: ClipRecord) -> bool:
    """Whether a suspicious part reads as written: Zarr leaves out chunks that are all blank."""
    try:
        return store.digest(path, index, record) == record.digests.get(path)
    except OSError:
        raise
    except Exception:  # whatever a damaged chunk makes Zarr raise
        return False


def _chunks(
    store: Store, writer: ChunkWriter, path: str, index: int, record: ClipRecord
) -> Iterable[int]:
    """Return the numbers of the chunks that hold a clip's part of an array."""
    if path != "frames/image" and store.layout.pairs(store.window_of(path)) is not None:
        return (index // writer.rows,)
    first, stop = record.frame_start, record.frame_start + len(record.frame_numbers)
    return range(first // writer.rows, -(-stop // writer.rows))
