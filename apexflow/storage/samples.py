"""What a sample can hold, and how it is read from a store: maps, flow, regions, frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from apexflow.errors import ApexflowError, DamagedError, NotStoredError
from apexflow.storage.digests import crc32c
from apexflow.storage.format import NO_NUMBER, ClipRecord
from apexflow.storage.store import Store

Encode = Callable[[NDArray[Any]], NDArray[Any]]
Columns = Mapping[str, NDArray[Any]]
# Rows of the frame axis that a sample holds, and all that the clip has.
Rows = tuple[Sequence[int], Sequence[int]]

KEY_FRAMES = ("onset", "apex", "offset")
_FRAMES = "frames/image"
# What is read at a time: enough small chunks to read side by side, bounded in memory.
_BYTES_AT_A_TIME = 4 << 20
# Unwanted rows between wanted ones that are cheaper to read than to ask twice.
_GAP = 4


@dataclass(frozen=True, slots=True)
class RowInfo:
    """What reading a clip needs of its commit record, and no more: data sets are large.

    Attributes
    ----------
    row : int
        The clip's row in arrays of one entry a clip.
    name : str
        data set/subject/clip, for messages.
    digests : tuple of int or None
        CRC-32C of the clip's part of each array that is read.
    frames, all_frames : sequence of int
        The clip's rows of the frame axis that the sample holds, and all that the digest is
        over; empty where the array has one entry a clip.
    """

    row: int
    name: str
    digests: tuple[int | None, ...]
    frames: Sequence[int] = ()
    all_frames: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class PerClipPart:
    """Arrays that hold one entry a clip.

    Attributes
    ----------
    paths : tuple of str
        One array a window.
    pairs : tuple of int
        The number of frame pairs of each window; a single one has no axis of its own.
    stacked : bool
        Whether the sample begins with an axis of windows and pairs.
    finish : callable
        From what is stored, (n, ...), to what a sample holds.
    """

    paths: tuple[str, ...]
    pairs: tuple[int | None, ...]
    stacked: bool
    finish: Encode

    ragged = False

    def info(self, _: Store, row: int, record: ClipRecord, __: Columns) -> RowInfo:
        digests = tuple(record.digests.get(path) for path in self.paths)
        return RowInfo(row, "/".join(record.key), digests)

    def block_rows(self, store: Store) -> int:
        """Return how many clips lie in one chunk or shard."""
        array = store.array(self.paths[0])
        return int((array.shards or array.chunks)[0])

    def read(self, store: Store, clips: Sequence[RowInfo]) -> NDArray[Any]:
        """Return (n, ...) for the clips, in ascending rows: uint8 (for 0..1) or float."""
        return _filled(
            len(clips), (self._piece(store, piece) for piece in self._pieces(store, clips))
        )

    def _pieces(self, store: Store, clips: Sequence[RowInfo]) -> Iterator[Sequence[RowInfo]]:
        """Split clips where chunks end, into what may be in memory at a time."""
        array, block = store.array(self.paths[0]), self.block_rows(store)
        row_bytes = max(1, array.nbytes // max(1, array.shape[0]))
        unit = block * max(1, _BYTES_AT_A_TIME // (block * row_bytes))
        for _, group in groupby(clips, key=lambda clip: clip.row // unit):
            yield list(group)

    def _piece(self, store: Store, clips: Sequence[RowInfo]) -> NDArray[Any]:
        return self.finished(self._checked(store, i, clips) for i in range(len(self.paths)))

    def finished(self, stored: Iterable[NDArray[Any]]) -> NDArray[Any]:
        """Return what samples hold, (n, ...), of what each of ``paths`` holds: (n, ...)."""
        windows = []
        for values, pairs in zip(stored, self.pairs, strict=True):
            made = self.finish(values)
            windows.append(made[:, None] if self.stacked and pairs == 1 else made)
        return np.concatenate(windows, axis=1) if self.stacked else windows[0]

    def _checked(self, store: Store, position: int, clips: Sequence[RowInfo]) -> NDArray[Any]:
        path = self.paths[position]

        def read() -> NDArray[Any]:
            values = _read_rows(store.array(path), [clip.row for clip in clips])
            for clip, value in zip(clips, values, strict=True):
                _check(store, path, clip, position, value)
            return values

        return _again_when_rewritten(store, path, clips, read)


@dataclass(frozen=True, slots=True)
class PerFramePart:
    """An array along the frame axis: aligned crops, or windows as long as the clip.

    Attributes
    ----------
    path : str
    rows : callable
        From the store's name, a clip's commit record and its key_frames to the rows that the
        sample holds, and to all rows that the clip has.
    ragged : bool
        Whether clips differ in length.
    finish : callable
        From what is stored, (frames, ...), to what a sample holds.
    """

    path: str
    rows: Callable[[str, ClipRecord, Mapping[str, int]], Rows]
    ragged: bool
    finish: Encode

    def info(self, store: Store, row: int, record: ClipRecord, columns: Columns) -> RowInfo:
        key_frames = {name: int(column[row]) for name, column in columns.items()}
        chosen, everything = self.rows(store.name, record, key_frames)
        digest = record.digests.get(self.path)
        name = "/".join(record.key)
        return RowInfo(row, name, (digest,), chosen, everything)

    def block_rows(self, store: Store) -> int:
        return 1

    def read(self, store: Store, clips: Sequence[RowInfo]) -> NDArray[Any]:
        """Return what the clips hold, one after another: (all frames, ...)."""
        count = sum(len(clip.frames) for clip in clips)
        return _filled(count, (self.finish(self._checked(store, clip)) for clip in clips))

    def _checked(self, store: Store, clip: RowInfo) -> NDArray[Any]:
        partly = list(clip.frames) != list(clip.all_frames)

        def read() -> NDArray[Any]:
            array = store.array(self.path)
            values = _read_rows(array, clip.frames)
            if not partly:
                _check(store, self.path, clip, 0, values)
            # Chunks carry checksums of their own; a lost one reads as zeros.
            elif not values.reshape(len(values), -1).any(axis=1).all():
                _check(store, self.path, clip, 0, _read_rows(array, clip.all_frames))
            return values

        return _again_when_rewritten(store, self.path, [clip], read)


SamplePart = PerClipPart | PerFramePart


def maps_part(store: Store, name: str) -> SamplePart:
    """Return the part that serves the maps of that name."""
    layout = store.layout
    if name not in layout.maps:
        raise NotStoredError(f"{store.name} has no maps {name!r}; it has {sorted(layout.maps)}")
    window = layout.maps[name].window
    return _window_part(store, "maps", (name,), (layout.pairs(window),), False, _channels_first)


def windows_part(
    store: Store, group: str, windows: str | Sequence[str], encode: Encode | None
) -> SamplePart:
    """Return the part that serves ``flow`` or ``roi`` of one window, or of several in a row."""
    names = (windows,) if isinstance(windows, str) else tuple(windows)
    layout = store.layout
    there = list(layout.windows) if group == "flow" or layout.regions else []
    for name in names:
        if name not in there:
            raise NotStoredError(f"{store.name} has no {group} of window {name!r}; it has {there}")
    pairs = tuple(layout.windows[name] for name in names)
    # Regions keep the axis of windows where there is but one.
    stacked = group == "roi" or not isinstance(windows, str)
    finish = _unchanged if encode is None else partial(_encoded, encode)
    return _window_part(store, group, names, pairs, stacked, finish)


def features_part(store: Store, name: str) -> SamplePart:
    """Return the part that serves the features of that name."""
    there = list(store.layout.features)
    if name not in there:
        what = f"it has {there}" if there else "`apexflow features` makes a store that has them"
        raise NotStoredError(f"{store.name} has no features {name!r}; {what}")
    return PerClipPart((f"features/{name}",), (1,), False, _unchanged)


def frames_part(
    store: Store, wanted: str | Sequence[str], limit: int | None, count: int | None = None
) -> SamplePart:
    """Return the part that serves aligned frames: ``limit`` at most, or ``count`` of each clip."""
    if wanted == "interpolated":
        return _interpolated_part(store)
    if not store.layout.keep_frames:
        raise NotStoredError(f"{store.name} keeps no frames; its recipe has frames.keep = false")
    if wanted in ("all", "interval"):
        rows = partial(_sequence_rows, wanted == "interval", limit, count)
        return PerFramePart(_FRAMES, rows, count is None, _frames_finished)
    key_frames = (wanted,) if isinstance(wanted, str) else tuple(wanted)
    if not key_frames or not set(key_frames) <= set(KEY_FRAMES):
        raise ApexflowError(
            f"frames must be 'all', 'interval', 'interpolated', or some of "
            f"{', '.join(KEY_FRAMES)}. Got {wanted!r}."
        )
    return PerFramePart(_FRAMES, partial(_key_frame_rows, key_frames), False, _frames_finished)


def check_apex_unseen(stores: Sequence[Store], options: Mapping[str, Any]) -> None:
    """Refuse samples that were made with the apex known, from which it is to be found.

    Raises `ApexflowError`.
    """
    limit = options.get("max_frames")
    if limit is not None or options.get("frames") not in (None, "interval"):
        raise ApexflowError(
            "labels 'apex' is where the apex lies from onset to offset: feed frames 'interval', of "
            "each clip all or n_frames, neither cut by max_frames nor chosen by key frames"
        )
    for store in stores:
        recipe = store.attributes.get("recipe", {})
        if recipe.get("face", {}).get("template_frame") == "apex":
            raise ApexflowError(
                f"{store.name}: its frames are aligned to the apex (face.template_frame), which "
                "gives it away: process with another template frame for labels 'apex'"
            )
        for window in _windows_fed(store, options):
            drawn = recipe.get("temporal", {}).get("method", "pair")
            if "apex" in window.split("-") or drawn != "pair":
                raise ApexflowError(
                    f"{store.name}: the flow of window {window} was made with the apex known "
                    f"({'temporal.method ' + drawn if drawn != 'pair' else 'its key frame'}), from "
                    "which labels 'apex' is to be learnt: feed frames 'interval', or a window "
                    "without it, such as steps-16, of a recipe with temporal.method 'pair'"
                )


def _windows_fed(store: Store, options: Mapping[str, Any]) -> list[str]:
    fed = [options[name] for name in ("flow", "roi") if name in options]
    windows = [name for one in fed for name in ([one] if isinstance(one, str) else one)]
    made = store.layout.maps.get(options.get("maps", ""))
    return windows if made is None else [*windows, made.window]


def _interpolated_part(store: Store) -> PerClipPart:
    if not store.layout.interpolated:
        raise NotStoredError(
            f"{store.name} has no interpolated frames; its recipe has frames.interpolated = 0"
        )
    return PerClipPart(("interpolated/image",), (1,), False, _with_channel)


def encoder(
    encode: str | Encode | None, size: tuple[int, int], options: Mapping[str, Any]
) -> Encode | None:
    """Return the function that makes maps of ``size`` from flow (..., 2, H, W)."""
    if encode is None or callable(encode):
        return encode
    from apexflow.kernels.encode import check_options, make_maps

    try:
        check_options(encode, options)
    except ValueError as error:
        raise ApexflowError(str(error)) from None
    return partial(make_maps, encoding=encode, size=size, options=dict(options))


def finished_rows(
    store: Store, parts: Mapping[str, SamplePart]
) -> Iterator[tuple[dict[str, RowInfo], ClipRecord]]:
    """Yield what reading each finished clip needs, and its commit record.

    In the order of the store, without the clips that its last catalog no longer had. Raises
    `DamagedError` when a commit record is not that of its row, or cannot be what it says.
    """
    key_frames = {name: store.column(name) for name in KEY_FRAMES}
    gone = store.gone()
    for row, record in store.finished():
        if gone[row]:
            continue
        try:
            found = {
                name: part.info(store, row, record, key_frames) for name, part in parts.items()
            }
        except (KeyError, TypeError, AttributeError, OverflowError) as error:
            raise DamagedError(
                f"{store.name}: the commit record of {'/'.join(record.key)} is damaged "
                f"({type(error).__name__}); `apexflow verify` names what is damaged, "
                f"{store.repaired_by}"
            ) from None
        yield found, record


def _window_part(
    store: Store,
    group: str,
    names: Sequence[str],
    pairs: tuple[int | None, ...],
    stacked: bool,
    finish: Encode,
) -> SamplePart:
    paths = tuple(f"{group}/{name}" for name in names)
    if None not in pairs:
        return PerClipPart(paths, pairs, stacked, finish)
    if len(names) > 1:
        raise ApexflowError(
            f"{group}: a window as long as the clip stands alone. Got {', '.join(names)}."
        )
    window = store.layout.maps[names[0]].window if group == "maps" else names[0]
    return PerFramePart(paths[0], partial(_pair_rows, window), True, finish)


def _pair_rows(
    window: str, _store: str, record: ClipRecord, _key_frames: Mapping[str, int]
) -> Rows:
    rows = record.pair_rows(window)
    return rows, rows


def _sequence_rows(
    interval: bool,
    limit: int | None,
    count: int | None,
    store: str,
    record: ClipRecord,
    key_frames: Mapping[str, int],
) -> Rows:
    numbers, start = record.frame_numbers, record.frame_start
    everything = range(start, start + len(numbers))
    if not interval:
        return _some(everything, limit, count), everything
    first, last = (_key_frame(name, record, key_frames) for name in ("onset", "offset"))
    inside = [start + i for i, number in enumerate(numbers) if first <= number <= last]
    if not inside:
        raise ApexflowError(
            f"{store}: no stored frame of {'/'.join(record.key)} lies in its interval "
            f"{first} to {last}"
        )
    return _some(inside, limit, count), everything


def _some(rows: Sequence[int], limit: int | None, count: int | None) -> Sequence[int]:
    """Return the first ``limit`` rows, or ``count`` of them, evenly from the first to the last."""
    if count is None:
        return rows[:limit]
    return [rows[i] for i in np.linspace(0, len(rows) - 1, count).round().astype(int)]


def _key_frame_rows(
    wanted: Sequence[str], store: str, record: ClipRecord, key_frames: Mapping[str, int]
) -> Rows:
    numbers, start = record.frame_numbers, record.frame_start
    rows = []
    for name in wanted:
        number = _key_frame(name, record, key_frames)
        if number not in numbers:
            raise ApexflowError(
                f"{store}: the {name} frame {number} of {'/'.join(record.key)} is not "
                "among its stored frames"
            )
        rows.append(start + numbers.index(number))
    return rows, range(start, start + len(numbers))


def _key_frame(name: str, record: ClipRecord, key_frames: Mapping[str, int]) -> int:
    """Return a name's frame number: what served as the apex, else what is annotated."""
    if name == "apex" and record.apex_frame != NO_NUMBER:
        return record.apex_frame
    number = key_frames[name]
    if number != NO_NUMBER or name == "apex":
        return number
    return record.frame_numbers[0 if name == "onset" else -1]


def _unchanged(values: NDArray[Any]) -> NDArray[Any]:
    return values


def _channels_first(maps: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(np.moveaxis(maps, -1, -3))


def _encoded(encode: Encode, flow: NDArray[Any]) -> NDArray[Any]:
    return _channels_first(encode(flow))


def _frames_finished(frames: NDArray[Any]) -> NDArray[Any]:
    return frames[:, None] if frames.ndim == 3 else _channels_first(frames)


def _with_channel(sequences: NDArray[Any]) -> NDArray[Any]:
    return sequences[:, :, None]


def _filled(count: int, pieces: Iterator[NDArray[Any]]) -> NDArray[Any]:
    """Put pieces end to end without a second copy of everything."""
    whole: NDArray[Any] | None = None
    done = 0
    for piece in pieces:
        if len(piece) == count:
            return piece
        if whole is None:
            whole = np.empty((count, *piece.shape[1:]), piece.dtype)
        whole[done : done + len(piece)] = piece
        done += len(piece)
    assert whole is not None
    return whole


def _read_rows(array: zarr.Array[Any], rows: Sequence[int]) -> NDArray[Any]:
    """Read rows, those that follow one another closely in one request."""
    near = max((array.shards or array.chunks)[0], _GAP)
    values = np.empty((len(rows), *array.shape[1:]), array.dtype)
    done = 0
    while done < len(rows):
        stop = done + 1
        while stop < len(rows) and 0 <= rows[stop] - rows[stop - 1] <= near:
            stop += 1
        wanted = np.asarray(rows[done:stop])
        values[done:stop] = np.asarray(array[wanted[0] : wanted[-1] + 1])[wanted - wanted[0]]
        done = stop
    return values


def _again_when_rewritten(
    store: Store, path: str, clips: Sequence[RowInfo], read: Callable[[], NDArray[Any]]
) -> NDArray[Any]:
    """Read, and once more with the arrays opened again: they may have been rewritten."""
    for _ in range(2):
        try:
            return read()
        except DamagedError as error:
            damage = error
        except Exception as error:  # whatever a damaged chunk makes Zarr raise
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            damage = _damaged(store, path, clips, reason)
        store.refresh()
    raise damage


def _check(store: Store, path: str, clip: RowInfo, position: int, values: NDArray[Any]) -> None:
    wanted = clip.digests[position]
    if wanted is None or crc32c(values) != wanted:
        raise _damaged(store, path, [clip], "it differs from its commit record")


def _damaged(store: Store, path: str, clips: Sequence[RowInfo], reason: str) -> DamagedError:
    where = clips[0].name if len(clips) == 1 else f"{clips[0].name} to {clips[-1].name}"
    return DamagedError(
        f"{store.name}: {path} of clip {where} is damaged or being rewritten ({reason}); "
        f"`apexflow verify` names what is damaged, {store.repaired_by}"
    )
