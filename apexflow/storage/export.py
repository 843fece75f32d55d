"""A store as plain files: maps as PNG, the aligned tree, animations."""

from __future__ import annotations

import hashlib
import io
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.errors import ApexflowError, DamagedError
from apexflow.storage.format import ClipRecord
from apexflow.storage.store import Store
from apexflow.storage.target import disk_errors

GIF_SECONDS_PER_FRAME = 1 / 1.5
# Of all frames: what viewers keep to, a tenth of the speed at 200 frames/s.
MOVING_SECONDS_PER_FRAME = 1 / 20
# PNG loses nothing; a JPEG tree is for eyes, and for code that expects SAMM's file names.
JPEG_QUALITY = 95
# Of most file systems, in one part of a path.
MOST_NAME_BYTES = 255
# What parts a path or ends a name; on Windows also what names a drive or a stream.
_NOT_IN_NAMES = re.compile(r"[\\\0]" if os.name != "nt" else r'[\\\0:*?"<>|]|[. ]$')
_SUFFIX = re.compile(r"_step[0-9]+(_.*)?$")

Change = Callable[[int, ClipRecord, NDArray[np.uint8]], NDArray[np.uint8] | None]
"""Makes other frames of a clip's (row, record, frames); None where the clip is left out."""


def export_maps(store: Store, folder: str | Path, *, map_name: str | None = None) -> int:
    """Write one PNG per clip, named ``sub006_006_1_2.png``; return how many files.

    Several maps go into a folder each. Of a window of several frame pairs, or of regions, each
    map is a file: ``sub006_006_1_2_step1_mouth.png``. Clips whose names would be one file get
    names in which what joins the parts is escaped in the parts: ``suba_b%5Fc.png``.

    Raises
    ------
    ApexflowError
        The recipe does not make a map of that name, a name in the store is not a plain file
        name, something is damaged, or the folder cannot be written.
    """
    names = list(store.layout.maps)
    if not names:
        raise ApexflowError(f"{store.name} has no maps; its recipe makes none")
    if map_name is not None and map_name not in names:
        raise ApexflowError(f"map must be one of {names}, not {map_name!r}")
    wanted = names if map_name is None else [map_name]
    files = _Files(Path(folder))
    clips = _named_clips(store)
    for name in wanted:
        into = _part(name) if len(wanted) > 1 else ""
        for index, record, file in clips:
            for suffix, image in _maps_of_clip(store, name, index, record):
                bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
                files.write_image(f"{into}/{file}{suffix}", ".png", bgr)
    return files.count


def _maps_of_clip(
    store: Store, name: str, index: int, record: ClipRecord
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Yield each map of a clip with what tells it from the clip's others."""
    layout = store.layout
    maps = store.read(f"maps/{name}", index, record)
    regions = [_part(region) for region in layout.regions if layout.maps[name].regions]
    if maps.ndim < 3 + bool(regions):
        raise DamagedError(f"{store.name}: maps/{name} has no regions, its layout says {regions}")
    stepped = maps.ndim - 3 > bool(regions)
    for place in np.ndindex(maps.shape[:-3]):
        step = f"_step{place[0] + 1}" if stepped else ""
        region = f"_{regions[place[-1]]}" if regions else ""
        yield step + region, maps[place]


def export_normalized(store: Store, folder: str | Path, *, change: Change | None = None) -> int:
    """Write the aligned crops as ``subject/clip/frame.jpg``, by their input names; count them.

    With ``change`` what it makes of them. Raises `ApexflowError` as `export_maps` does.
    """
    files = _Files(Path(folder))
    clips = list(_plain(store))
    prefix = _prefix(store)
    for index, record in clips:
        crops = _frames(store, index, record, change)
        if crops is None:
            continue
        into = f"{prefix(record)}{_part(record.subject)}/{_part(record.clip)}"
        for name, crop in zip(record.files, crops, strict=True):
            file = Path(_part(name))
            files.write_image(f"{into}/{file.stem}", file.suffix, crop)
    return files.count


def export_gifs(store: Store, folder: str | Path, *, change: Change | None = None) -> int:
    """Write one animation per clip, onset, apex, offset, at 1.5 frames/s; return how many files.

    With ``change`` it shows all frames, as that makes them, at 20 frames/s. They are named as
    maps are, ``sub006_006_1_2.gif``: clips of two subjects may share a name. Raises
    `ApexflowError` as `export_maps` does.
    """
    from PIL import Image

    onsets, offsets = (store.column(name).tolist() for name in ("onset", "offset"))
    files = _Files(Path(folder))
    for index, record, file in _named_clips(store):
        crops = _frames(store, index, record, change)
        if crops is None:
            continue
        # The apex as it was used: where none is annotated it was estimated.
        shown = [onsets[index], record.apex_frame, offsets[index]]
        rows = [record.frame_numbers.index(n) for n in shown if n in record.frame_numbers]
        # Where no key frame is among those that are kept, the clip's ends show it.
        rows = rows or [0, len(crops) - 1]
        seconds = GIF_SECONDS_PER_FRAME
        if change is not None:
            rows, seconds = list(range(len(crops))), MOVING_SECONDS_PER_FRAME
        images = [Image.fromarray(crops[row]) for row in rows]
        data = io.BytesIO()
        images[0].save(
            data,
            "GIF",
            save_all=True,
            append_images=images[1:],
            duration=round(1000 * seconds),
            loop=0,
        )
        files.write(file, ".gif", data.getvalue())
    return files.count


def _frames(
    store: Store, index: int, record: ClipRecord, change: Change | None
) -> NDArray[np.uint8] | None:
    crops = store.frames(record)
    return crops if change is None else change(index, record, crops)


class _Files:
    """The files of one export, each written once, none outside of its folder.

    Attributes
    ----------
    count : int
        How many there are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taken: set[str] = set()

    @property
    def count(self) -> int:
        return len(self._taken)

    def write_image(self, name: str, ending: str, image: NDArray[np.uint8]) -> None:
        """Write an image under a name, its parts between slashes, encoded as its ending says."""
        kind = ending.lower() or ".png"
        options = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY] if kind in (".jpg", ".jpeg") else []
        try:
            ok, data = cv2.imencode(kind, image, options)
        except cv2.error:
            ok = False
        if not ok:
            raise ApexflowError(f"cannot encode {name}{ending}: no image format ends in {kind}")
        self.write(name, ending, data.tobytes())

    def write(self, name: str, ending: str, data: bytes) -> None:
        """Write one file; refuse a name that this export has used."""
        *parents, last = name.strip("/").split("/")
        path = self._folder.joinpath(*parents, _fitting(last, ending))
        key = _folded(str(path))
        if key in self._taken:
            raise ApexflowError(
                f"{path} would be two clips' file; nothing is overwritten: rename one of them"
            )
        _make_folder(path.parent)
        with disk_errors(f"cannot write {path}", "make room, or choose another folder"):
            path.write_bytes(data)
        self._taken.add(key)


def _plain(store: Store) -> Iterator[tuple[int, ClipRecord]]:
    """Yield each finished clip, after the names in all records are known to be plain."""
    for record in store.iter_records(matching=False):
        if record is not None and record.done:
            for name in record.key:
                _part(name)
    yield from store.finished()


def _named_clips(store: Store) -> list[tuple[int, ClipRecord, str]]:
    """Return each finished clip with the name of its files, which no other clip has."""
    clips = list(_plain(store))
    prefix = _prefix(store)
    names = [_joined(prefix(r), _part(r.subject), _part(r.clip)) for _, r in clips]
    for escape in (_escaped, _numbered):
        taken = Counter(map(_bare, names))
        names = [
            name if taken[_bare(name)] == 1 else escape(prefix(r), r, index)
            for name, (index, r) in zip(names, clips, strict=True)
        ]
    return [(index, r, name) for (index, r), name in zip(clips, names, strict=True)]


def _joined(prefix: str, subject: str, clip: str) -> str:
    return f"{prefix}sub{subject}_{clip}"


def _escaped(prefix: str, record: ClipRecord, _index: int) -> str:
    return _joined(prefix, _escape(record.subject), _escape(record.clip))


def _numbered(prefix: str, record: ClipRecord, index: int) -> str:
    """Tell names apart that differ in capitals alone: some file systems do not."""
    return f"{_escaped(prefix, record, index)}%row{index}"


def _escape(part: str) -> str:
    return part.replace("%", "%25").replace("_", "%5F")


def _bare(name: str) -> str:
    """Return what two names must differ in, with every suffix that a file may have."""
    return _SUFFIX.sub("", _folded(name))


def _folded(name: str) -> str:
    """Return a name as file systems see it that know neither capitals nor forms of Unicode."""
    return unicodedata.normalize("NFC", name).casefold()


def _fitting(name: str, ending: str) -> str:
    """Shorten a name that no file system takes; a digest tells it from others."""
    if len(f"{name}{ending}".encode()) <= MOST_NAME_BYTES:
        return f"{name}{ending}"
    tail = f"~{hashlib.sha256(name.encode()).hexdigest()[:12]}{ending}"
    room = max(0, MOST_NAME_BYTES - len(tail.encode()))
    return name.encode()[:room].decode(errors="ignore") + tail


def _prefix(store: Store) -> Callable[[ClipRecord], str]:
    """Keep data sets apart where a store has several; a single one needs no folder."""
    if len({record.dataset for _, record in store.finished()}) < 2:
        return lambda _: ""
    return lambda record: f"{_part(record.dataset)}/"


def _part(name: str) -> str:
    """Return ``name`` if it is a plain file name: a store may come from anywhere."""
    plain = isinstance(name, str) and PurePosixPath(name).name == name
    if not plain or name in ("", ".", "..") or _NOT_IN_NAMES.search(name):
        raise ApexflowError(
            f"{name!r} in the store is not a plain file name; nothing is written for it"
        )
    return name


def _make_folder(folder: Path) -> None:
    with disk_errors(f"cannot make folder {folder}", "choose another folder"):
        folder.mkdir(parents=True, exist_ok=True)
