"""One store, as it is read: the table, the records, the arrays of each clip.

Whoever reads holds the store, so that a compaction leaves the chunks in place, and checks what
was read against the clip's commit record. An array that was rewritten meanwhile is opened again.
"""

from __future__ import annotations

import html
import os
from collections import Counter
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.errors import GroupNotFoundError

from apexflow.catalog import person_of
from apexflow.errors import ApexflowError, DamagedError, NotStoredError
from apexflow.names import find_clip
from apexflow.storage.format import (
    ADDED_COLUMNS,
    DONE,
    FAILED,
    FORMAT,
    GONE,
    NO_NUMBER,
    RESULT_NUMBER_COLUMNS,
    ClipRecord,
    Layout,
    picture_paths,
    window_of,
)
from apexflow.storage.holds import hold
from apexflow.storage.table import ClipTable, read_table
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
    """A store of format 1, opened for reading; see `open_store`. `StoreWriter` is one to write.

    It holds the store until it is closed: by `close`, at the end of a ``with`` block, or when
    nobody refers to it any more.
    """

    _checks = True
    """Whether records are checked against the table: a writer may find it half-written."""

    def __init__(self, group: zarr.Group, name: str, *, handle: int | None = None) -> None:
        self.group = group
        self.name = name
        self._handle = handle
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._layout: Layout | None = None
        self._generation: Any = None

    def close(self) -> None:
        """Let go of the store: a compaction may then delete the chunks that it replaced."""
        handle, self._handle = self._handle, None
        if handle is not None:
            os.close(handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        """Let a copy in another process open, and hold, the store for itself."""
        return _open_held, (self.group.store, self.name)

    @property
    def attributes(self) -> dict[str, Any]:
        return dict(self.group.attrs)

    @property
    def layout(self) -> Layout:
        if self._layout is None:
            try:
                self._layout = Layout.from_dict(self.attributes["layout"])
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                raise self._damaged(
                    "the layout in the store's attributes", first_line(error)
                ) from None
        return self._layout

    @property
    def recipe_hash(self) -> str:
        return str(self.attributes["recipe_hash"])

    @property
    def clip_count(self) -> int:
        """Number of clips in the table: rows beyond it were never committed."""
        count = self._attrs_now("clips").get("count")
        if not isinstance(count, int) or count < 0:
            raise self._damaged("clips/zarr.json", f"count is {count!r}")
        return count

    @property
    def complete(self) -> bool:
        """Whether the last run reached its end, so that the columns hold every result."""
        return bool(self._attrs_now("clips").get("complete"))

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

    def array(self, path: str) -> zarr.Array[Any]:
        """Return an array of the store by its path, such as ``maps/hsv``.

        It is Zarr's own, unchecked: a chunk that is missing reads as the fill value (black, NaN,
        an empty text), without a word. What is checked: `read` and `frames` for a clip's part,
        `column` for a column of the table, `record` for a commit record.
        """
        if path not in self._arrays:
            try:
                found = self.group.get(path)
            except Exception as error:  # whatever damaged metadata makes Zarr raise
                raise self._damaged(f"the metadata of {path}", first_line(error)) from None
            if not isinstance(found, zarr.Array):
                raise ApexflowError(f"{self.name}: no array {path} in this store")
            self._arrays[path] = found
        return self._arrays[path]

    def refresh(self) -> None:
        """Open the arrays again: their chunks may have been rewritten."""
        self._arrays.clear()

    def column(self, name: str) -> NDArray[Any]:
        """Return one column of the table, a row a clip.

        Raises `DamagedError` when it cannot be read or is not what was written.
        """
        reason = ""
        for _ in range(2):
            attributes = self._attrs_now("clips")
            wanted = attributes.get("column_digests", {}).get(name)
            try:
                values = self.raw_column(name)
            except (DamagedError, NotStoredError):
                raise
            except Exception as error:  # whatever a damaged chunk makes Zarr raise
                reason = first_line(error)
            else:
                if wanted is None or column_digest(values) == wanted:
                    return values
                reason = "it is not what was written"
            self.refresh()
        raise self._damaged(f"column clips/{name}", reason)

    def raw_column(self, name: str) -> NDArray[Any]:
        """Return one column of the table as it is, unchecked."""
        count = self.clip_count
        if name in ADDED_COLUMNS and not self.has_column(name):
            return self._made_up(name, count)
        return np.asarray(self.array(f"clips/{name}")[:count])

    def has_column(self, name: str) -> bool:
        """Whether the store has a column, or had one when it was last written."""
        digests = self._attrs_now("clips").get("column_digests", {})
        return self.has_array(f"clips/{name}") or name in digests

    def has_array(self, path: str) -> bool:
        """Whether the store has an array, be it a damaged one."""
        try:
            return path in self.group
        except Exception:  # whatever damaged metadata makes Zarr raise
            return True

    def _made_up(self, name: str, count: int) -> NDArray[Any]:
        """Return a column that stores of earlier versions lack."""
        if name in RESULT_NUMBER_COLUMNS:
            return np.full(count, NO_NUMBER)
        people = (person_of(dataset, subject) for dataset, subject, _ in self.keys())
        texts = list(people) if name == "person" else [""] * count
        return np.asarray(texts, np.dtypes.StringDType())

    def keys(self) -> list[Key]:
        """Return (data set, subject, clip) of each row."""
        columns = (self.column(name).tolist() for name in ("dataset", "subject", "clip"))
        return list(zip(*columns, strict=True))

    def people(self) -> list[str]:
        """Return the person of each row: the same in several data sets where that is known."""
        stored = self.column("person").tolist()
        return [
            person or person_of(dataset, subject)
            for person, (dataset, subject, _) in zip(stored, self.keys(), strict=True)
        ]

    def gone(self) -> list[bool]:
        """Say of each row whether the last run's catalog no longer had its clip.

        Such clips take no part in data sets and folds; `apexflow process` drops them with
        ``--prune`` and keeps them with ``--keep``.
        """
        return [standing == GONE for standing in self.column("catalog").tolist()]

    def shared(self) -> dict[int, int]:
        """Return the rows that have the frames of another person's clip, with that one's row.

        As the last run found before it decoded anything, of clips that take part. Equal frames
        in different folders show in `ClipRecord.identity` as well.
        """
        names, people, gone = self.column("shared").tolist(), self.people(), self.gone()
        rows = {"/".join(key): row for row, key in enumerate(self.keys())} if any(names) else {}
        found = {row: rows[name] for row, name in enumerate(names) if name in rows}
        return {
            row: other
            for row, other in found.items()
            if people[row] != people[other] and not (gone[row] or gone[other])
        }

    def record(self, index: int) -> ClipRecord | None:
        """Return the commit record of a row; None when the clip was never finished.

        Raises `DamagedError` when it is damaged.
        """
        (found,) = self._read_records(index, index + 1)
        return found

    def records(self) -> list[ClipRecord | None]:
        """Return the commit record of every row."""
        return list(self.iter_records())

    def iter_records(self, *, matching: bool = True) -> Iterator[ClipRecord | None]:
        """Yield the commit record of every row, a block of rows in memory at a time.

        Each must be of its row's clip, unless ``matching`` is false.

        Raises `DamagedError` when one is damaged, or another clip's.
        """
        matching = matching and self._checks
        keys = self.keys() if matching else []
        count = self.clip_count
        for start in range(0, count, RECORD_BLOCK):
            records = self._read_records(start, min(start + RECORD_BLOCK, count))
            for row, record in enumerate(records, start):
                if matching and record is not None and record.key != keys[row]:
                    raise DamagedError(
                        f"{self.name}: row {row} is {'/'.join(keys[row])}, its commit record is "
                        f"of {'/'.join(map(str, record.key))}; the process command does it again"
                    )
                yield record

    def finished(self) -> Iterator[tuple[int, ClipRecord]]:
        """Yield (row, record) of each clip that is done; raises as `iter_records` does."""
        for index, record in enumerate(self.iter_records()):
            if record is not None and record.done:
                yield index, record

    def sound_records(self, damaged: set[int] | None = None) -> Iterator[ClipRecord | None]:
        """Yield the commit record of every row, None in the place of one that is damaged.

        The rows of these are added to ``damaged``.
        """
        count = self.clip_count
        for start in range(0, count, RECORD_BLOCK):
            stop = min(start + RECORD_BLOCK, count)
            try:
                yield from self._read_records(start, stop)
            except DamagedError:
                for index in range(start, stop):
                    yield self._sound_record(index, set() if damaged is None else damaged)

    def _sound_record(self, index: int, damaged: set[int]) -> ClipRecord | None:
        try:
            return self.record(index)
        except DamagedError:
            damaged.add(index)
            return None

    def _read_records(self, start: int, stop: int) -> list[ClipRecord | None]:
        try:
            texts = self._record_texts(start, stop)
            if "" in texts and self._rewritten():
                texts = self._record_texts(start, stop)
            if "" in texts and self._checks and self.complete:
                self._check_unrecorded(texts, start)
            return [ClipRecord.from_json(text) if text else None for text in texts]
        except ApexflowError:
            raise
        except Exception as error:  # whatever a damaged chunk makes Zarr or the parser raise
            raise DamagedError(
                f"{self.name}: a commit record is damaged ({first_line(error)}); `apexflow verify` "
                f"says which, and the process command does its clip again"
            ) from None

    def _check_unrecorded(self, texts: list[str], start: int) -> None:
        """Refuse a lost record: where a run has reached its end, the table says who has one."""
        status = self.column("status")[start : start + len(texts)].tolist()
        for row, (text, found) in enumerate(zip(texts, status, strict=True), start):
            if found and not text:
                raise DamagedError(
                    f"{self.name}: the commit record of row {row} is missing, its clip was {found}"
                    f"; the process command does it again"
                )

    def _record_texts(self, start: int, stop: int) -> list[str]:
        texts: list[str] = np.asarray(self.array("clips/record")[start:stop]).tolist()
        # A table that has grown since the array was opened.
        return texts + [""] * (stop - start - len(texts))

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

    def _rewritten(self) -> bool:
        """Say whether arrays have been rewritten since they were opened; open them again."""
        before = self._generation
        self._attrs_now("clips")
        return before != self._generation

    def _attrs_now(self, path: str) -> dict[str, Any]:
        try:
            found = dict(zarr.open_group(self.group.store, path=path, mode="r").attrs)
        except Exception as error:  # whatever damaged metadata makes Zarr raise
            raise self._damaged(f"the metadata of {path}", first_line(error)) from None
        generation = found.get("generation", 0)
        if generation != self._generation:
            if self._generation is not None:
                self.refresh()
            self._generation = generation
        return found

    def _damaged(self, what: str, reason: str) -> DamagedError:
        return DamagedError(
            f"{self.name}: {what} is damaged or being rewritten ({reason}); `apexflow verify` "
            f"names what is damaged, the process command with --repair makes it again"
        )


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


def crc32c(values: NDArray[Any]) -> int:
    """Return the CRC-32C of an array's bytes, as commit records hold it."""
    return int(google_crc32c.value(np.ascontiguousarray(values).tobytes()))


def column_digest(values: NDArray[Any]) -> int:
    """Return the CRC-32C of a column: of the bytes of numbers, of texts one after another."""
    if values.dtype.kind in "fiu":
        return crc32c(values)
    return int(google_crc32c.value("\0".join(values.tolist()).encode()))


def first_line(error: Exception) -> str:
    """Return the kind of an error and the first line of what it says."""
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"
