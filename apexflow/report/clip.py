"""One clip for a report: its pictures in a row of the table, and the page that a click opens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from apexflow.engine.regions import in_crop
from apexflow.kernels.encode import ENCODINGS, colour_wheel, flow_colours, make_maps
from apexflow.report.charts import Chart, curve
from apexflow.report.entries import Entry
from apexflow.report.pictures import Figure, Picture, Tile, fitted, jpeg_uri, png_uri
from apexflow.storage.store import Store

_THUMB_SIDE = 72
_ENCODING_SIDE = 56
_MOST_FRAMES = 48
"""Frames that a player holds: of 8 KB each, so that a page stays below half a megabyte."""
_MOST_PAIRS = 8
_ARROWS = 14
_CURVE_SIDE = 56
# Colours that are seen on a gray face.
_REGION_COLOURS = ("#56b4e9", "#f0e442", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#ffffff")


@dataclass(frozen=True, slots=True)
class ClipPictures:
    """What a clip's row shows, and the frames that its page shows.

    Attributes
    ----------
    frames : uint8 (n, height, width) or None
    motion : tuple of float
        One a frame, see `motion_curve`; empty without frames.
    """

    frames: NDArray[np.uint8] | None
    motion: tuple[float, ...]


def read_pictures(store: Store, entry: Entry) -> ClipPictures:
    """Read the frames of a finished clip, and how much moves in them."""
    if entry.record is None or not entry.record.done or not store.layout.keep_frames:
        return ClipPictures(None, ())
    frames = store.frames(entry.record)
    return ClipPictures(frames, motion_curve(frames))


def motion_curve(frames: NDArray[np.uint8]) -> tuple[float, ...]:
    """Return how far each aligned frame is from the first, in gray levels.

    The mean absolute difference of frames reduced to 56 px, which takes out noise, each less
    its mean, which takes out the light: what the face does, as far as it is still.
    """
    small = np.stack([fitted(frame, _CURVE_SIDE) for frame in frames]).astype(np.float32)
    small -= small.mean(axis=(1, 2), keepdims=True)
    return tuple(np.abs(small - small[0]).mean(axis=(1, 2)).tolist())


def thumbnail(store: Store, entry: Entry, pictures: ClipPictures) -> Picture | None:
    """Return onset, apex and the first map side by side: uint8 RGB; None where there are none."""
    record = entry.record
    assert record is not None
    tiles = []
    if pictures.frames is not None:
        for name in ("onset", "apex"):
            at = _position(entry, name)
            tiles.append(_square(pictures.frames[len(pictures.frames) // 2 if at is None else at]))
    for name in list(store.layout.maps)[:1]:
        maps = store.read(f"maps/{name}", entry.index, record)
        tiles.append(_square(maps.reshape(-1, *maps.shape[-3:])[0]))
    return np.concatenate(tiles, axis=1) if tiles else None


def thumbnail_text(store: Store) -> str:
    """Say what `thumbnail` shows."""
    parts = ["onset", "apex"] if store.layout.keep_frames else []
    return ", ".join([*parts, *(f"{name} map" for name in list(store.layout.maps)[:1])])


def facts(entry: Entry) -> list[tuple[str, str]]:
    """Return what is known of a clip, as names and values."""
    record = entry.record
    rows = [
        ("person", entry.person),
        ("class", entry.class_name),
        ("status", entry.status + (", no longer in the catalog" if entry.gone else "")),
        ("flags", entry.flags),
        ("reason", entry.reason),
        *((name, str(number)) for name, number in entry.key_frames.items()),
    ]
    if record is not None and record.done:
        rows += [
            ("apex is", record.apex_source),
            ("frames", str(len(record.frame_numbers))),
            ("template frame", str(record.template_frame)),
            ("lowest score", _figure(entry.lowest_score)),
            ("largest shift", _figure(entry.largest_shift) + " px of the frame"),
            ("face's box", ", ".join(f"{value:.0f}" for value in record.box) + " px"),
            ("computed on", record.device),
        ]
    return [(name, value) for name, value in rows if value]


def player(entry: Entry, pictures: ClipPictures) -> dict[str, Any] | None:
    """Return what the player needs: frame numbers, pictures, key frames; None without frames."""
    if pictures.frames is None or entry.record is None:
        return None
    numbers = entry.record.frame_numbers
    keys = {at for name in entry.key_frames if (at := _position(entry, name)) is not None}
    step = max(1, -(-len(numbers) // _MOST_FRAMES))
    shown = sorted({*range(0, len(numbers), step), *keys})
    return {
        "numbers": [numbers[i] for i in shown],
        "pictures": [jpeg_uri(fitted(pictures.frames[i], 224)) for i in shown],
        "names": {str(number): name for name, number in entry.key_frames.items()},
        "left_out": len(numbers) - len(shown),
    }


def charts(entry: Entry, pictures: ClipPictures) -> list[Chart]:
    """Return score, shift and motion over the frames of a finished clip."""
    record = entry.record
    if record is None or not record.done or not record.frame_numbers:
        return []
    numbers, marks = record.frame_numbers, entry.key_frames
    found = []
    if record.score:
        found.append(
            Chart(
                "Score",
                "Correlation of each frame with the template frame, 1 where they are equal.",
                "flat and close to 1.",
                "a step or a slope down: the head turned, something covers it, or it was lost.",
                curve(numbers, np.nan_to_num(record.score).tolist(), marks, "score of each frame"),
            )
        )
    if record.shift:
        lengths = np.nan_to_num(np.hypot(*np.asarray(record.shift).T)).tolist()
        found.append(
            Chart(
                "Shift of the head",
                "How far the head is from where the template frame has it, px of the frame.",
                "smooth: heads are slow.",
                "single spikes: that frame was not aligned where its neighbours were.",
                curve(numbers, lengths, marks, "shift of each frame"),
            )
        )
    if pictures.motion:
        found.append(
            Chart(
                "Motion",
                "Mean difference of each aligned frame from the first, gray levels.",
                "a rise from onset to apex and a fall to the offset.",
                "a maximum far from the apex, a slope that never ends (light, or a head that "
                "turns), short spikes (blinks).",
                curve(numbers, pictures.motion, marks, "motion of each frame"),
            )
        )
    return found


def figures(store: Store, entry: Entry, pictures: ClipPictures) -> Iterator[Figure]:
    """Yield regions, flow, stored maps and every encoding of a finished clip."""
    if entry.record is None or not entry.record.done:
        return
    if (regions := _regions(store, entry, pictures)) is not None:
        yield regions
    for window in store.layout.windows:
        yield _flow(store, entry, pictures, window)
    for name in store.layout.maps:
        yield _maps(store, entry, name)
    if store.layout.windows:
        yield _encodings(store, entry)


def _regions(store: Store, entry: Entry, pictures: ClipPictures) -> Figure | None:
    record, layout = entry.record, store.layout
    assert record is not None
    if pictures.frames is None or not layout.region_boxes:
        return None
    crop = pictures.frames[record.frame_numbers.index(record.template_frame)]
    height, width = crop.shape
    x0, y0, x1, y1 = record.box
    boxes = in_crop(record.roi_box, (x0, y0, x1, y1), (height, width))
    shapes = Markup().join(
        Markup('<rect x="{}" y="{}" width="{}" height="{}" stroke="{}"/>').format(
            *(round(v, 1) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])),
            _REGION_COLOURS[i % len(_REGION_COLOURS)],
        )
        + Markup('<text x="{}" y="{}" fill="{}">{}</text>').format(
            round(box[0] + 2, 1),
            round(box[1] + 9, 1),
            _REGION_COLOURS[i % len(_REGION_COLOURS)],
            name,
        )
        for i, (name, box) in enumerate(zip(layout.region_boxes, boxes, strict=True))
    )
    own = f"; with flow of their own: {', '.join(layout.regions)}" if layout.regions else ""
    tile = Tile(
        f"template frame {record.template_frame}",
        jpeg_uri(crop),
        f"the face with boxes around {', '.join(layout.region_boxes)}",
        overlay=_svg("regions", width, height, shapes),
    )
    return Figure(
        "Regions",
        "Placed by the template frame's landmarks where there are any, else by parts of the box"
        f"{own}.",
        "each box holds the part that it is named after.",
        "boxes beside their parts: the landmarks are wrong, and the flow is another part's.",
        ((tile,),),
    )


def _flow(store: Store, entry: Entry, pictures: ClipPictures, window: str) -> Figure:
    assert entry.record is not None
    flow = store.read(f"flow/{window}", entry.index, entry.record).astype(np.float32)
    pairs = flow.reshape(-1, *flow.shape[-3:])[:_MOST_PAIRS]
    longest = _longest(pairs)
    ends = entry.record.pairs.get(window, ())
    rows = []
    for i, one in enumerate(pairs):
        name = f"{ends[i][0]} to {ends[i][1]}" if i < len(ends) else window
        tiles = [Tile(name, png_uri(flow_colours(one, longest)), f"flow from frame {name}")]
        under = _frame(entry, pictures, ends[i][0] if i < len(ends) else None)
        if under is not None:
            tiles.append(
                Tile("arrows", jpeg_uri(under), f"flow {name} as arrows", overlay=_arrows(one))
            )
        rows.append(tuple(tiles))
    wheel = Tile(f"rim: {longest:.2g} px", png_uri(colour_wheel(112)), "colour wheel: direction")
    rows[:1] = [(*rows[0], wheel)] if rows else []
    return Figure(
        f"Flow {window}",
        f"Colour is direction, saturation length: at the wheel's rim {longest:.2g} px of the crop"
        f"{', white where nothing moves' if rows else ''}. Arrows are drawn "
        f"{_stretch(pairs):.0f} times as long as the motion.",
        "coloured patches where the expression is (brows, eyes, mouth), white elsewhere.",
        "one colour over the whole face: the head's motion is left; speckles: noise.",
        tuple(rows),
    )


def _maps(store: Store, entry: Entry, name: str) -> Figure:
    """Show a clip's stored map: frame pairs below each other, regions side by side."""
    assert entry.record is not None
    maps = store.read(f"maps/{name}", entry.index, entry.record)
    layout = store.layout.maps[name]
    parts = list(store.layout.regions) if layout.regions else [""]
    by_pair = maps.reshape(-1, len(parts), *maps.shape[-3:])[:_MOST_PAIRS]
    rows = tuple(
        tuple(
            Tile(part or f"pair {i + 1}", png_uri(image), f"map {name} {part}".strip(), True)
            for part, image in zip(parts, pair, strict=True)
        )
        for i, pair in enumerate(by_pair)
    )
    height, width = layout.size
    return Figure(
        f"Map {name}",
        f"As a network gets it: {height}×{width} px, from the flow {layout.window}.",
        "the same parts stand out as in the flow.",
        "all of one colour, or black: there was no motion to encode.",
        rows,
    )


def _encodings(store: Store, entry: Entry) -> Figure:
    assert entry.record is not None
    window = next(iter(store.layout.windows))
    flow = store.read(f"flow/{window}", entry.index, entry.record)
    first = flow.reshape(-1, *flow.shape[-3:])[0]
    side = (_ENCODING_SIDE, _ENCODING_SIDE)
    tiles = tuple(
        Tile(name, png_uri(make_maps(first, name, size=side)), f"the flow as {name}", True)
        for name in ENCODINGS
    )
    return Figure(
        "Every encoding",
        f"The flow {window} encoded when it is read, each with its own default scale.",
        "the expression can be told in each.",
        "an encoding in which it cannot: choose another for training.",
        (tiles,),
    )


def _arrows(flow: NDArray[np.float32]) -> Markup:
    """Return arrows over a frame, longer than the motion so that they are seen."""
    height, width = flow.shape[-2:]
    step, stretch = max(1, width // _ARROWS), _stretch(flow[None])
    arrows = []
    for y in range(step // 2, height, step):
        for x in range(step // 2, width, step):
            u, v = (float(value) * stretch for value in np.nan_to_num(flow[:, y, x]))
            if np.hypot(u, v) >= 1:
                arrow = f"M{x} {y}l{u:.1f} {v:.1f}"
                arrows.append(Markup('<path d="{}" marker-end="url(#arrow)"/>').format(arrow))
    return _svg("arrows", width, height, Markup().join(arrows))


def _stretch(pairs: NDArray[np.float32]) -> float:
    """Return how much longer than the motion arrows are drawn: the longest is two steps."""
    return float(max(1.0, round(2 * pairs.shape[-1] / _ARROWS / _longest(pairs))))


def _longest(pairs: NDArray[np.float32]) -> float:
    """Return the length that has the full colour: of all but the longest hundredth."""
    lengths = np.nan_to_num(np.hypot(pairs[:, 0], pairs[:, 1]))
    return max(float(np.percentile(lengths, 99)), 0.01) if lengths.size else 1.0


def _svg(kind: str, width: int, height: int, inside: Markup) -> Markup:
    return Markup('<svg class="{}" viewBox="0 0 {} {}" aria-hidden="true">{}</svg>').format(
        kind, width, height, inside
    )


def _position(entry: Entry, key_frame: str) -> int | None:
    """Return where a key frame stands among the stored frames."""
    numbers: Sequence[int] = () if entry.record is None else entry.record.frame_numbers
    number = entry.key_frames.get(key_frame)
    return numbers.index(number) if number in numbers else None


def _frame(entry: Entry, pictures: ClipPictures, number: int | None) -> Picture | None:
    numbers = () if entry.record is None else entry.record.frame_numbers
    if pictures.frames is None or number not in numbers:
        return None
    return pictures.frames[numbers.index(number)]


def _square(image: Picture) -> Picture:
    rgb = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image
    inside = fitted(rgb, _THUMB_SIDE)
    tile = np.full((_THUMB_SIDE, _THUMB_SIDE, 3), 255, np.uint8)
    tile[: inside.shape[0], : inside.shape[1]] = inside
    return tile


def _figure(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3g}"
