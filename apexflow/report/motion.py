"""The figures that show motion: alignments compared, regions, every encoding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.catalog import Clip
from apexflow.engine.recipe import Recipe
from apexflow.engine.regions import in_crop
from apexflow.errors import ClipError
from apexflow.kernels.encode import ENCODINGS, make_maps
from apexflow.report.compare import PER_FRAME, RECIPE, WHOLE_PIXELS, AlignedPair, compare_alignments
from apexflow.report.figures import Clips, Figure, Picture, grid, labelled, png, spread
from apexflow.storage.format import NO_NUMBER, ClipRecord
from apexflow.storage.store import Store

# Flow of this length is white: px of the crop, about what a micro-expression moves.
_WHITE = 2.0
# What is seen best on a gray face; the names are written in the same colour (RGB).
_COLOURS = (
    *((86, 180, 233), (240, 228, 66), (213, 94, 0), (0, 158, 115)),
    *((204, 121, 167), (230, 159, 0), (255, 255, 255)),
)


def alignments(
    store: Store, clips: Clips, root: Path, *, stills: Sequence[NDArray[np.bool_]] = ()
) -> Figure | None:
    """Show what moves between onset and apex by three ways of alignment.

    Parameters
    ----------
    store : Store
    clips : sequence of (row, record)
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
    masks = dict(zip((index for index, _ in clips), stills, strict=False))
    measured = []
    for index, record in spread(clips, 4):
        try:
            pairs = compare_alignments(
                _clip(store, index, record, root),
                Recipe.from_dict(store.attributes["recipe"]),
                still=masks.get(index),
            )
        except ClipError:
            continue
        measured.append((record, pairs))
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
        f"{_WHITE:g} px of the crop) by three ways of alignment: clip {'/'.join(shown.key)}. The "
        f"median flow {where}, mean of {len(measured)} clips: {said}.",
        png(grid([tile for pair in pairs for tile in _row(pair)], 4)),
    )


def regions(store: Store, clips: Clips) -> Figure | None:
    """Show where the regions were placed, in the template frame of some clips."""
    layout = store.layout
    if not layout.keep_frames or not layout.region_boxes:
        return None
    tiles = []
    for _, record in spread(clips, 4):
        row = record.frame_numbers.index(record.template_frame)
        crop = store.frames(record)[row]
        boxes = in_crop(record.roi_box, _corners(record), crop.shape[:2])
        drawn = _drawn(crop, layout.region_boxes, boxes)
        tiles.append(labelled(drawn, "/".join(record.key[1:])))
    own = f"; with flow of their own: {', '.join(layout.regions)}" if layout.regions else ""
    placed = "by the template frame's landmarks where there are any, else by parts of the box"
    return Figure("Regions", f"Placed {placed}{own}.", png(grid(tiles, 4)))


def encodings(store: Store, clips: Clips) -> Figure | None:
    """Show one clip's stored flow in every encoding."""
    layout = store.layout
    windows = [name for name, pairs in layout.windows.items() if pairs is not None]
    if not windows:
        return None
    index, record = clips[len(clips) // 2]
    flow = store.read(f"flow/{windows[0]}", index, record)
    first = flow if flow.ndim == 3 else flow[0]
    side = 168
    tiles = [labelled(make_maps(first, name, size=(side, side)), name) for name in ENCODINGS]
    return Figure(
        "Encodings",
        f"The flow {windows[0]} of clip {'/'.join(record.key)}, encoded as it is read from the "
        f"store, each with its own default scale.",
        png(grid(tiles, len(tiles))),
    )


def _clip(store: Store, index: int, record: ClipRecord, root: Path) -> Clip:
    onset, apex = int(store.column("onset")[index]), record.apex_frame
    return Clip(
        dataset=record.dataset,
        subject=record.subject,
        name=record.clip,
        root=root,
        source=str(store.column("source")[index]),
        onset=None if onset == NO_NUMBER else onset,
        apex=None if apex == NO_NUMBER else apex,
    )


def _corners(record: ClipRecord) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = record.box
    return x0, y0, x1, y1


def _row(pair: AlignedPair) -> list[Picture]:
    changed = np.minimum(pair.difference.astype(np.int32) * 4, 255).astype(np.uint8)
    length = np.hypot(*pair.flow) * (255 / _WHITE)
    flow = np.minimum(length, 255).astype(np.uint8)
    return [
        labelled(pair.onset, _lower(pair.name)),
        labelled(pair.apex, "apex"),
        labelled(changed, "difference"),
        labelled(flow, f"flow; where still {pair.false_motion:.3f} px"),
    ]


def _lower(name: str) -> str:
    return name[0].lower() + name[1:]


def _drawn(
    crop: Picture, names: Sequence[str], boxes: Sequence[tuple[float, float, float, float]]
) -> Picture:
    picture = cv2.cvtColor(crop, cv2.COLOR_GRAY2RGB)
    for i, (name, box) in enumerate(zip(names, boxes, strict=True)):
        x0, y0, x1, y1 = (round(value) for value in box)
        colour = _COLOURS[i % len(_COLOURS)]
        cv2.rectangle(picture, (x0, y0), (x1 - 1, y1 - 1), colour, 1)
        cv2.putText(picture, name, (x0 + 2, y0 + 9), cv2.FONT_HERSHEY_SIMPLEX, 0.32, colour, 1)
    return picture
