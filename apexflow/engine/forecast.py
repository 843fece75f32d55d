"""What a run would do, found out without decoding a frame or touching the store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from apexflow.catalog import Catalog, Clip
from apexflow.engine.process import ClipPlan, plan_clip
from apexflow.engine.recipe import Recipe
from apexflow.engine.task import layout
from apexflow.errors import ClipError
from apexflow.storage.format import STEPS_BY_LENGTH, Layout
from apexflow.storage.store import Store
from apexflow.storage.target import Target, target_name


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run would do.

    Attributes
    ----------
    store : str
    clips, frames : int
        Clips to process, and their frames to decode.
    read_bytes : int
        The files behind these frames.
    store_bytes : int
        What they take in the store before compression, which takes off little of crops (about
        a tenth) and of flow.
    skipped : int
        Clips that the store holds already.
    failing : tuple of (clip, reason)
        Clips that are known to fail before a frame is read.
    """

    store: str
    clips: int
    frames: int
    read_bytes: int
    store_bytes: int
    skipped: int
    failing: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        lines = [
            f"store    {self.store}",
            f"to do    {self.clips} clips, {self.frames} frames, {_size(self.read_bytes)} to read",
            f"grows by {_size(self.store_bytes)} at most",
            f"skipped  {self.skipped} clips that were finished before",
            f"failing  {len(self.failing)} clips",
            *(f"  {clip}: {reason}" for clip, reason in self.failing),
        ]
        return "\n".join(lines)


def forecast(
    catalog: Catalog, target: Target, *, recipe: str | Path | Recipe = "default"
) -> Forecast:
    """Return what `process` would do with the same arguments.

    Raises `ApexflowError` where `process` would refuse the store or the recipe.
    """
    from apexflow.engine.run import matching_store

    chosen = Recipe.load(recipe)
    finished = _fingerprints(matching_store(target, chosen))
    frames = read_bytes = store_bytes = clips = skipped = 0
    failing = []
    shapes = layout(chosen)
    for clip in catalog:
        try:
            plan, size = _plan(clip, chosen)
        except ClipError as error:
            failing.append((str(clip), str(error)))
            continue
        if finished.get(clip.key) == plan.fingerprint:
            skipped += 1
            continue
        clips += 1
        frames += len(plan.numbers)
        read_bytes += size
        store_bytes += _stored_bytes(plan, shapes)
    return Forecast(
        target_name(target), clips, frames, read_bytes, store_bytes, skipped, tuple(failing)
    )


def _plan(clip: Clip, recipe: Recipe) -> tuple[ClipPlan, int]:
    source, plan = plan_clip(clip, recipe)
    return plan, sum(size for _, size, _ in source.fingerprint(plan.numbers))


def _fingerprints(store: Store | None) -> dict[tuple[str, str, str], str]:
    if store is None:
        return {}
    done = (record for record in store.iter_records() if record is not None and record.done)
    return {record.key: record.fingerprint for record in done}


def _stored_bytes(plan: ClipPlan, shapes: Layout) -> int:
    return sum(_array_bytes(plan, shapes))


def _array_bytes(plan: ClipPlan, shapes: Layout) -> Iterator[int]:
    if shapes.keep_frames:
        # The rest of a clip's last chunk is zeros, which compression leaves nothing of.
        yield len(plan.numbers) * prod(shapes.crop)
    value = np.dtype(shapes.flow_dtype).itemsize
    for window in shapes.windows:
        steps = _steps(plan, shapes, window)
        yield steps * 2 * prod(shapes.crop) * value
        yield steps * len(shapes.regions) * 2 * prod(shapes.region_size) * value
    for wanted in shapes.maps.values():
        pictures = len(shapes.regions) if wanted.regions else 1
        yield _steps(plan, shapes, wanted.window) * pictures * prod(wanted.size) * 3


def _steps(plan: ClipPlan, shapes: Layout, window: str) -> int:
    fixed = shapes.windows[window]
    if fixed != STEPS_BY_LENGTH:
        return fixed
    # An apex that is yet to be estimated leaves the steps open: no more than there are frames.
    return len(plan.steps[window]) if window in plan.steps else len(plan.numbers)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
