"""A run: a catalog and a recipe in, a store and a summary out."""

from __future__ import annotations

import os
import platform
import sys
import time
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from apexflow.catalog import Catalog, Clip
from apexflow.engine.executors import RunTasks, dask_scheduler, local_workers, serial
from apexflow.engine.process import STAGES, plan_clip
from apexflow.engine.progress import Progress
from apexflow.engine.recipe import Recipe
from apexflow.engine.task import Outcome, Task, clip_row, layout
from apexflow.errors import ApexflowError, ClipError
from apexflow.storage.format import ClipRecord
from apexflow.storage.store import (
    Store,
    Target,
    create_store,
    exclusive,
    local_path,
    open_store,
    store_exists,
    sweep,
    target_name,
)

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
    """

    store: str
    done: int
    skipped: int
    failed: tuple[Failure, ...]
    frames: int
    seconds: float
    stage_seconds: dict[str, float]

    def __str__(self) -> str:
        rate = self.frames / self.seconds if self.seconds else 0.0
        stages = [f"{name} {self.stage_seconds.get(name, 0.0):.1f}" for name in STAGES]
        lines = [
            f"store    {self.store}",
            f"done     {self.done} clips, {self.frames} frames in {self.seconds:.1f} s "
            f"({rate:.0f} frames/s)",
            f"skipped  {self.skipped} clips that were finished before",
            f"failed   {len(self.failed)} clips",
            *(f"  {failure.clip}: {failure.reason}" for failure in self.failed),
            f"seconds  {', '.join(stages)} (summed over workers)",
        ]
        return "\n".join(lines)


def process(
    catalog: Catalog,
    store: Target,
    *,
    recipe: str | Path | Recipe = "default",
    workers: int | None = None,
    scheduler: str | None = None,
    progress: bool = True,
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
    scheduler : str, optional
        Address or file of a Dask scheduler to use instead.
    progress : bool
        Show clips, frames/s and time left on standard error.

    Raises
    ------
    ApexflowError
        When nothing can be done: another recipe's store, no scheduler, an unwritable folder.
        A clip that cannot be used is no error; it is in the summary's ``failed``.
    """
    started = time.perf_counter()
    chosen = Recipe.load(recipe)
    target = _absolute(store)
    existing = _matching_store(target, chosen)
    with _executor(workers, scheduler) as run_tasks:
        made = existing or _create(target, catalog, chosen)
        with exclusive(target):
            sweep(target)
            tasks, skipped = _plan(made, _rooted(catalog), chosen, target)
            outcomes = _run(made, tasks, run_tasks, show=progress, skipped=skipped)
    return RunSummary(
        store=target_name(store),
        done=sum(not outcome.failed for outcome in outcomes),
        skipped=skipped,
        failed=tuple(Failure(o.clip, o.message) for o in outcomes if o.failed),
        frames=sum(outcome.frames for outcome in outcomes),
        seconds=time.perf_counter() - started,
        stage_seconds=_summed(outcomes),
    )


def _run(
    store: Store, tasks: Sequence[Task], run_tasks: RunTasks, *, show: bool, skipped: int
) -> list[Outcome]:
    if not tasks and store.complete:
        return []
    store.begin()
    outcomes = []
    with Progress(total=len(tasks), skipped=skipped, show=show) as progress:
        for outcome in run_tasks(tasks):
            outcomes.append(outcome)
            progress.advance(outcome)
    store.finalize()
    # The order of the catalog, whatever order the workers finished in.
    order = {str(task.clip): i for i, task in enumerate(tasks)}
    return sorted(outcomes, key=lambda outcome: order[outcome.clip])


def _plan(
    store: Store, clips: Sequence[Clip], recipe: Recipe, target: Target
) -> tuple[list[Task], int]:
    """Give every clip a slot; return the tasks for those that are missing or changed."""
    plans = [_capacity_and_fingerprint(clip, recipe) for clip in clips]
    rows = [clip_row(clip, capacity) for clip, (capacity, _) in zip(clips, plans, strict=True)]
    slots = store.reserve(rows)
    records = store.records()
    run = uuid.uuid4().hex
    tasks = []
    for clip, slot, (_, fingerprint) in zip(clips, slots, plans, strict=True):
        record = records[slot.index]
        if not _finished(record, fingerprint):
            tasks.append(Task(clip, slot, recipe, target, redo=record is not None, run=run))
    return tasks, len(clips) - len(tasks)


def _capacity_and_fingerprint(clip: Clip, recipe: Recipe) -> tuple[int, str]:
    try:
        _, plan = plan_clip(clip, recipe)
    except ClipError:  # the task will meet it again, and record it
        return 0, ""
    return len(plan.numbers), plan.fingerprint


def _finished(record: ClipRecord | None, fingerprint: str) -> bool:
    return record is not None and record.done and record.fingerprint == fingerprint


def _matching_store(target: Target, recipe: Recipe) -> Store | None:
    if not store_exists(target):
        return None
    store = open_store(target, mode="r+")
    if store.recipe_hash != recipe.hash:
        raise ApexflowError(
            f"{store.name} was made with recipe {store.recipe_hash[:12]}, this one is "
            f"{recipe.hash[:12]}: take the same recipe, or another output"
        )
    return store


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


def _executor(workers: int | None, scheduler: str | None) -> AbstractContextManager[RunTasks]:
    if scheduler is not None:
        return dask_scheduler(scheduler)
    count = _cores() if workers is None else workers
    if count < 0:
        raise ApexflowError(f"workers must be 0 or more, not {count}")
    return serial() if count == 0 else local_workers(count)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _rooted(catalog: Catalog) -> list[Clip]:
    """Return the clips with absolute folders: a worker may stand in another one."""
    return [replace(c, root=None if c.root is None else c.root.absolute()) for c in catalog]


def _absolute(target: Target) -> Any:
    path = local_path(target)
    if path is None or not isinstance(target, str | Path):
        return target
    return str(path.absolute())


def _summed(outcomes: Sequence[Outcome]) -> dict[str, float]:
    total: dict[str, float] = {}
    for outcome in outcomes:
        for stage, seconds in outcome.seconds.items():
            total[stage] = total.get(stage, 0.0) + seconds
    return total
