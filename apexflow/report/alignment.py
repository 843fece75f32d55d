"""What alignment did: two frames before and after it, and the motion that should not be there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.catalog import Clip
from apexflow.datasets.sources import open_frames
from apexflow.engine.clip.faces import make_detector
from apexflow.engine.recipe import Recipe
from apexflow.errors import ClipError
from apexflow.report.compare import PER_FRAME, RECIPE, WHOLE_PIXELS, AlignedPair, compare_alignments
from apexflow.report.entries import Entry
from apexflow.report.pictures import Figure, Picture, Tile, jpeg_uri
from apexflow.storage.store import Store

# The published workflow shows pixels that differ by more than 10 gray levels.
DIFFERENCE_THRESHOLD = 10
# Flow of this length is white: px of the crop, about what a micro-expression moves.
_WHITE = 2.0
_MEASURED_CLIPS = 4


def before_and_after(store: Store, entries: Sequence[Entry], root: Path | None) -> Figure | None:
    """Show what differs between two frames, by per-frame detection and after alignment.

    Of the clip whose head moves most. The row before alignment needs the data set's folder.
    None when the store keeps no frames.
    """
    if not store.layout.keep_frames or not entries:
        return None
    entry = max(entries, key=lambda one: one.largest_shift or 0.0)
    record = entry.record
    assert record is not None
    crops = store.frames(record)
    template = record.frame_numbers.index(record.template_frame)
    moved = int(np.argmax(np.nan_to_num(np.hypot(*np.asarray(record.shift).T))))
    numbers = record.frame_numbers[template], record.frame_numbers[moved]
    before = None if root is None else _detected_crops(store, entry, root, numbers)
    rows = [] if before is None else [_difference_row("face found in each frame", *before)]
    rows.append(_difference_row("aligned", crops[template], crops[moved]))
    x, y = record.shift[moved]
    return Figure(
        "Before and after alignment",
        f"Frames {numbers[0]} and {numbers[1]} of {entry.name}, between which the head moves most "
        f"of all clips, by ({x:.1f}, {y:.1f}) px, and where they differ by more than "
        f"{DIFFERENCE_THRESHOLD} gray levels.",
        "in the last row the outline of the face is dark; what is white is the expression.",
        "contours of the whole face in the last row: the head was not followed.",
        tuple(rows),
    )


def false_motion(
    store: Store,
    entries: Sequence[Entry],
    root: Path,
    *,
    stills: Sequence[NDArray[np.bool_]] = (),
) -> Figure | None:
    """Show what moves between onset and apex by three ways of alignment.

    Parameters
    ----------
    store : Store
    entries : sequence of Entry
        The finished clips; up to four are measured, the last of them is shown.
    root : path
        The data set's folder.
    stills : sequence of (height, width) bool
        For each clip what is truly still in the crop of its onset; nose and forehead otherwise.

    Returns
    -------
    Figure or None
        None when the frames cannot be read, or no onset and apex is known.
    """
    masks = dict(zip((entry.index for entry in entries), stills, strict=False))
    recipe = Recipe.from_dict(store.attributes["recipe"])
    measured = []
    for entry in spread(entries, _MEASURED_CLIPS):
        try:
            clip, still = _clip(store, entry, root), masks.get(entry.index)
            measured.append((entry, compare_alignments(clip, recipe, still=still)))
        except ClipError:
            continue
    if not measured:
        return None
    shown, pairs = measured[-1]
    means = {
        name: float(
            np.mean(
                [one.false_motion for _, found in measured for one in found if one.name == name]
            )
        )
        for name in (PER_FRAME, WHOLE_PIXELS, RECIPE)
    }
    where = "where the expression moves nothing" if stills else "over nose and forehead"
    said = ", ".join(f"{value:.3f} px by {_lower(name)}" for name, value in means.items())
    return Figure(
        "False motion",
        f"Onset, apex, their difference (four times as strong) and the length of the flow (white: "
        f"{_WHITE:g} px of the crop) by three ways of alignment: clip {shown.name}. The "
        f"median flow {where}, mean of {len(measured)} clips: {said}.",
        "the last row is dark but where the expression is, and its figure the smallest.",
        "a gray veil over the whole face: that motion is the head's, and a network would learn it.",
        tuple(_row(pair) for pair in pairs),
    )


def spread(entries: Sequence[Entry], count: int) -> Sequence[Entry]:
    """Return at most ``count`` entries, evenly spread over the store."""
    if len(entries) <= count:
        return entries
    return [entries[i * len(entries) // count] for i in range(count)]


def _detected_crops(
    store: Store, entry: Entry, root: Path, numbers: tuple[int, int]
) -> tuple[Picture, Picture] | None:
    """Crop each frame at a box of its own, as a detector run on every frame does."""
    recipe = Recipe.from_dict(store.attributes["recipe"])
    detector = make_detector(recipe.face)
    height, width = store.layout.crop
    crops = []
    try:
        frames = open_frames(_clip(store, entry, root))
        for number in numbers:
            (image,) = frames.read([number], color=False)
            x0, y0, x1, y1 = (max(0, int(value)) for value in detector.detect(image).box)
            crops.append(cv2.resize(image[y0:y1, x0:x1], (width, height)))
    except ClipError:
        return None
    return crops[0], crops[1]


def _difference_row(how: str, first: Picture, second: Picture) -> tuple[Tile, ...]:
    changed = (cv2.absdiff(first, second) > DIFFERENCE_THRESHOLD) * np.uint8(255)
    share = f"{100 * np.count_nonzero(changed) / changed.size:.1f}% differ"
    return (
        Tile(f"template frame, {how}", jpeg_uri(first), f"the face in the template frame, {how}"),
        Tile("another frame", jpeg_uri(second), f"the face in another frame, {how}"),
        Tile(share, jpeg_uri(changed), f"white where the two differ: {share}"),
    )


def _row(pair: AlignedPair) -> tuple[Tile, ...]:
    changed = np.minimum(pair.difference.astype(np.int32) * 4, 255).astype(np.uint8)
    flow = np.minimum(np.hypot(*pair.flow) * (255 / _WHITE), 255).astype(np.uint8)
    how = _lower(pair.name)
    said = f"flow; where still {pair.false_motion:.3f} px"
    return (
        Tile(how, jpeg_uri(pair.onset), f"the face at the onset, {how}"),
        Tile("apex", jpeg_uri(pair.apex), f"the face at the apex, {how}"),
        Tile("difference", jpeg_uri(changed), f"difference of onset and apex, {how}"),
        Tile(said, jpeg_uri(flow), f"length of the {said}, {how}"),
    )


def _clip(store: Store, entry: Entry, root: Path) -> Clip:
    dataset, subject, name = entry.key
    return Clip(
        dataset=dataset,
        subject=subject,
        name=name,
        root=root,
        source=str(store.column("source")[entry.index]),
        onset=entry.key_frames.get("onset"),
        apex=entry.key_frames.get("apex"),
    )


def _lower(name: str) -> str:
    return name[0].lower() + name[1:]
