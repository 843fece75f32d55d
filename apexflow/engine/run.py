"""A run: a catalog and a recipe in, a store and a summary out."""

from __future__ import annotations

import logging
import os
import platform
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from apexflow.catalog import Catalog, Clip
from apexflow.engine.cards import CardPlace, check_decoder, check_gpus, find_cards
from apexflow.engine.executors import (
    CLIP_TIMEOUT,
    RunOptions,
    RunTasks,
    dask_scheduler,
    local_workers,
    serial,
)
from apexflow.engine.faces import slow_modules
from apexflow.engine.flow import kernel_compiled
from apexflow.engine.process import CPU, STAGES, plan_clip
from apexflow.engine.progress import Progress
from apexflow.engine.recipe import Recipe
from apexflow.engine.task import Outcome, Task, clip_row, layout
from apexflow.errors import ApexflowError, ClipError
from apexflow.storage.create import create_store
from apexflow.storage.format import ClipRecord, Slot
from apexflow.storage.repair import mend
from apexflow.storage.store import Store, open_store
from apexflow.storage.target import Target, exclusive, local_path, store_exists, sweep, target_name

_STATED_PACKAGES = (
    *("apexflow", "numpy", "numba", "opencv-contrib-python-headless", "zarr", "torch"),
    *("facenet-pytorch", "dask"),
)


@dataclass(frozen=True, slots=True)
class Failure:
    """A clip that could not be used, and why."""

    clip: str
    reason: str


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run did.

    Attributes
    ----------
    store : str
    done, skipped : int
        Clips processed by this run, and clips that an earlier run had finished.
    failed : tuple of Failure
    frames : int
        Frames aligned by this run.
    seconds : float
        Wall-clock time from planning to the finished store.
    stage_seconds : dict of stage to float
        Summed over workers, so that they may exceed ``seconds``.
    devices : dict of str to int
        How many of the clips that are done "cpu" has computed, and how many each kind of card.
    """

    store: str
    done: int
    skipped: int
    failed: tuple[Failure, ...]
    frames: int
    seconds: float
    stage_seconds: dict[str, float]
    devices: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        rate = self.frames / self.seconds if self.seconds else 0.0
        stages = [f"{name} {self.stage_seconds.get(name, 0.0):.1f}" for name in STAGES]
        lines = [
            f"store    {self.store}",
            f"done     {self.done} clips, {self.frames} frames in {self.seconds:.1f} s "
            f"({rate:.0f} frames/s)",
            *self._devices(),
            f"skipped  {self.skipped} clips that were finished before",
            f"failed   {len(self.failed)} clips",
            *(f"  {failure.clip}: {failure.reason}" for failure in self.failed),
            f"seconds  {', '.join(stages)} (summed over workers)",
        ]
        return "\n".join(lines)

    def _devices(self) -> list[str]:
        if not self.devices.keys() - {CPU}:
            return []
        counts = (f"{count} clips on {name}" for name, count in sorted(self.devices.items()))
        return [f"         {', '.join(counts)}"]


def process(
    catalog: Catalog,
    store: Target,
    *,
    recipe: str | Path | Recipe = "default",
    workers: int | None = None,
    gpus: str | int = "auto",
    gpu_decode: bool = False,
    scheduler: str | None = None,
    progress: bool = True,
    repair: bool = False,
    clip_timeout: float = CLIP_TIMEOUT,
    dashboard: bool = False,
    performance_report: str | Path | None = None,
    dask_level: int = logging.CRITICAL,
) -> RunSummary:
    """Process every clip of a catalog into a store, going on where an earlier run ended.

    Parameters
    ----------
    catalog : Catalog
    store : path, URL or Zarr store
        Made when it is not there. Clips that it holds, made with the same recipe from the same
        files, are skipped; failed ones are tried again.
    recipe : name, path of a TOML file, or Recipe
    workers : int, optional
        Clips processed at a time by worker processes on this machine; the number of cores
        when not given. 0 runs in this process, without Dask.
    gpus : "auto" or int
        Cards of this machine to use, or workers of the scheduler that have one: all that are
        there, or so many. Each has a worker process of its own beside ``workers``.
    gpu_decode : bool
        Let the cards decode frames that are JPEG files, with nvImageCodec. Their pixels are
        another decoder's than the CPU's; the store says which clips have them.
    scheduler : str, optional
        Address or file of a Dask scheduler to use instead.
    progress : bool
        Show clips, frames/s and time left on standard error.
    repair : bool
        First read all that the store holds; do the clips again whose part is damaged, and make
        damaged columns anew.
    clip_timeout : float
        Seconds until a clip that has not finished is ended and recorded as failed; 0 waits for
        ever. Not with ``workers=0``.
    dashboard : bool
        Serve Dask's dashboard, and log where.
    performance_report : path, optional
        Write Dask's performance report to this HTML file.
    dask_level : int
        The least level of Dask's own log messages that are shown, as in `logging`.

    Raises
    ------
    ApexflowError
        When nothing can be done: another recipe's store, no scheduler, fewer cards than asked
        for, an unwritable folder.
        A clip that cannot be used is no error; it is in the summary's ``failed``.
    """
    started = time.perf_counter()
    chosen = Recipe.load(recipe)
    options = RunOptions(
        clip_timeout=clip_timeout,
        dashboard=dashboard,
        performance_report=performance_report,
        dask_level=dask_level,
        gpu_decode=gpu_decode,
    )
    target = _absolute(store)
    matching_store(target, chosen)  # refuses before any worker starts
    executor: AbstractContextManager[RunTasks]
    compiling = False
    if scheduler is not None:
        executor = dask_scheduler(scheduler, options, gpus=gpus)
    else:
        count = _worker_count(workers)
        cards = _cards_here(count, gpus, gpu_decode=gpu_decode)
        compiling = not cards and not kernel_compiled(chosen.flow)
        executor = _executor_here(count, cards, options, chosen, first_alone=compiling)
    with executor as run_tasks:
        _make_folder(target)
        with exclusive(target):
            # Under the lock: a run that started beside this one may have made it by now.
            made = matching_store(target, chosen) or _create(target, catalog, chosen)
            sweep(target)
            if repair:
                mend(made)
            work = _plan(made, _rooted(catalog), chosen, target)
            shown = Progress(
                total=len(work.todo), skipped=work.skipped, show=progress, compiling=compiling
            )
            tally = _run(made, work, run_tasks, shown)
    order = work.order
    return RunSummary(
        store=target_name(store),
        done=tally.done,
        skipped=work.skipped,
        failed=tuple(sorted(tally.failed, key=lambda failure: order[failure.clip])),
        frames=tally.frames,
        seconds=time.perf_counter() - started,
        stage_seconds=tally.stage_seconds,
        devices=dict(tally.devices),
    )


@dataclass(frozen=True, slots=True)
class _Todo:
    """A clip that has to be processed: the little of it that a run holds for each."""

    clip: Clip
    slot: Slot
    fingerprint: str
    recorded: bool


@dataclass(frozen=True, slots=True)
class _Work:
    """What a run has to do."""

    todo: tuple[_Todo, ...]
    skipped: int
    recipe: Recipe
    target: Target

    @property
    def order(self) -> dict[str, int]:
        """Return the clips' places in the catalog, whatever order workers finish in."""
        return {str(todo.clip): i for i, todo in enumerate(self.todo)}

    def tasks(self, store: Store) -> Iterator[Task]:
        """Yield the tasks one by one, each after its clip's old record is taken back."""
        run = uuid.uuid4().hex
        for todo in self.todo:
            if todo.recorded:
                store.forget(todo.slot)
            yield Task(todo.clip, todo.slot, self.recipe, self.target, todo.fingerprint, run)


@dataclass(slots=True)
class _Tally:
    """What has come of a run so far, in a few numbers whatever the number of clips."""

    done: int = 0
    frames: int = 0
    failed: list[Failure] = field(default_factory=list)
    stage_seconds: dict[str, float] = field(default_factory=dict)
    devices: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        if outcome.failed:
            self.failed.append(Failure(outcome.clip, outcome.message))
        else:
            self.done += 1
            self.devices[outcome.device] += 1
        self.frames += outcome.frames
        for stage, seconds in outcome.seconds.items():
            self.stage_seconds[stage] = self.stage_seconds.get(stage, 0.0) + seconds


def _run(store: Store, work: _Work, run_tasks: RunTasks, shown: Progress) -> _Tally:
    tally = _Tally()
    if not work.todo and store.complete:
        return tally
    store.begin()
    with shown as progress:
        for outcome in run_tasks(work.tasks(store)):
            tally.add(outcome)
            progress.advance(outcome)
    store.finalize()
    return tally


def _plan(store: Store, clips: Sequence[Clip], recipe: Recipe, target: Target) -> _Work:
    """Give every clip a slot; find those that are missing or changed."""
    plans = [_capacity_and_fingerprint(clip, recipe) for clip in clips]
    rows = [clip_row(clip, capacity) for clip, (capacity, _) in zip(clips, plans, strict=True)]
    slots = store.reserve(rows)
    del rows
    known = [_stamp(record) for record in store.iter_records()]
    todo = tuple(
        _Todo(clip, slot, fingerprint, recorded=known[slot.index] is not None)
        for clip, slot, (_, fingerprint) in zip(clips, slots, plans, strict=True)
        if not fingerprint or known[slot.index] != fingerprint
    )
    return _Work(todo, len(clips) - len(todo), recipe, target)


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


def matching_store(target: Target, recipe: Recipe) -> Store | None:
    """Open the store for writing; None when there is none yet.

    Raises `ApexflowError` when it was made with another recipe.
    """
    if not store_exists(target):
        return None
    store = open_store(target, mode="r+")
    if store.recipe_hash != recipe.hash:
        raise ApexflowError(
            f"{store.name} was made with recipe {store.recipe_hash[:12]}, this one is "
            f"{recipe.hash[:12]}: take the same recipe, or another output"
        )
    return store


def _make_folder(target: Target) -> None:
    """Make the folder of a local store: it is what a run locks."""
    path = local_path(target)
    if path is None:
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ApexflowError(f"cannot create the store {path}: {error.strerror}") from None


def _create(target: Target, catalog: Catalog, recipe: Recipe) -> Store:
    return create_store(
        target,
        layout=layout(recipe),
        recipe=recipe.to_dict(),
        recipe_hash=recipe.hash,
        provenance={
            "datasets": sorted({clip.dataset for clip in catalog}),
            "versions": _versions(),
        },
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in _STATED_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _worker_count(workers: int | None) -> int:
    count = _cores() if workers is None else workers
    if count < 0:
        raise ApexflowError(f"workers must be 0 or more, not {count}")
    return count


def _cards_here(count: int, gpus: str | int, *, gpu_decode: bool) -> tuple[CardPlace, ...]:
    """Return the cards of this machine that a run beside ``count`` workers takes."""
    if count == 0 and check_gpus(gpus):
        raise ApexflowError(f"gpus is {gpus}, and a card needs a worker: workers must not be 0")
    cards = find_cards(gpus) if count else ()
    if gpu_decode:
        check_decoder(cards)
    return cards


def _executor_here(
    count: int,
    cards: tuple[CardPlace, ...],
    options: RunOptions,
    recipe: Recipe,
    *,
    first_alone: bool,
) -> AbstractContextManager[RunTasks]:
    if count == 0:
        return serial()
    modules = ("apexflow.engine.task", *slow_modules(recipe.face))
    return local_workers(count, options, modules=modules, cards=cards, first_alone=first_alone)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _rooted(catalog: Catalog) -> list[Clip]:
    """Return the clips with absolute folders: a worker may stand in another one."""

    def rooted(clip: Clip) -> Clip:
        if clip.root is None or clip.root.is_absolute():
            return clip
        return replace(clip, root=clip.root.absolute())

    return [rooted(clip) for clip in catalog]


def _absolute(target: Target) -> Any:
    path = local_path(target)
    if path is None or not isinstance(target, str | Path):
        return target
    return str(path.absolute())
