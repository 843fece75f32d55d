"""What a method reads of a store, clip by clip, checked against the clips' commit records."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.engine.regions import RegionBox, in_crop, place_regions
from apexflow.errors import ApexflowError, NotStoredError
from apexflow.features.methods import Method
from apexflow.features.parts import Parts
from apexflow.storage.format import ClipRecord
from apexflow.storage.samples import (
    RowInfo,
    SamplePart,
    finished_rows,
    frames_part,
    windows_part,
)
from apexflow.storage.store import Store

_PART = "values"


@dataclass(frozen=True, slots=True)
class SourceClip:
    """A finished clip of the store: its row, its commit record, and what reading it needs."""

    row: int
    record: ClipRecord
    info: RowInfo

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what a method can read of the clip."""
        start = self.record.frame_start
        frames = [row - start for row in self.info.frames]
        read = [self.info.digests, frames, self.record.box, self.record.landmarks]
        return hashlib.sha256(json.dumps([*read, self.record.roi_box]).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Source:
    """A store, and what a method is given of it.

    Attributes
    ----------
    store : Store
    method : Method
    what : dict
        ``{"frames": "interval"}`` or ``{"flow": window}``.
    parts : Parts
        Of the whole vector: those of the method, of flow for each frame pair of the window.
    """

    store: Store
    method: Method
    what: dict[str, str]
    parts: Parts
    part: SamplePart

    @classmethod
    def of(
        cls, store: Store, method: Method, name: str, frames: str | None, window: str | None
    ) -> Source:
        """Return what ``method`` reads.

        Raises `ApexflowError` when the store does not hold it, with the key of the recipe by
        which it would, or when the other thing was named.
        """
        if method.reads == "frames":
            if window is not None:
                raise ApexflowError(f"{name} reads frames and no flow: leave out the window")
            which = frames or "interval"
            _check_frames(store, name, which)
            part: SamplePart = frames_part(store, which, None)
            return cls(store, method, {"frames": which}, method.parts, part)
        if frames is not None:
            raise ApexflowError(f"{name} reads flow and no frames: name a window instead")
        chosen = _window(store, name, window)
        pairs = store.layout.windows[chosen]
        if method.reads == "flow" and pairs is None:
            raise ApexflowError(
                f"{name} takes equally many frame pairs of each clip; the window {chosen!r} has "
                "more the longer a clip is: name another window"
            )
        parts = method.parts
        if method.reads == "flow" and pairs is not None and pairs > 1:
            parts = Parts((("pair", tuple(map(str, range(pairs)))), *parts.axes))
        part = windows_part(store, "flow", chosen, None)
        return cls(store, method, {"flow": chosen}, parts, part)

    def clips(self) -> Iterator[SourceClip]:
        """Yield the finished clips that take part, in the order of the store."""
        for info, record in finished_rows(self.store, {_PART: self.part}):
            found = info[_PART]
            row = found.row
            yield SourceClip(row, record, found)

    def vector(self, clip: SourceClip) -> NDArray[np.float32]:
        """Return a clip's features.

        Raises `ValueError` when the method cannot take what the clip has, `DamagedError` when
        that is not what was stored.
        """
        read = self.part.read(self.store, [clip.info])
        if self.method.reads == "frames":
            return self.method(read[:, 0])
        height, width = read.shape[-2:]
        flows = np.moveaxis(read.reshape(-1, 2, height, width), 1, -1).astype(np.float32)
        if self.method.reads == "regions":
            return self.method(flows, self._boxes(clip.record))
        return np.concatenate([self.method(flow) for flow in flows])

    def _boxes(self, record: ClipRecord) -> list[RegionBox]:
        """Return the method's regions in pixels of the crop, as the recipe placed them.

        Those that it did not place hang on the landmarks, or on the face's box.
        """
        layout = self.store.layout
        placed = dict(zip(layout.region_boxes, record.roi_box, strict=True))
        names = tuple(getattr(self.method, "regions", ()))
        boxes = place_regions(names, box_of(record), record.landmarks, own=placed)
        return list(in_crop(boxes, box_of(record), layout.crop))


def box_of(record: ClipRecord) -> RegionBox:
    """Return the face's box; `ValueError` where the record has none."""
    if len(record.box) != 4:
        raise ValueError("the clip has no box of a face, within which regions are placed")
    x0, y0, x1, y1 = record.box
    return x0, y0, x1, y1


def _check_frames(store: Store, name: str, which: str) -> None:
    if which not in ("interval", "all"):
        raise ApexflowError(f"frames must be interval or all. Got {which!r}.")
    if not store.layout.keep_frames:
        raise NotStoredError(
            f"{store.name} keeps no frames, which {name} reads: process with a recipe that has "
            "frames.keep = true"
        )
    recipe: Any = store.attributes.get("recipe", {})
    if recipe.get("frames", {}).get("which") == "windows":
        raise NotStoredError(
            f"{store.name} keeps the frames of its windows alone, and {name} reads whole clips: "
            'process with a recipe that has frames.which = "interval"'
        )


def _window(store: Store, name: str, window: str | None) -> str:
    there = list(store.layout.windows)
    if not there:
        raise NotStoredError(
            f"{store.name} holds no flow, which {name} reads: process with a recipe that names a "
            "window in `windows`"
        )
    if window is not None and window not in there:
        raise NotStoredError(
            f"{store.name} has no flow of window {window!r}, it has {', '.join(there)}: process "
            "with a recipe that names it in `windows`"
        )
    return window or there[0]
