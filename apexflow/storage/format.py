"""Format 1 of the store: names, types and shapes, in one place.

A store is a Zarr v3 group, plain enough to open without apexflow::

    store.zarr/         attributes: format, recipe, recipe_hash, versions, …
      clips/            one array a column, one row a clip
      frames/           image, shift, score, frame_number: clip after clip along axis 0
      flow/<window>     (clip, 2, y, x), pixels of the crop
      maps/<name>       (clip, y, x, 3), uint8 RGB
      clips.csv         the table again: the one chunk of this array is a plain CSV file

A clip is done when its row of ``clips/record`` says so: that one small chunk is written
last, and whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

FORMAT = 1

TEXT_COLUMNS = ("dataset", "subject", "clip", "source", "emotion", "action_units", "details")
NUMBER_COLUMNS = ("label", "onset", "apex", "offset", "frame_start", "frame_capacity")
RESULT_TEXT_COLUMNS = ("status", "message")
RESULT_NUMBER_COLUMNS = ("frame_count", "template_frame")
RESULT_FLOAT_COLUMNS: Mapping[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
    "confidence": ((), ()),
    "box": ((4,), ("corner",)),
    "landmarks": ((5, 2), ("landmark", "xy")),
}
NO_NUMBER = -1

CSV_COLUMNS = (
    *("dataset", "subject", "clip", "status", "message", "source", "emotion", "action_units"),
    *("label", "onset", "apex", "offset", "frame_start", "frame_count", "template_frame"),
)

# Frames of one clip fill whole chunks, so that no two clips ever share one: 32 crops of
# 224x224 are 1.6 MB.
FRAME_CHUNK = 32
COLUMN_CHUNK = 1 << 14

DONE = "done"
FAILED = "failed"
PENDING = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a recipe makes of each clip.

    Attributes
    ----------
    crop : (height, width)
    keep_frames : bool
    windows : tuple of str
    flow_dtype : "float32" or "float16"
    maps : dict of name to (height, width)
    stages : tuple of str
        The stages whose seconds are stored for each clip.
    """

    crop: tuple[int, int]
    keep_frames: bool
    windows: tuple[str, ...]
    flow_dtype: str
    maps: Mapping[str, tuple[int, int]]
    stages: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Layout:
        height, width = values["crop"]
        return cls(
            crop=(height, width),
            keep_frames=values["keep_frames"],
            windows=tuple(values["windows"]),
            flow_dtype=values["flow_dtype"],
            maps={name: (h, w) for name, (h, w) in values["maps"].items()},
            stages=tuple(values["stages"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRow:
    """One clip as annotated, and the most frames that it can fill."""

    dataset: str
    subject: str
    clip: str
    source: str = ""
    emotion: str = ""
    action_units: str = ""
    details: str = ""
    label: int = NO_NUMBER
    onset: int = NO_NUMBER
    apex: int = NO_NUMBER
    offset: int = NO_NUMBER
    frame_capacity: int = 0

    @property
    def key(self) -> tuple[str, str, str]:
        return self.dataset, self.subject, self.clip


@dataclass(frozen=True, slots=True)
class Slot:
    """The rows of the store that belong to one clip alone."""

    index: int
    frame_start: int
    frame_capacity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRecord:
    """The commit record of one clip: everything about it that is no array.

    ``digests`` holds the CRC-32C of each array's part, so that a lost or changed chunk shows.
    ``shift`` is (dx, dy) in pixels of the original frame, against ``template_frame``.
    """

    dataset: str
    subject: str
    clip: str
    status: str
    message: str = ""
    fingerprint: str = ""
    frame_start: int = 0
    frame_numbers: tuple[int, ...] = ()
    files: tuple[str, ...] = ()
    shift: tuple[tuple[float, float], ...] = ()
    score: tuple[float, ...] = ()
    template_frame: int = NO_NUMBER
    box: tuple[float, ...] = ()
    landmarks: tuple[tuple[float, float], ...] = ()
    confidence: float | None = None
    digests: Mapping[str, int] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        return self.dataset, self.subject, self.clip

    @property
    def done(self) -> bool:
        return self.status == DONE

    def to_json(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> ClipRecord:
        values = json.loads(text)
        for name in ("frame_numbers", "files", "score", "box"):
            values[name] = tuple(values[name])
        for name in ("shift", "landmarks"):
            values[name] = tuple((x, y) for x, y in values[name])
        return cls(**values)
