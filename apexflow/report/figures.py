"""The figures of a report, each one picture from a store."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.catalog import Clip
from apexflow.datasets.sources import open_frames
from apexflow.engine.clip.faces import make_detector
from apexflow.engine.recipe import Recipe
from apexflow.errors import ClipError
from apexflow.storage.export import GIF_SECONDS_PER_FRAME
from apexflow.storage.format import ClipRecord
from apexflow.storage.store import Store

# The published workflow shows pixels that differ by more than 10 gray levels.
DIFFERENCE_THRESHOLD = 10
MOST_FIRST_FRAMES = 96
_MOST_PAIRS = 8

Picture = NDArray[np.uint8]
Clips = Sequence[tuple[int, ClipRecord]]


@dataclass(frozen=True, slots=True)
class Figure:
    """A picture as a data URI, with its title and what it shows."""

    title: str
    caption: str
    uri: str


def alignment(store: Store, clips: Clips, root: Path | None) -> list[Figure]:
    """Show what differs between two frames, by per-frame detection and after alignment."""
    _, record = max(clips, key=lambda clip: _largest_shift(clip[1]))
    crops = store.frames(record)
    template = record.frame_numbers.index(record.template_frame)
    moved = int(np.argmax(np.hypot(*np.asarray(record.shift).T)))
    numbers = record.frame_numbers[template], record.frame_numbers[moved]
    shift = record.shift[moved]
    what = f"clip {'/'.join(record.key)}, frames {numbers[0]} and {numbers[1]}"
    found = []
    if root is not None:
        before = _detected_crops(store, record, root, numbers)
        if before is not None:
            found.append(
                Figure(
                    "Before alignment",
                    f"The two frames, each cropped at its own detected box, and where they differ "
                    f"by more than {DIFFERENCE_THRESHOLD} gray levels: {what}.",
                    png(_difference_row(*before)),
                )
            )
    found.append(
        Figure(
            "After alignment",
            f"The same crops aligned by template matching; the head had moved by "
            f"({shift[0]:.1f}, {shift[1]:.1f}) px: {what}.",
            png(_difference_row(crops[template], crops[moved])),
        )
    )
    return found


def first_frames(store: Store, clips: Clips) -> Figure:
    """Show the first aligned frame of every clip in one grid."""
    shown = spread(clips, MOST_FIRST_FRAMES)
    tiles = [
        labelled(_small(store.frames(record)[0], 112), "/".join(record.key[1:]))
        for _, record in shown
    ]
    return Figure(
        "First frame of each clip",
        f"{len(shown)} of {len(clips)} clips. The framing should be the same throughout.",
        png(grid(tiles, 8)),
    )


def key_frames(store: Store, clips: Clips) -> Figure:
    """Show onset, apex and offset of some clips, a row each."""
    rows = []
    for index, record in spread(clips, 4):
        crops = store.frames(record)
        tiles = [
            labelled(
                crops[record.frame_numbers.index(number)], f"{record.clip} {key_frame} {number}"
            )
            for key_frame, number in _key_frames(store, index).items()
            if number in record.frame_numbers
        ]
        rows.append(grid(tiles, 3))
    width = max(row.shape[1] for row in rows)
    padded = [
        np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255)
        for row in rows
    ]
    return Figure("Onset, apex, offset", "One clip a row.", png(np.concatenate(padded)))


def animation(store: Store, clips: Clips) -> Figure:
    """Show one clip's onset, apex and offset in turn."""
    from PIL import Image

    index, record = clips[len(clips) // 2]
    crops = store.frames(record)
    images = [
        Image.fromarray(crops[record.frame_numbers.index(number)])
        for number in _key_frames(store, index).values()
        if number in record.frame_numbers
    ]
    data = io.BytesIO()
    images[0].save(
        data,
        format="GIF",
        save_all=True,
        append_images=images[1:],
        duration=round(1000 * GIF_SECONDS_PER_FRAME),
        loop=0,
    )
    return Figure(
        "Animation",
        f"Onset, apex and offset of {'/'.join(record.key)}.",
        _uri("image/gif", data.getvalue()),
    )


def maps(store: Store, clips: Clips, name: str) -> Figure:
    """Show nine maps, enlarged."""
    shown = spread(clips, 9)
    tiles = [
        labelled(_enlarged(_map(store, name, index, record)), "/".join(record.key[1:]))
        for index, record in shown
    ]
    caption = f"{len(shown)} of {len(clips)} clips, enlarged."
    return Figure(f"Maps: {name}", caption, png(grid(tiles, 3)))


def triptych(store: Store, clips: Clips, name: str) -> Figure:
    """Show onset, apex and map of one clip side by side."""
    index, record = clips[0]
    window = store.attributes["recipe"]["maps"][name]["window"]
    crops = store.frames(record)
    numbers = _key_frames(store, index)
    tiles = [
        labelled(
            crops[record.frame_numbers.index(numbers[key_frame])],
            f"{key_frame} {numbers[key_frame]}",
        )
        for key_frame in window.split("-")
        if numbers.get(key_frame) in record.frame_numbers
    ]
    side = store.layout.crop[0]
    tiles.append(
        labelled(_small(_enlarged(_map(store, name, index, record)), side), f"{name} {window}")
    )
    return Figure(
        f"From frames to map: {name}", f"Clip {'/'.join(record.key)}.", png(grid(tiles, 3))
    )


def _detected_crops(
    store: Store, record: ClipRecord, root: Path, numbers: tuple[int, int]
) -> tuple[Picture, Picture] | None:
    """Crop each frame at a box of its own, as a detector run on every frame does."""
    source = dict(zip(store.keys(), store.column("source").tolist(), strict=True))[record.key]
    recipe = Recipe.from_dict(store.attributes["recipe"])
    detector = make_detector(recipe.face)
    height, width = store.layout.crop
    crops = []
    try:
        frames = open_frames(
            Clip(
                dataset=record.dataset,
                subject=record.subject,
                name=record.clip,
                root=root,
                source=source,
            )
        )
        for number in numbers:
            (image,) = frames.read([number], color=False)
            x0, y0, x1, y1 = (max(0, int(value)) for value in detector.detect(image).box)
            crops.append(cv2.resize(image[y0:y1, x0:x1], (width, height)))
    except ClipError:
        return None
    return crops[0], crops[1]


def _difference_row(first: Picture, second: Picture) -> Picture:
    changed = (cv2.absdiff(first, second) > DIFFERENCE_THRESHOLD) * np.uint8(255)
    share = f"{100 * np.count_nonzero(changed) / changed.size:.1f}% differ"
    tiles = [labelled(first, "template frame"), labelled(second, "another frame")]
    return grid([*tiles, labelled(changed, share)], 3)


def _largest_shift(record: ClipRecord) -> float:
    return float(np.hypot(*np.asarray(record.shift).T).max())


def _key_frames(store: Store, index: int) -> dict[str, int]:
    # The apex as it was used: where none is annotated it was estimated.
    columns = {"onset": "onset", "apex": "apex_frame", "offset": "offset"}
    return {key_frame: int(store.column(name)[index]) for key_frame, name in columns.items()}


def _map(store: Store, name: str, index: int, record: ClipRecord) -> Picture:
    """Return a clip's map as one picture: frame pairs below each other, regions side by side."""
    maps = store.read(f"maps/{name}", index, record)
    wanted = store.layout.maps[name]
    regions = len(store.layout.regions) if wanted.regions else 1
    by_pair = maps.reshape(-1, regions, *maps.shape[-3:])[:_MOST_PAIRS]
    tiles = list(by_pair.reshape(-1, *maps.shape[-3:]))
    return grid(tiles, regions) if len(tiles) > 1 else tiles[0]


def spread(clips: Clips, count: int) -> Clips:
    """Return at most ``count`` clips, evenly spread over the store."""
    if len(clips) <= count:
        return clips
    return [clips[i * len(clips) // count] for i in range(count)]


def _enlarged(image: Picture) -> Picture:
    factor = max(1, 168 // image.shape[0])
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)


def _small(image: Picture, height: int) -> Picture:
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    smooth = cv2.INTER_AREA if height < image.shape[0] else cv2.INTER_NEAREST
    return cv2.resize(image, (width, height), interpolation=smooth)


def labelled(image: Picture, text: str) -> Picture:
    """Put a caption under a tile, as RGB."""
    rgb = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB) if image.ndim == 2 else image
    strip = np.full((18, rgb.shape[1], 3), 255, np.uint8)
    cv2.putText(strip, text, (3, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.38, (60, 60, 60), 1, cv2.LINE_AA)
    return np.concatenate([rgb, strip])


def grid(tiles: Sequence[Picture], columns: int) -> Picture:
    """Lay tiles out in rows on white."""
    gap = 4
    height = max(tile.shape[0] for tile in tiles) + gap
    width = max(tile.shape[1] for tile in tiles) + gap
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    canvas = np.full((rows * height, columns * width, 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = divmod(i, columns)
        canvas[y * height :, x * width :][: tile.shape[0], : tile.shape[1]] = tile
    return canvas


def png(image: Picture) -> str:
    """Return an RGB picture as a data URI."""
    _, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    return _uri("image/png", data.tobytes())


def _uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
