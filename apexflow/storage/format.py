"""Format 1 of the store: names, types and shapes, in one place.

A store is a Zarr v3 group, plain enough to open without apexflow::

    store.zarr/         attributes: format, recipe, recipe_hash, layout, versions, …
      clips/            one array a column, one row a clip
      frames/           image, frame_number, shift, rotation, scale, score: clip after clip
                        along axis 0
      interpolated/     image (clip, position, y, x), frame_number (clip, position): the interval
                        as so many frames, where the recipe asks for them
      flow/<window>     (clip, 2, y, x), pixels of the crop
      confidence/<window>  (clip, y, x), 0 to 1: how sure that flow is; where the recipe keeps it
      roi/<window>      (clip, region, 2, y, x), the same of each region of the face
      maps/<name>       (clip, y, x, 3), uint8 RGB; of regions (clip, region, y, x, 3)
      features/<name>   (clip, feature), float32: what `apexflow features` made of another store
      clips.csv         the table again: the one chunk of this array is a plain CSV file

A window is one or more frame pairs, each with its flow. How many decides the
first axes of its arrays in ``flow``, ``confidence``, ``roi`` and ``maps``:

- one pair: ``(clip, …)``, as above;
- a fixed number of pairs: ``(clip, step, …)``;
- as many pairs as the clip is long: ``(frame, …)``. The axis is that of ``frames``: the flow
  of a pair stands in the row of the frame at which it ends. All other rows hold the
  fill value (NaN in flow and confidence, 0 in maps).

``clips/roi_box`` holds the boxes of all regions that were placed, in pixels of the template
frame. Its attribute ``regions`` names them; those that have flow of their own come first, in
the order of the region axis of ``roi``.

A clip is done when its row of ``clips/record`` says so: that one small chunk is written
last, and whole or not at all. The record holds, for each window, the frame numbers (from, to)
of its pairs, under the name ``steps``, and ends with a checksum of its own text.

Every group holds what its rows are of as coordinates of xarray's: ``dataset``, ``subject``,
``clip``, ``label`` and ``status``. Along the axis of frames they are columns of ``frames``, empty
where no frame is; in ``flow``, ``roi`` and ``maps`` they are the files of ``clips`` and ``frames``
themselves, copied, so that they cannot say anything else. Where a group has both axes, those along
``frame`` are called ``frame_clip`` and so on.

``clips/catalog`` says of each row whether the catalog of the last run had it (empty), no longer
has it (``gone``: the clip takes no part in training), or had it not and it was kept on purpose
(``kept``). ``clips/shared`` names the clip of another person that has the same frames, which no
fold is made of; it is empty of nearly all clips. ``clips/flags`` says what is doubtful about a
clip (`apexflow.quality`): empty when nothing is, and in stores of earlier versions, which lack
it. The attributes of ``clips`` hold a CRC-32C of each column (``column_digests``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from math import prod
from typing import Any

import google_crc32c

FORMAT = 1

TEXT_COLUMNS = (
    *("dataset", "subject", "clip", "source", "emotion", "action_units", "details"),
    *("person", "catalog", "shared"),
)
NUMBER_COLUMNS = ("label", "onset", "apex", "offset", "frame_start", "frame_capacity")
RESULT_TEXT_COLUMNS = ("status", "message", "apex_source", "flags")
ADDED_COLUMNS = ("person", "catalog", "shared", "flags", "sample_bits")
"""Columns that stores of earlier versions lack; a run adds them."""
RESULT_NUMBER_COLUMNS = ("frame_count", "template_frame", "apex_frame", "sample_bits")
RESULT_FLOAT_COLUMNS: Mapping[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
    "confidence": ((), ()),
    "box": ((4,), ("corner",)),
    "flow_quality": ((3,), ("flow_figure",)),
}
FRAME_FLOAT_COLUMNS: Mapping[str, tuple[tuple[int, ...], tuple[str, ...]]] = {
    "shift": ((2,), ("xy",)),
    "rotation": ((), ()),
    "scale": ((), ()),
    "score": ((), ()),
    "quality": ((9,), ("figure",)),
}
ADDED_FLOAT_COLUMNS = ("flow_quality", "quality")
"""Columns of numbers that stores of earlier versions lack; a run adds them."""
FIGURES: Mapping[str, tuple[str, ...]] = {
    "flow_quality": ("motion", "head_motion", "inconsistency"),
    "quality": (
        *("match", "covered", "similarity", "step", "contrast", "brightness", "clipped"),
        *("sharpness", "distance_to_margin"),
    ),
}
"""What the columns of quality hold, in this order: their attribute ``figures``."""
COORDINATES = ("dataset", "subject", "clip", "label", "status")
"""Columns that every group has: what a row is of."""
NO_NUMBER = -1

CSV_COLUMNS = (
    *("dataset", "subject", "clip", "status", "message", "source", "emotion", "action_units"),
    *("label", "onset", "apex", "offset", "frame_start", "frame_count", "template_frame"),
    *("apex_frame", "apex_source", *ADDED_COLUMNS),
)

UNITS: Mapping[str, str] = {
    **dict.fromkeys(("clips/onset", "clips/apex", "clips/offset"), "frame number"),
    **dict.fromkeys(("clips/template_frame", "clips/apex_frame"), "frame number"),
    **dict.fromkeys(("clips/frame_count", "clips/frame_capacity"), "frames"),
    **dict.fromkeys(("clips/box", "clips/landmarks", "clips/mesh"), "pixels of the template frame"),
    "clips/roi_box": "pixels of the template frame",
    "clips/frame_start": "row of frames",
    "clips/label": "class number",
    "clips/confidence": "1",
    "clips/sample_bits": "bits",
    "clips/timings": "s",
    "frames/image": "gray level",
    "interpolated/image": "gray level",
    "interpolated/frame_number": "frame number",
    "frames/frame_number": "frame number",
    "frames/label": "class number",
    "frames/shift": "pixels of the original frame",
    "frames/rotation": "degrees",
    "frames/scale": "1",
    "frames/score": "1",
}
"""The attribute ``units`` of arrays; of flow and regions their groups say it as well."""
MAP_UNITS = "gray level of each colour"

# Frames of one clip fill whole chunks, so that no two clips ever share one: 32 crops of
# 224x224 are 1.6 MB.
FRAME_CHUNK = 32
# Flow between frames is 16 times as large as a crop; a divisor of FRAME_CHUNK keeps the rule.
PAIR_CHUNK = 4
COLUMN_CHUNK = 1 << 14

DONE = "done"
FAILED = "failed"
PENDING = ""

LISTED, GONE, KEPT = "", "gone", "kept"
"""The column ``catalog``: whether the last run's catalog had the clip, or it was kept."""


# In the store's attributes: a window that has more frame pairs the longer the clip is.
_BY_LENGTH = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MapLayout:
    """One set of maps.

    Attributes
    ----------
    size : (height, width)
    window : str
        The window whose flow they show; "" of maps that somebody else has made.
    regions : bool
        Whether they show the flow of each region, or that of the full face.
    """

    size: tuple[int, int]
    window: str
    regions: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureLayout:
    """One set of handcrafted features.

    Attributes
    ----------
    parts : dict of axis to its labels
        What the numbers are, the last axis running fastest (`apexflow.features.Parts`).
    """

    parts: Mapping[str, Sequence[str]]

    @property
    def length(self) -> int:
        return prod(map(len, self.parts.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What a recipe makes of each clip.

    Attributes
    ----------
    crop : (height, width)
    keep_frames : bool
    windows : dict of name to int or None
        The number of frame pairs of each window; None where the clip's length decides.
    flow_dtype : "float32" or "float16"
    maps : dict of name to MapLayout
    stages : tuple of str
        The stages whose seconds are stored for each clip.
    regions : tuple of str
        The regions that have flow of their own.
    region_size : (height, width)
        The size of that flow.
    region_units : str
        What it is measured in.
    region_boxes : tuple of str
        All regions that are placed, those of ``regions`` first.
    confidence_dtype : "float16" or ""
        Of the confidence in each flow of the face; "" where none is stored.
    features : dict of name to FeatureLayout
        Of a store of features, which has no pixels.
    landmarks : int
        How many landmarks the detector gives.
    mesh : int
        How many points a mesh has; 0 without one.
    interpolated : int
        As how many frames the interval is stored beside its own; 0 is none.
    """

    crop: tuple[int, int]
    keep_frames: bool
    windows: Mapping[str, int | None]
    flow_dtype: str
    maps: Mapping[str, MapLayout]
    stages: tuple[str, ...]
    regions: tuple[str, ...] = ()
    region_size: tuple[int, int] = (0, 0)
    region_units: str = "pixels of the crop"
    region_boxes: tuple[str, ...] = ()
    confidence_dtype: str = ""
    features: Mapping[str, FeatureLayout] = field(default_factory=dict)
    landmarks: int = 5
    mesh: int = 0
    interpolated: int = 0

    def pairs(self, window: str) -> int | None:
        """Return the number of frame pairs of a window; 1 for maps of no window."""
        return self.windows[window] if window else 1

    def to_dict(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        values["windows"] = {name: n or _BY_LENGTH for name, n in self.windows.items()}
        if not self.features:
            del values["features"]
        if not self.interpolated:  # as stores had it that could not hold any
            del values["interpolated"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Layout:
        return cls(
            crop=_pair(values["crop"]),
            keep_frames=values["keep_frames"],
            windows={name: n or None for name, n in values["windows"].items()},
            flow_dtype=values["flow_dtype"],
            maps={
                name: MapLayout(**(found | {"size": _pair(found["size"])}))
                for name, found in values["maps"].items()
            },
            stages=tuple(values["stages"]),
            regions=tuple(values["regions"]),
            region_size=_pair(values["region_size"]),
            region_units=values["region_units"],
            region_boxes=tuple(values["region_boxes"]),
            confidence_dtype=values.get("confidence_dtype", ""),
            features={
                name: FeatureLayout(**found) for name, found in values.get("features", {}).items()
            },
            landmarks=values.get("landmarks", 5),  # stores of earlier versions do not say
            mesh=values.get("mesh", 0),
            interpolated=values.get("interpolated", 0),
        )


def _pair(values: Sequence[int]) -> tuple[int, int]:
    height, width = values
    return height, width


def float_columns(layout: Layout) -> dict[str, tuple[tuple[int, ...], tuple[str, ...]]]:
    """Return shape and dimensions of each column of numbers that a clip's result fills."""
    columns = dict(RESULT_FLOAT_COLUMNS)
    columns["landmarks"] = ((layout.landmarks, 2), ("landmark", "xy"))
    if layout.mesh:
        columns["mesh"] = ((layout.mesh, 3), ("mesh_point", "xyz"))
    if layout.region_boxes:
        columns["roi_box"] = ((len(layout.region_boxes), 4), ("placed_region", "corner"))
    return columns


def picture_paths(layout: Layout) -> tuple[str, ...]:
    """Return the paths of all arrays that a finished clip has a part of.

    Flow, its confidence, regions, maps, frames; features in a store of them.
    """
    groups = ["flow"]
    if layout.confidence_dtype:
        groups.append("confidence")
    if layout.regions:
        groups.append("roi")
    flows = (f"{group}/{window}" for group in groups for window in layout.windows)
    kept = ("frames/image",) if layout.keep_frames else ()
    made = ("image", "frame_number") if layout.interpolated else ()
    interpolated = (f"interpolated/{name}" for name in made)
    maps = (f"maps/{name}" for name in layout.maps)
    features = (f"features/{name}" for name in layout.features)
    return (*flows, *maps, *interpolated, *kept, *features)


def picture_dtype(layout: Layout, path: str) -> str:
    """Return the dtype of an array that a clip has a part of."""
    group = path.partition("/")[0]
    dtypes = {
        "flow": layout.flow_dtype,
        "roi": layout.flow_dtype,
        "confidence": layout.confidence_dtype,
        "features": "float32",
    }
    if path == "interpolated/frame_number":
        return "float64"
    return dtypes.get(group, "uint8")


def window_of(layout: Layout, path: str) -> str:
    """Return the window of an array of ``flow``, ``confidence``, ``roi`` or ``maps``.

    "" of interpolated frames and of features, as of maps that somebody else has made.
    """
    group, _, name = path.partition("/")
    if group in ("interpolated", "features"):
        return ""
    return layout.maps[name].window if group == "maps" else name


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
    person: str = ""
    catalog: str = LISTED
    shared: str = ""
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
    """The commit record of one clip: everything about it that is not an array.

    Attributes
    ----------
    digests : dict of array path to int
        The CRC-32C of the clip's part of each array, so that a lost or changed chunk shows.
    shift : tuple of (dx, dy)
        One a frame: how far the middle of ``box`` lies from where the template frame has it,
        in pixels of the original frame.
    rotation, scale : tuple of float
        One a frame: the head's rotation about that point in degrees, clockwise as seen, and
        its enlargement, both against the template frame; 0 and 1 where only the shift was
        looked for.
    apex_frame, apex_source : int, str
        The frame that served as the apex, and how it is known: "annotated", "middle",
        "difference" or "flow". `NO_NUMBER` and "" when no apex was needed or known.
    apex_confidence : float or None
        How sure an estimated apex is, 0 to 1 (`apexflow.engine.clip.apex.ApexEstimate`); None
        when it was not estimated.
    pairs : dict of window to tuple of (from, to)
        The frame numbers that each flow was computed between.
    roi_box : tuple of (x0, y0, x1, y1)
        One a region of `Layout.region_boxes`, in pixels of the template frame.
    device, face_device, decode_device : str
        What computed the clip, found its face, and decoded its frames: "cpu" or the name of a
        GPU; "" in records of older stores.
    flow_quality : tuple of float
        The figures of `FIGURES` of the clip's flow; empty in records of older stores.
    quality : tuple of tuple of float or None
        Those of each frame; None where a figure says nothing.
    flags : str
        What is doubtful about the clip, as `apexflow.quality.format_flags` writes it.
    sample_bits : int
        Bits of a sample in the files, which all frames of the clip were scaled from to 8: by the
        range that their values use, where a camera stores 10, 12 or 14 bits in 16. `NO_NUMBER` in
        records of older stores.
    frames : str
        SHA-256 of sizes and times of the files that were read, whatever the clip is called and
        however it is annotated; "" in records of older stores.
    versions : dict of package to str
        Those that changed pixels here and differ from what the store was made with.
    frame_rate : float or None
        Frames a second; None where nobody says, and in records of older stores.
    magnification : dict
        What magnification found: ``motion`` in px, with ``levels`` (wavelength in px and alpha of
        each) or ``folded``; empty where there was none.
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
    rotation: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    score: tuple[float, ...] = ()
    template_frame: int = NO_NUMBER
    apex_frame: int = NO_NUMBER
    apex_source: str = ""
    apex_confidence: float | None = None
    box: tuple[float, ...] = ()
    landmarks: tuple[tuple[float, float], ...] = ()
    mesh: tuple[tuple[float, float, float], ...] = ()
    confidence: float | None = None
    pairs: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    roi_box: tuple[tuple[float, float, float, float], ...] = ()
    digests: Mapping[str, int] = field(default_factory=dict)
    device: str = ""
    face_device: str = ""
    decode_device: str = ""
    sample_bits: int = NO_NUMBER
    flow_quality: tuple[float, ...] = ()
    quality: tuple[tuple[float | None, ...], ...] = ()
    flags: str = ""
    frames: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    frame_rate: float | None = None
    magnification: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, str]:
        return self.dataset, self.subject, self.clip

    @property
    def done(self) -> bool:
        return self.status == DONE

    @property
    def failed(self) -> bool:
        return self.status == FAILED

    @property
    def identity(self) -> str:
        """The frames as files and as pixels: equal only of the same frames; "" when unknown."""
        if not self.frames:
            return ""
        crops = self.digests.get("frames/image")
        pixels = [crops] if crops is not None else sorted(self.digests.items())
        return f"{self.frames}:{pixels}"

    def pair_rows(self, window: str) -> list[int]:
        """Return the rows of the frame axis at which the frame pairs of a window end."""
        rows = {number: self.frame_start + i for i, number in enumerate(self.frame_numbers)}
        return [rows[end] for _, end in self.pairs[window]]

    def to_json(self) -> str:
        names = {part.name: "steps" if part.name == "pairs" else part.name for part in fields(self)}
        values = {written: getattr(self, name) for name, written in names.items()}
        for name in _ONLY_WHEN_THERE:
            if values[name] in _NOTHING:
                del values[name]
        return json.dumps(
            values | {"steps": dict(self.pairs), "digests": dict(self.digests)}, ensure_ascii=False
        )

    @classmethod
    def from_json(cls, text: str) -> ClipRecord:
        """Read what `to_json` gave, with or without the `sealed` checksum.

        Raises `ValueError`, `KeyError` or `TypeError` when it is not a record.
        """
        values = json.loads(_unsealed(text))
        for name in ("frame_numbers", "files", "rotation", "scale", "score", "box"):
            values[name] = tuple(values[name])
        for name in ("shift", "landmarks", "roi_box"):
            values[name] = tuple(map(tuple, values[name]))
        for name in ("quality", "mesh"):
            values[name] = tuple(map(tuple, values.get(name, ())))
        values["flow_quality"] = tuple(values.get("flow_quality", ()))
        values["pairs"] = {
            window: tuple(map(tuple, pairs)) for window, pairs in values.pop("steps").items()
        }
        return cls(**values)


_ONLY_WHEN_THERE = (
    *("apex_confidence", "mesh", "flow_quality", "quality", "flags", "frames", "versions"),
    *("frame_rate", "magnification"),
)
_NOTHING: tuple[Any, ...] = (None, "", (), {})
_SEAL = re.compile(r', "crc32c": (\d+)\}$')


def sealed(text: str) -> str:
    """Return a record's JSON with the CRC-32C of itself as its last entry."""
    return f'{text[:-1]}, "crc32c": {google_crc32c.value(text.encode())}}}'


def _unsealed(text: str) -> str:
    """Return the JSON that was sealed; records of older stores bear no checksum."""
    found = _SEAL.search(text)
    if found is None:
        return text
    bare = text[: found.start()] + "}"
    if google_crc32c.value(bare.encode()) != int(found[1]):
        raise ValueError("its checksum is that of another text")
    return bare
