"""Small stores, written directly: what reading is tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from apexflow.storage.compact import expand
from apexflow.storage.create import create_store
from apexflow.storage.format import (
    DONE,
    FAILED,
    ClipRecord,
    ClipRow,
    Layout,
    MapLayout,
)
from apexflow.storage.target import Target
from apexflow.storage.writer import ClipArrays, StoreWriter

SIDE = 32


@dataclass
class Made:
    """A clip as a test wants it."""

    subject: str
    name: str
    emotion: str = ""
    label: int = -1
    dataset: str = "made"
    frames: np.ndarray | None = None
    flow: dict[str, np.ndarray] = field(default_factory=dict)
    roi: dict[str, np.ndarray] = field(default_factory=dict)
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    status: str = DONE
    flags: str = ""
    details: str = ""
    action_units: str = ""
    apex: int | None = None  # by default the middle


def make_store(target: Target, clips: Sequence[Made], *, finalize: bool = True) -> StoreWriter:
    """Write clips into a new store; the first done one says which arrays there are."""
    first = next(clip for clip in clips if clip.status == DONE)
    layout = Layout(
        crop=next(iter(first.flow.values())).shape[-2:] if first.flow else (SIDE, SIDE),
        keep_frames=first.frames is not None,
        windows={name: _pairs(name, flow) for name, flow in first.flow.items()},
        flow_dtype="float32",
        maps={
            name: MapLayout(size=image.shape[-3:-1], window=next(iter(first.flow)))
            for name, image in first.maps.items()
        },
        regions=tuple(f"r{i}" for i in range(_regions(first))),
        region_size=next(iter(first.roi.values())).shape[-2:] if first.roi else (0, 0),
        stages=("flow",),
    )
    store = create_store(
        target, layout=layout, recipe={"a": 1}, recipe_hash="0" * 64, provenance={"versions": {}}
    )
    add_clips(store, clips, finalize=finalize)
    return store


def add_clips(store: StoreWriter, clips: Sequence[Made], *, finalize: bool = True) -> None:
    slots = store.reserve([_row(clip) for clip in clips])
    expand(store)
    store.begin()
    for clip, slot in zip(clips, slots, strict=True):
        if clip.status == DONE:
            store.commit(
                slot, _record(clip), ClipArrays(clip.frames, clip.flow, clip.maps, clip.roi), {}
            )
        elif clip.status == FAILED:
            store.commit(slot, _record(clip), None, {})
    if finalize:
        store.finalize()


def _pairs(window: str, flow: np.ndarray) -> int | None:
    if window == "consecutive":
        return None
    return flow.shape[0] if flow.ndim == 4 else 1


def _regions(clip: Made) -> int:
    return next(iter(clip.roi.values())).shape[-4] if clip.roi else 0


def _row(clip: Made) -> ClipRow:
    count = 0 if clip.frames is None else len(clip.frames)
    return ClipRow(
        dataset=clip.dataset,
        subject=clip.subject,
        clip=clip.name,
        emotion=clip.emotion,
        label=clip.label,
        details=clip.details,
        action_units=clip.action_units,
        onset=10,
        apex=10 + (count // 2 if clip.apex is None else clip.apex),
        offset=10 + count - 1,
        frame_capacity=count,
    )


def _record(clip: Made) -> ClipRecord:
    key: dict[str, Any] = {"dataset": clip.dataset, "subject": clip.subject, "clip": clip.name}
    if clip.status == FAILED:
        return ClipRecord(**key, status=FAILED, message="no face")
    count = 0 if clip.frames is None else len(clip.frames)
    return ClipRecord(
        **key,
        status=DONE,
        frame_numbers=tuple(range(10, 10 + count)),
        files=tuple(f"{i}.jpg" for i in range(count)),
        shift=((0.0, 0.0),) * count,
        score=(1.0,) * count,
        template_frame=10,
        flags=clip.flags,
        pairs={
            window: tuple((10 + i, 11 + i) for i in range(_pairs(window, flow) or len(flow)))
            for window, flow in clip.flow.items()
        },
    )


def random_clips(
    count: int, *, seed: int = 0, subjects: int = 4, frames: bool = False, side: int = SIDE
) -> list[Made]:
    """Clips of random pixels, three emotions, subjects in turn; 3 to 40 frames where kept."""
    rng = np.random.default_rng(seed)
    windows = ("onset-apex", "apex-offset")
    return [
        Made(
            subject=f"{i % subjects:02d}",
            name=f"c{i}",
            emotion=("fear", "joy", "rage")[i % 3],
            flow={w: rng.normal(size=(2, side, side)).astype(np.float32) for w in windows},
            roi={w: rng.normal(size=(3, 2, 8, 8)).astype(np.float32) for w in windows},
            maps={"hsv": rng.integers(0, 256, (28, 28, 3), np.uint8)},
            frames=rng.integers(0, 256, (int(rng.integers(3, 41)), side, side), np.uint8)
            if frames
            else None,
        )
        for i in range(count)
    ]
