"""A store as plain files: maps as PNG, the aligned tree, animations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.errors import ApexflowError
from apexflow.storage.format import ClipRecord
from apexflow.storage.store import Store

GIF_SECONDS_PER_FRAME = 1 / 1.5
# PNG loses nothing; a JPEG tree is for eyes, and for code that expects SAMM's file names.
JPEG_QUALITY = 95


def export_maps(store: Store, folder: str | Path, *, map_name: str | None = None) -> int:
    """Write one PNG per clip, named ``sub006_006_1_2.png``; return how many.

    Several maps go into a folder each. Of a window of several frame pairs, or of regions, each
    map is a file: ``sub006_006_1_2_step1_mouth.png``. Raises `ApexflowError` for a name that
    the recipe does not make.
    """
    names = list(store.layout.maps)
    if not names:
        raise ApexflowError(f"{store.name} has no maps; its recipe makes none")
    if map_name is not None and map_name not in names:
        raise ApexflowError(f"map must be one of {names}, not {map_name!r}")
    wanted = names if map_name is None else [map_name]
    written = 0
    for name in wanted:
        into = Path(folder) / name if len(wanted) > 1 else Path(folder)
        prefix = _prefix(store)
        for index, record in finished(store):
            file = f"{prefix(record)}sub{_part(record.subject)}_{_part(record.clip)}"
            for suffix, image in _maps_of_clip(store, name, index, record):
                _write_image(into / f"{file}{suffix}.png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
                written += 1
    return written


def _maps_of_clip(
    store: Store, name: str, index: int, record: ClipRecord
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield each map of a clip with what tells it from the clip's others."""
    layout = store.layout
    maps = store.read(f"maps/{name}", index, record)
    regions = layout.regions if layout.maps[name].regions else ()
    stepped = maps.ndim - 3 > bool(regions)
    for place in np.ndindex(maps.shape[:-3]):
        step = f"_step{place[0] + 1}" if stepped else ""
        region = f"_{_part(regions[place[-1]])}" if regions else ""
        yield step + region, maps[place]


def export_normalized(store: Store, folder: str | Path) -> int:
    """Write the aligned crops as ``subject/clip/frame.jpg``, by their input names; count them."""
    prefix = _prefix(store)
    written = 0
    for _, record in finished(store):
        into = Path(folder) / prefix(record) / _part(record.subject) / _part(record.clip)
        for name, crop in zip(record.files, store.frames(record), strict=True):
            _write_image(into / _part(name), crop)
            written += 1
    return written


def export_gifs(store: Store, folder: str | Path) -> int:
    """Write one animation per clip, onset, apex, offset, at 1.5 frames/s; return how many."""
    from PIL import Image

    onsets, offsets = (store.column(name).tolist() for name in ("onset", "offset"))
    prefix = _prefix(store)
    written = 0
    for index, record in finished(store):
        crops = store.frames(record)
        # The apex as it was used: where none is annotated it was estimated.
        shown = [onsets[index], record.apex_frame, offsets[index]]
        rows = [record.frame_numbers.index(n) for n in shown if n in record.frame_numbers]
        images = [Image.fromarray(crops[row]) for row in rows]
        path = Path(folder) / prefix(record) / f"{_part(record.clip)}.gif"
        _make_folder(path.parent)
        images[0].save(
            path,
            save_all=True,
            append_images=images[1:],
            duration=round(1000 * GIF_SECONDS_PER_FRAME),
            loop=0,
        )
        written += 1
    return written


def finished(store: Store) -> Iterator[tuple[int, ClipRecord]]:
    """Return (row, record) of each clip that is done."""
    for index, record in enumerate(store.records()):
        if record is not None and record.done:
            yield index, record


def _prefix(store: Store) -> Callable[[ClipRecord], str]:
    """Keep data sets apart where a store has several; a single one needs no folder."""
    if len({record.dataset for _, record in finished(store)}) < 2:
        return lambda _: ""
    return lambda record: f"{_part(record.dataset)}/"


def _part(name: str) -> str:
    """Return ``name`` if it is a plain file name: a store may come from anywhere."""
    if name in ("", ".", "..") or PurePosixPath(name).name != name or "\\" in name or "\0" in name:
        raise ApexflowError(
            f"{name!r} in the store is not a plain file name; nothing is written for it"
        )
    return name


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ApexflowError(f"cannot make folder {folder}: {error.strerror}") from None


def _write_image(path: Path, image: NDArray[np.uint8]) -> None:
    _make_folder(path.parent)
    suffix = path.suffix.lower() or ".png"
    options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if suffix in (".jpg", ".jpeg") else []
    ok, data = cv2.imencode(suffix, image, options)
    if not ok:
        raise ApexflowError(f"cannot encode {path}")
    try:
        path.write_bytes(data.tobytes())
    except OSError as error:
        raise ApexflowError(f"cannot write {path}: {error.strerror}") from None
