"""What a run has to do: which clips are missing or changed, and what that would take."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from apexflow.catalog import Catalog, Clip
from apexflow.datasets.shared_frames import Reading, SharedFrames, find_shared_frames
from apexflow.engine.clip.plan import ClipPlan, plan_clip
from apexflow.engine.recipe import Recipe
from apexflow.engine.run.task import GOES_ON, Task, clip_row, layout, printable, storable
from apexflow.errors import ApexflowError, DamagedError
from apexflow.storage.checks import rows_with_shared_frames, torn_clips
from apexflow.storage.compact import expand
from apexflow.storage.format import GONE, KEPT, ClipRecord, Layout, Slot
from apexflow.storage.opened import Key
from apexflow.storage.store import Store
from apexflow.storage.target import Target, disk_errors, store_exists, target_name
from apexflow.storage.writer import StoreWriter, open_writer


@dataclass(frozen=True, slots=True)
class _ClipTodo:
    """A clip that has to be processed: the little of it that a run holds for each."""

    clip: Clip
    slot: Slot
    fingerprint: str
    recorded: bool


@dataclass(frozen=True, slots=True)
class _Planned:
    """What is known of a clip before its frames are read: nothing of one that will fail."""

    clip: Clip
    capacity: int = 0
    fingerprint: str = ""
    reading: Reading | None = None


@dataclass(frozen=True, slots=True)
class Todo:
    """What a run has to do, and what became of the rest of the store.

    Attributes
    ----------
    clips : tuple
        The clips that are missing, changed or damaged.
    skipped : int
        How many clips an earlier run had finished.
    unstorable : tuple of (clip, reason)
        Clips that can have no row in the store.
    gone, kept, dropped : tuple of str
        Clips of the store that the catalog does not have: those that take no part from now on,
        those that are kept on purpose, and those that were taken out.
    table_changed : bool
        Whether the table is not what it was before.
    damaged : tuple of int
        Rows whose commit record or pixels are not whole.
    shared : tuple of SharedFrames
        Clips that have the frames of another person's clip of the catalog.
    others : bool
        Whether the store holds clips that are not the catalog's and take part.
    """

    clips: tuple[_ClipTodo, ...]
    skipped: int
    recipe: Recipe
    target: Target
    unstorable: tuple[tuple[str, str], ...] = ()
    gone: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    table_changed: bool = False
    damaged: tuple[int, ...] = ()
    shared: tuple[SharedFrames, ...] = ()
    others: bool = False

    @property
    def order(self) -> dict[str, int]:
        """Return the clips' places in the catalog, whatever order workers finish in."""
        return {str(todo.clip): i for i, todo in enumerate(self.clips)}

    def tasks(self, store: StoreWriter) -> Iterator[Task]:
        """Yield the tasks one by one, each after its clip's old record is taken back."""
        run = uuid.uuid4().hex
        for todo in self.clips:
            if todo.recorded:
                with disk_errors(f"cannot write to {store.name}", GOES_ON):
                    store.forget_row(todo.slot.index)
            yield Task(todo.clip, todo.slot, self.recipe, self.target, todo.fingerprint, run)


def find_todo(
    store: StoreWriter,
    clips: Sequence[Clip],
    recipe: Recipe,
    target: Target,
    *,
    prune: bool = False,
    keep: bool = False,
) -> Todo:
    """Give every clip a slot; find those that are missing, changed or torn.

    The store is reconciled with the catalog: of the data sets that the catalog has, clips that
    only the store has are marked as gone; with ``keep`` as kept, with ``prune`` they are taken
    out. Other data sets' clips stay as they are.
    """
    plans = [_planned_safely(clip, recipe) for clip in clips]
    unstorable = tuple(
        (printable(str(plan.clip)), "its name is not UTF-8, which a store cannot hold; rename it")
        for plan in plans
        if not storable(str(plan.clip))
    )
    plans = [plan for plan in plans if storable(str(plan.clip))]
    shared = find_shared_frames(plan.reading for plan in plans if plan.reading)
    other_of = {found.clip.key: str(found.other) for found in shared}
    rows = [clip_row(plan.clip, plan.capacity, other_of.get(plan.clip.key, "")) for plan in plans]
    strangers, twice = _strangers(store, clips)
    dropped = [*twice, *(strangers if prune else ())]
    names = _names(store, strangers, plans)
    if dropped:
        expand(store)
        store.drop(dropped)
        strangers, _ = _strangers(store, clips)
    standing = _standing(store, strangers, keep=keep)
    before = store.table_stamp()
    slots = store.reserve(rows, standing=standing)
    changed = bool(dropped) or store.table_stamp() != before
    del rows
    keys, damaged = store.keys(), torn_clips(store)
    records = store.sound_records(damaged)
    known = [_stamp(record, key) for record, key in zip(records, keys, strict=True)]
    todo = tuple(
        _ClipTodo(plan.clip, slot, plan.fingerprint, recorded=known[slot.index] is not None)
        for plan, slot in zip(plans, slots, strict=True)
        if not plan.fingerprint or known[slot.index] != plan.fingerprint or slot.index in damaged
    )
    left = {index: "/".join(keys[index]) for index in strangers}
    return Todo(
        todo,
        len(plans) - len(todo),
        recipe,
        target,
        unstorable=unstorable,
        gone=tuple(names.get(n, n) for i, n in left.items() if standing[i] == GONE),
        kept=tuple(names.get(n, n) for i, n in left.items() if standing[i] == KEPT),
        dropped=tuple(names.values()) if prune else (),
        table_changed=changed,
        damaged=tuple(sorted(damaged)),
        shared=shared,
        others=len(keys) - sum(1 for found in standing.values() if found == GONE) > len(plans),
    )


def shared_frames(store: Store, todo: Todo) -> tuple[SharedFrames, ...]:
    """Return the clips that have the frames of another person's, whenever that was processed.

    Those of the catalog are known before a frame is read; those that other runs have left in the
    store, of other data sets or kept on purpose, by the commit records alone.
    """
    if not todo.others:
        return todo.shared
    keys, people = store.keys(), store.people()
    sources = store.raw_column("source").tolist()

    def clip(row: int) -> Clip:
        dataset, subject, name = keys[row]
        return Clip(
            dataset=dataset, subject=subject, name=name, source=sources[row], person=people[row]
        )

    known = {found.clip.key for found in todo.shared}
    rows = rows_with_shared_frames(store, store.sound_records())
    later = (SharedFrames(clip(row), clip(other)) for row, other in rows if keys[row] not in known)
    return (*todo.shared, *later)


def _planned_safely(clip: Clip, recipe: Recipe) -> _Planned:
    """Plan a clip; whatever is wrong with it is that clip's alone.

    The task will meet the same again, and record it.
    """
    try:
        _, plan = plan_clip(clip, recipe)
    except Exception:  # a file may be anything
        return _Planned(clip)
    return _Planned(clip, len(plan.numbers), plan.fingerprint, _reading(clip, plan))


def _reading(clip: Clip, plan: ClipPlan) -> Reading:
    return Reading(clip, plan.files, plan.numbers[0], plan.numbers[-1])


def _strangers(store: Store, clips: Sequence[Clip]) -> tuple[list[int], list[int]]:
    """Return the rows that the catalog lacks, and those of a clip that has another row.

    Of a data set that the catalog does not have nothing is known: its rows are left alone.
    """
    datasets, wanted = {clip.dataset for clip in clips}, {clip.key for clip in clips}
    keys = store.keys()
    last = {key: index for index, key in enumerate(keys)}
    twice = [index for index, key in enumerate(keys) if last[key] != index]
    strangers = [
        index
        for index, key in enumerate(keys)
        if last[key] == index and key[0] in datasets and key not in wanted
    ]
    return strangers, twice


def _names(store: Store, rows: Sequence[int], plans: Sequence[_Planned]) -> dict[str, str]:
    """Return the names of rows, with the clip that has their frames now."""
    now = {plan.reading.files: plan.clip for plan in plans if plan.reading}
    keys = store.keys()
    names = {}
    for index in rows:
        name = "/".join(keys[index])
        try:
            record = store.record(index)
        except DamagedError:
            record = None
        clip = now.get(record.frames) if record is not None else None
        names[name] = name if clip is None else f"{name} (now {clip})"
    return names


def _standing(store: Store, strangers: Sequence[int], *, keep: bool) -> dict[int, str]:
    before = store.column("catalog").tolist()
    return {i: KEPT if keep or before[i] == KEPT else GONE for i in strangers}


def _stamp(record: ClipRecord | None, key: Key) -> str | None:
    """Return what a done clip was made from, "" of a failed one, None without a record."""
    if record is None:
        return None
    return record.fingerprint if record.done and record.key == key else ""


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
    shared : tuple of SharedFrames
        Clips that have the frames of another person's clip: the run would end with an error.
    """

    store: str
    clips: int
    frames: int
    read_bytes: int
    store_bytes: int
    skipped: int
    failing: tuple[tuple[str, str], ...]
    shared: tuple[SharedFrames, ...] = ()

    def __str__(self) -> str:
        lines = [
            f"store    {self.store}",
            f"to do    {self.clips} clips, {self.frames} frames, {_size(self.read_bytes)} to read",
            f"grows by {_size(self.store_bytes)} at most",
            f"skipped  {self.skipped} clips that were finished before",
            f"failing  {len(self.failing)} clips",
            *(f"  {clip}: {reason}" for clip, reason in self.failing),
            *(f"shared   {found}" for found in self.shared),
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
    readings = []
    shapes = layout(chosen)
    for clip in catalog:
        try:
            plan, size = _planned(clip, chosen)
        except Exception as error:  # a file may be anything
            failing.append((printable(str(clip)), printable(str(error))))
            continue
        readings.append(_reading(clip, plan))
        if finished.get(clip.key) == plan.fingerprint:
            skipped += 1
            continue
        clips += 1
        frames += len(plan.numbers)
        read_bytes += size
        store_bytes += _stored_bytes(plan, shapes)
    return Forecast(
        *(target_name(target), clips, frames, read_bytes, store_bytes, skipped, tuple(failing)),
        shared=find_shared_frames(readings),
    )


def _planned(clip: Clip, recipe: Recipe) -> tuple[ClipPlan, int]:
    source, plan = plan_clip(clip, recipe)
    return plan, sum(size for _, size, _ in source.fingerprint(plan.numbers))


def _fingerprints(store: Store | None) -> dict[tuple[str, str, str], str]:
    if store is None:
        return {}
    done = (record for record in store.sound_records() if record is not None and record.done)
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
        if shapes.confidence_dtype:
            yield pairs * prod(shapes.crop) * np.dtype(shapes.confidence_dtype).itemsize
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
