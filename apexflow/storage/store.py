"""One store: creating, reserving slots, committing clips, reading the table."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store as ZarrStore
from zarr.codecs import BloscCodec, Crc32cCodec
from zarr.errors import GroupNotFoundError

from apexflow.errors import ApexflowError
from apexflow.storage.chunks import ChunkWriter
from apexflow.storage.columns import fill_columns, write_csv
from apexflow.storage.format import (
    COLUMN_CHUNK,
    FORMAT,
    FRAME_CHUNK,
    FRAME_FLOAT_COLUMNS,
    NO_NUMBER,
    NUMBER_COLUMNS,
    RESULT_NUMBER_COLUMNS,
    RESULT_TEXT_COLUMNS,
    STEP_CHUNK,
    STEPS_BY_LENGTH,
    TEXT_COLUMNS,
    ClipRecord,
    ClipRow,
    Layout,
    Slot,
    float_columns,
)

RECORD_BLOCK = 1024  # rows; of clips of 75 frames some 10 MB parsed
_OBJECT_STORES = ("s3", "s3a", "gs", "az", "adl", "abfs", "abfss")
_BEING_CREATED = {"apexflow": "being created"}

logger = logging.getLogger(__name__)

Target = str | Path | ZarrStore
Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class ClipArrays:
    """The pixels of one clip, as its slot takes them.

    Attributes
    ----------
    frames : uint8 (n, height, width) or None
        Aligned crops; None when the recipe keeps none.
    flow : dict of window to float ([step,] 2, height, width)
    maps : dict of name to uint8 ([step,] [region,] height, width, 3)
    roi : dict of window to float ([step,] region, 2, height, width)

    Windows of one step have no step axis.
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


class Store:
    """A store of format 1, opened for reading or for writing.

    Use `create_store` and `open_store`. Any number of workers may hold one open and write
    clips at a time, each its own slot; reserving slots and finalising is one process's work.
    """

    def __init__(self, group: zarr.Group, name: str) -> None:
        self.group = group
        self.name = name
        self._arrays: dict[str, zarr.Array[Any]] = {}
        self._writers: dict[str, ChunkWriter | None] = {}
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
        """Return the commit record of a row; None when the clip was never finished."""
        (text,) = np.asarray(self.array("clips/record")[index : index + 1]).tolist()
        return _parse_record(text)

    def records(self) -> list[ClipRecord | None]:
        """Return the commit record of every row."""
        return list(self.iter_records())

    def iter_records(self) -> Iterator[ClipRecord | None]:
        """Yield the commit record of every row, a block of rows in memory at a time.

        Raises `ApexflowError` when one is damaged.
        """
        records, count = self.array("clips/record"), self.clip_count
        for start in range(0, count, RECORD_BLOCK):
            try:
                block = np.asarray(records[start : min(start + RECORD_BLOCK, count)])
                parsed = [_parse_record(text) for text in block.tolist()]
            except (ValueError, KeyError, TypeError) as error:
                raise ApexflowError(
                    f"{self.name}: a commit record is damaged ({error}); `apexflow verify` says "
                    f"which, the process command with --repair does its clip again"
                ) from None
            yield from parsed

    # Writing: one process reserves and finalises, workers commit.

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
        """Mark the store as being written, each clip in chunks of its own again."""
        from apexflow.storage.compact import expand

        expand(self)
        self._set_clip_attrs(complete=False)

    def refresh(self) -> None:
        """Look at the arrays anew: their chunks may have been rewritten."""
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

    def digest(self, path: str, index: int, record: ClipRecord) -> int:
        """Read one clip's part of an array and return its CRC-32C."""
        return _crc(self.read(path, index, record))

    def read(self, path: str, index: int, record: ClipRecord) -> NDArray[Any]:
        """Read one clip's part of an array of ``flow``, ``roi``, ``maps`` or ``frames/image``.

        Without the clip axis; a window of several steps has the step axis first, whatever way
        the store keeps it.
        """
        if path == "frames/image":
            return self.frames(record)
        window = self._window(path)
        if self.layout.windows[window] != STEPS_BY_LENGTH:
            return np.asarray(self.array(path)[index])
        start = record.frame_start
        rows = np.asarray(self.array(path)[start : start + len(record.frame_numbers)])
        return rows[[row - start for row in record.step_rows(window)]]

    def _window(self, path: str) -> str:
        group, _, name = path.partition("/")
        return self.layout.maps[name].window if group == "maps" else name

    def frames(self, record: ClipRecord) -> NDArray[np.uint8]:
        """Read the aligned crops of one clip: uint8 (n, height, width)."""
        if not self.layout.keep_frames:
            raise ApexflowError(f"{self.name} keeps no frames; its recipe has frames.keep = false")
        stop = record.frame_start + len(record.frame_numbers)
        return np.asarray(self.array("frames/image")[record.frame_start : stop])

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
            digests["frames/image"] = _crc(crops)
        for path, given in arrays.by_path():
            values = given if path.startswith("maps/") else given.astype(layout.flow_dtype)
            self._write_part(path, slot, record, values)
            digests[path] = _crc(values)
        return digests

    def _write_part(self, path: str, slot: Slot, record: ClipRecord, values: NDArray[Any]) -> None:
        window, array = self._window(path), self.array(path)
        if self.layout.windows[window] != STEPS_BY_LENGTH:
            self._write_rows(path, slot.index, values[None])
            return
        # Whole chunks, so that nothing of an earlier form of the clip stays behind.
        rows = np.full((slot.frame_capacity, *values.shape[1:]), array.fill_value, values.dtype)
        rows[[row - slot.frame_start for row in record.step_rows(window)]] = values
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
            by_length = layout.windows[self._window(path)] == STEPS_BY_LENGTH
            _grow(self.array(path), frames if by_length else clips)

    def _write_column(self, name: str, values: Sequence[Any] | NDArray[Any]) -> None:
        array = self.array(f"clips/{name}")
        if len(values):
            array[: len(values)] = np.asarray(values, array.dtype)

    def _attrs_now(self, path: str) -> dict[str, Any]:
        return dict(zarr.open_group(self.group.store, path=path, mode="r").attrs)

    def _set_clip_attrs(self, **values: Any) -> None:
        zarr.open_group(self.group.store, path="clips", mode="r+").attrs.update(values)


def create_store(
    target: Target,
    *,
    layout: Layout,
    recipe: Mapping[str, Any],
    recipe_hash: str,
    provenance: Mapping[str, Any],
) -> Store:
    """Make an empty store of format 1 at ``target``: a path, a URL or a Zarr store.

    Raises `ApexflowError` when something else is there.
    """
    name = target_name(target)
    try:
        begun = _root_attributes(target) == _BEING_CREATED
        group = zarr.create_group(
            _zarr_target(target), attributes=dict(_BEING_CREATED), overwrite=begun
        )
    except (FileExistsError, zarr.errors.ContainsGroupError, zarr.errors.ContainsArrayError):
        raise _no_store(name) from None
    except OSError as error:
        raise ApexflowError(f"cannot create the store {name}: {error.strerror or error}") from None
    _make_arrays(group, layout)
    # Last: a store whose creation was cut short says so, and is made anew.
    group.attrs.put(
        {
            "format": FORMAT,
            "recipe": dict(recipe),
            "recipe_hash": recipe_hash,
            "layout": layout.to_dict(),
            **provenance,
        }
    )
    return Store(group, name)


def open_store(target: Target, *, mode: str = "r") -> Store:
    """Open a store for reading (``r``) or for writing clips (``r+``).

    Raises `ApexflowError` when there is none, or one of another format.
    """
    name = target_name(target)
    if not store_exists(target):
        raise ApexflowError(f"no store at {name}; `apexflow process` makes one")
    path = local_path(target)
    if path is not None and path.is_file():
        raise _no_store(name)
    try:
        # Zarr 2 can hold pickled objects, whose reading runs what their writer wished.
        group = zarr.open_group(
            _zarr_target(target),
            mode=mode,  # type: ignore[arg-type]
            zarr_format=3,
        )
    except (GroupNotFoundError, ValueError, KeyError):
        raise _no_store(name) from None
    found = group.attrs.get("format")
    if found is None:
        raise _no_store(name)
    if found != FORMAT:
        raise ApexflowError(
            f"{name} has store format {found}; this apexflow reads {FORMAT}: use the version of "
            f"apexflow that wrote it, or another output"
        )
    return Store(group, name)


def store_exists(target: Target) -> bool:
    """Whether anything is at ``target``: a file, a folder with entries, a Zarr group.

    What a killed run left of a store that it had only begun to make is nothing.
    """
    path = local_path(target)
    if path is not None and not path.is_dir():
        return path.is_file()
    if path is not None and not (path / "zarr.json").is_file():
        return any(entry.suffix != ".partial" for entry in path.iterdir())
    try:
        return _root_attributes(target) not in (None, _BEING_CREATED)
    except (ValueError, KeyError):  # a zarr.json that is none of ours
        return True


def local_path(target: Target) -> Path | None:
    """Return the folder of a store on a local disk, None for any other kind of store."""
    if isinstance(target, ZarrStore):
        root = getattr(target, "root", None)
        return root if isinstance(root, Path) else None
    return None if "://" in str(target) else Path(target)


def target_name(target: Target) -> str:
    """Return what messages call the store."""
    return str(target)


@contextmanager
def exclusive(target: Target) -> Iterator[None]:
    """Hold a local store for one run; the operating system frees it when the run dies.

    Raises `ApexflowError` when another run holds it.
    """
    import fcntl
    import os

    path = local_path(target)
    if path is None:
        yield
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ApexflowError(
                f"another run is writing {path}; wait for it, or stop it first"
            ) from None
        except OSError as error:  # some network file systems lock no folder
            logger.warning(
                "%s cannot be locked (%s): see that no other run writes it", path, error.strerror
            )
        yield
    finally:
        os.close(handle)


def sweep(target: Target) -> int:
    """Delete what killed writers left half-written; return how many files that was."""
    path = local_path(target)
    if path is None:
        return 0
    left = list(path.rglob("*.partial"))
    for file in left:
        file.unlink(missing_ok=True)
    return len(left)


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


def _crc(values: Any) -> int:
    return int(google_crc32c.value(np.ascontiguousarray(values).tobytes()))


def _picture_paths(layout: Layout) -> tuple[str, ...]:
    """Return the paths of all arrays of flow and maps."""
    groups = ("flow", "roi") if layout.regions else ("flow",)
    flows = (f"{group}/{window}" for group in groups for window in layout.windows)
    return (*flows, *(f"maps/{name}" for name in layout.maps))


def _parse_record(text: str) -> ClipRecord | None:
    return ClipRecord.from_json(text) if text else None


def _root_attributes(target: Target) -> dict[str, Any] | None:
    """Return the attributes of the Zarr group at ``target``; None when there is none."""
    try:
        return dict(zarr.open_group(_zarr_target(target), mode="r", zarr_format=3).attrs)
    except (GroupNotFoundError, FileNotFoundError):
        return None


def _no_store(name: str) -> ApexflowError:
    return ApexflowError(f"{name} exists and is no apexflow store; choose another output")


def _zarr_target(target: Target) -> Any:
    if isinstance(target, str) and target.partition("://")[0] in _OBJECT_STORES:
        return _object_store(target)
    return str(target) if isinstance(target, Path) else target


def _object_store(url: str) -> ZarrStore:
    """Open a bucket by its URL; keys, region and endpoint come from the environment."""
    from zarr.storage import ObjectStore

    try:
        from obstore.store import from_url
    except ImportError:
        raise ApexflowError(f"{url} needs obstore: pip install 'apexflow[s3]'") from None
    return ObjectStore(from_url(url))


def _make_arrays(group: zarr.Group, layout: Layout) -> None:
    clips = group.create_group("clips", attributes={"count": 0, "complete": True})
    for name in (*TEXT_COLUMNS, *RESULT_TEXT_COLUMNS):
        _make(clips, name, "str", (), ())
    for name in (*NUMBER_COLUMNS, *RESULT_NUMBER_COLUMNS):
        _make(clips, name, "int64", (), (), fill_value=NO_NUMBER)
    for name, (shape, dims) in float_columns(layout).items():
        column = _make(clips, name, "float32", shape, dims, fill_value=np.nan)
        if name == "roi_box":
            column.attrs["regions"] = list(layout.region_boxes)
    # One chunk a clip, uncompressed: the commit is one small file, written whole.
    _make(clips, "record", "str", (), (), rows=1, compressors=None)
    stages = len(layout.stages)
    timings = _make(clips, "timings", "float32", (stages,), ("stage",), rows=1, fill_value=np.nan)
    timings.attrs["stages"] = list(layout.stages)
    frames = group.create_group("frames")
    _make(frames, "frame_number", "int64", (), (), axis="frame", fill_value=NO_NUMBER)
    for name, (shape, dims) in FRAME_FLOAT_COLUMNS.items():
        _make(frames, name, "float32", shape, dims, axis="frame", fill_value=np.nan)
    if layout.keep_frames:
        _make(frames, "image", "uint8", layout.crop, ("y", "x"), axis="frame", rows=FRAME_CHUNK)
    _make_flow_arrays(group, layout)
    _make_map_arrays(group, layout)


def _make_flow_arrays(group: zarr.Group, layout: Layout) -> None:
    size, dtype = layout.crop, layout.flow_dtype
    flow = group.create_group("flow", attributes={"units": "pixels of the crop"})
    for window in layout.windows:
        shape, dims = (2, *size), ("component", "y", "x")
        _make_stepped(
            flow, window, dtype, shape, dims, layout=layout, window=window, fill_value=np.nan
        )
    if not layout.regions:
        return
    attributes = {"units": layout.region_units, "regions": list(layout.regions)}
    roi = group.create_group("roi", attributes=attributes)
    for window in layout.windows:
        region_shape = (len(layout.regions), 2, *layout.region_size)
        region_dims = ("region", "component", "y", "x")
        _make_stepped(
            *(roi, window, dtype, region_shape, region_dims),
            layout=layout,
            window=window,
            fill_value=np.nan,
        )


def _make_map_arrays(group: zarr.Group, layout: Layout) -> None:
    maps = group.create_group("maps")
    for name, wanted in layout.maps.items():
        # Maps may differ in size, and xarray wants one size a dimension.
        shape: tuple[int, ...] = (*wanted.size, 3)
        dims: tuple[str, ...] = (f"{name}_y", f"{name}_x", "rgb")
        if wanted.regions:
            shape, dims = (len(layout.regions), *shape), ("region", *dims)
        _make_stepped(maps, name, "uint8", shape, dims, layout=layout, window=wanted.window)


def _make_stepped(
    group: zarr.Group,
    name: str,
    dtype: str,
    shape: tuple[int, ...],
    dims: tuple[str, ...],
    *,
    layout: Layout,
    window: str,
    fill_value: Any = None,
) -> None:
    """Make an array of a window's steps: a row a clip, or a row a frame."""
    steps = layout.windows[window]
    if steps == STEPS_BY_LENGTH:
        options: dict[str, Any] = {"axis": "frame", "rows": STEP_CHUNK}
    else:
        options = {"rows": 1}
        if steps > 1:
            shape, dims = (steps, *shape), (f"{window}_step", *dims)
    _make(group, name, dtype, shape, dims, fill_value=fill_value, **options)


def _make(
    group: zarr.Group,
    name: str,
    dtype: str,
    shape: tuple[int, ...],
    dims: tuple[str, ...],
    *,
    axis: str = "clip",
    rows: int = COLUMN_CHUNK,
    fill_value: Any = None,
    compressors: Any = "default",
) -> zarr.Array[Any]:
    size = 4 if dtype == "float32" else 2 if dtype == "float16" else 1
    # lz4 with bitshuffle costs no measurable time and takes the padding of the last chunk.
    packed = (BloscCodec(typesize=size, cname="lz4", shuffle="bitshuffle"), Crc32cCodec())
    return group.create_array(
        name,
        shape=(0, *shape),
        chunks=(rows, *shape),
        dtype=dtype,
        fill_value=fill_value,
        compressors=packed if compressors == "default" else compressors,
        # A file for each clip and no folders: three of them to a file cost more than the clip's
        # bytes. Columns hold all clips in a file or two.
        chunk_key_encoding={"name": "default", "separator": "/" if rows == COLUMN_CHUNK else "."},
        dimension_names=(axis, *dims),
    )
