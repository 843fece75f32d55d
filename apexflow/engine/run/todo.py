"""What a run has to do: which clips are missing or changed, and what that would take."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from apexflow.catalog import Catalog, Clip
from apexflow.engine.clip.plan import ClipPlan, plan_clip
from apexflow.engine.recipe import Recipe
from apexflow.engine.run.task import Task, clip_row, layout
from apexflow.errors import ApexflowError, ClipError
from apexflow.storage.format import ClipRecord, Layout, Slot
from apexflow.storage.store import Store
from apexflow.storage.target import Target, store_exists, target_name
from apexflow.storage.writer import StoreWriter, open_writer


@dataclass(frozen=True, slots=True)
class _ClipTodo:
    """A clip that has to be processed: the little of it that a run holds for each."""

    clip: Clip
    slot: Slot
    fingerprint: str
    recorded: bool


@dataclass(frozen=True, slots=True)
class Todo:
    """What a run has to do: the clips, and how many an earlier run had finished."""

    clips: tuple[_ClipTodo, ...]
    skipped: int
    recipe: Recipe
    target: Target

    @property
    def order(self) -> dict[str, int]:
        """Return the clips' places in the catalog, whatever order workers finish in."""
        return {str(todo.clip): i for i, todo in enumerate(self.clips)}

    def tasks(self, store: StoreWriter) -> Iterator[Task]:
        """Yield the tasks one by one, each after its clip's old record is taken back."""
        run = uuid.uuid4().hex
        for todo in self.clips:
            if todo.recorded:
                store.forget(todo.slot)
            yield Task(todo.clip, todo.slot, self.recipe, self.target, todo.fingerprint, run)


def find_todo(store: StoreWriter, clips: Sequence[Clip], recipe: Recipe, target: Target) -> Todo:
    """Give every clip a slot; find those that are missing or changed."""
    plans = [_capacity_and_fingerprint(clip, recipe) for clip in clips]
    rows = [clip_row(clip, capacity) for clip, (capacity, _) in zip(clips, plans, strict=True)]
    slots = store.reserve(rows)
    del rows
    known = [_stamp(record) for record in store.iter_records()]
    todo = tuple(
        _ClipTodo(clip, slot, fingerprint, recorded=known[slot.index] is not None)
        for clip, slot, (_, fingerprint) in zip(clips, slots, plans, strict=True)
        if not fingerprint or known[slot.index] != fingerprint
    )
    return Todo(todo, len(clips) - len(todo), recipe, target)


def _stamp(record: ClipRecord | None) -> str | None:
    """Return what a done clip was made from, "" of a failed one, None without a record."""
    if record is None:
        return None
    return record.fingerprint if record.done else ""


def _capacity_and_fingerprint(clip: Clip, recipe: Recipe) -> tuple[int, str]:
    try:
        _, plan = plan_clip(clip, recipe)
    except ClipError:  # the task will meet it again, and record it
        return 0, ""
    return len(plan.numbers), plan.fingerprint


def matching_store(target: Target, recipe: Recipe) -> StoreWriter | None:
    """Open the store for writing; None when there is none yet.

    Raises `ApexflowError` when it was made with another recipe.
    """
    if not store_exists(target):
        return None
    store = open_writer(target)
    if store.recipe_hash != recipe.hash:
        raise ApexflowError(
            f"{store.name} was made with recipe {store.recipe_hash[:12]}, this one is "
            f"{recipe.hash[:12]}: take the same recipe, or another output"
        )
    return store


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
    chosen = Recipe.load(recipe)
    finished = _fingerprints(matching_store(target, chosen))
    frames = read_bytes = store_bytes = clips = skipped = 0
    failing = []
    shapes = layout(chosen)
    for clip in catalog:
        try:
            plan, size = _planned(clip, chosen)
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


def _planned(clip: Clip, recipe: Recipe) -> tuple[ClipPlan, int]:
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
        pairs = _pairs(plan, shapes, window)
        yield pairs * 2 * prod(shapes.crop) * value
        yield pairs * len(shapes.regions) * 2 * prod(shapes.region_size) * value
    for wanted in shapes.maps.values():
        pictures = len(shapes.regions) if wanted.regions else 1
        yield _pairs(plan, shapes, wanted.window) * pictures * prod(wanted.size) * 3


def _pairs(plan: ClipPlan, shapes: Layout, window: str) -> int:
    fixed = shapes.windows[window]
    if fixed is not None:
        return fixed
    # An apex that is yet to be estimated leaves the pairs open: no more than there are frames.
    return len(plan.pairs[window]) if window in plan.pairs else len(plan.numbers)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
