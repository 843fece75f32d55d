"""A run: a catalog and a recipe in, a store and a summary out."""

from __future__ import annotations

import logging
import platform
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from apexflow.catalog import Catalog, Clip
from apexflow.datasets.shared_frames import summed_up
from apexflow.engine.clip.backend import CPU
from apexflow.engine.clip.clock import STAGES
from apexflow.engine.clip.faces import check_models, slow_modules
from apexflow.engine.clip.flow import kernel_compiled
from apexflow.engine.recipe import Recipe
from apexflow.engine.run.executors import (
    CLIP_TIMEOUT,
    RunOptions,
    RunTasks,
    dask_scheduler,
    local_workers,
    serial,
)
from apexflow.engine.run.gpus import check_decoder, check_gpus, find_gpus
from apexflow.engine.run.progress import Progress, announce
from apexflow.engine.run.task import (
    GOES_ON,
    Outcome,
    layout,
    other_versions,
    pixel_versions,
    printable,
)
from apexflow.engine.run.todo import Todo, find_todo, matching_store, shared_frames
from apexflow.errors import ApexflowError
from apexflow.failures import say_failures
from apexflow.quality import count_flags
from apexflow.storage.compact import expand
from apexflow.storage.create import create_store
from apexflow.storage.repair import repair as repair_store
from apexflow.storage.target import (
    Target,
    disk_errors,
    exclusive,
    local_path,
    sweep,
    target_name,
)
from apexflow.storage.writer import StoreWriter
from apexflow.system import cores

logger = logging.getLogger(__name__)

_STATED_PACKAGES = (
    *("apexflow", "numpy", "numba", "opencv-contrib-python-headless", "zarr", "torch"),
    *("facenet-pytorch", "dask"),
)

_MOST_FLAGGED_LINES = 20
_MOST_FAILED_LINES = 20
"""Of each reason."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A clip that could not be used, and why."""

    clip: str
    reason: str


@dataclass(frozen=True, slots=True)
class FlaggedClip:
    """A clip that was processed and is doubtful, and its flags (`apexflow.quality`)."""

    clip: str
    flags: str


@dataclass(frozen=True, slots=True)
class RunSummary:
    """What a run did.

    Attributes
    ----------
    store : str
    done, skipped : int
        Clips processed by this run, and clips that an earlier run had finished.
    failed : tuple of Failure
    flagged : tuple of FlaggedClip
        The clips processed by this run that bear flags.
    frames : int
        Frames aligned by this run.
    seconds : float
        Wall-clock time from planning to the finished store.
    stage_seconds : dict of stage to float
        Summed over workers, so that they may exceed ``seconds``.
    devices : dict of str to int
        How many of the clips that are done "cpu" has computed, and how many each kind of GPU.
    gone, kept, dropped : tuple of str
        Clips of the store that the catalog no longer has, with the clip that has their frames
        now: those that take no part in data sets and folds from now on, those that are kept on
        purpose, and those that this run has taken out.
    other_versions : dict of package to (before, now)
        What may change pixels and differs from what the store was made with.
    without_class : int
        Clips of the catalog with neither a label nor an emotion: training leaves them out.
    shared : tuple of str
        Clips that have the frames of another person's clip, with that one.
    """

    store: str
    done: int
    skipped: int
    failed: tuple[Failure, ...]
    frames: int
    seconds: float
    stage_seconds: dict[str, float]
    devices: dict[str, int] = field(default_factory=dict)
    gone: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    other_versions: dict[str, tuple[str, str]] = field(default_factory=dict)
    without_class: int = 0
    shared: tuple[str, ...] = ()
    flagged: tuple[FlaggedClip, ...] = ()

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
            *say_failures(
                ((failure.clip, failure.reason) for failure in self.failed),
                most=_MOST_FAILED_LINES,
            ),
            *self._flagged(),
            *self._without_class(),
            *(f"shared   {found}" for found in self.shared),
            *self._strangers(),
            f"seconds  {', '.join(stages)} (summed over workers)",
            *self._versions(),
            *self._look(),
        ]
        return "\n".join(lines)

    __repr__ = __str__

    def _look(self) -> Iterator[str]:
        count = len(self.failed) + len(self.flagged)
        if count:
            verb = "clip needs" if count == 1 else "clips need"
            yield f"look     {count} {verb} a look: apexflow report {self.store}"

    def _flagged(self) -> Iterator[str]:
        if not self.flagged:
            return
        counts = count_flags(clip.flags for clip in self.flagged)
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        yield f"flagged  {len(self.flagged)} clips: {told}"
        yield from (f"  {clip.clip}: {clip.flags}" for clip in self.flagged[:_MOST_FLAGGED_LINES])
        if len(self.flagged) > _MOST_FLAGGED_LINES:
            yield f"  and {len(self.flagged) - _MOST_FLAGGED_LINES} more; `apexflow info` has all"

    def _without_class(self) -> Iterator[str]:
        if self.without_class:
            yield f"no class {self.without_class} clips have neither label nor emotion"

    def _strangers(self) -> Iterator[str]:
        told = (
            ("gone", self.gone, "take no part from now on: --prune drops them, --keep keeps them"),
            ("kept", self.kept, "are kept on purpose; --prune drops them"),
            ("dropped", self.dropped, "were taken out of the store"),
        )
        for word, names, what in told:
            if names:
                yield f"{word:8s} {len(names)} clips that the catalog does not have {what}"
                yield from (f"  {name}" for name in names)

    def _versions(self) -> list[str]:
        changed = [f"{n} {old} -> {new}" for n, (old, new) in self.other_versions.items()]
        if not changed:
            return []
        return [f"versions {', '.join(changed)}: what may change pixels is not what made the store"]

    def _devices(self) -> list[str]:
        if not self.devices.keys() - {CPU.name}:
            return []
        counts = (f"{count} clips on {name}" for name, count in sorted(self.devices.items()))
        return [f"         {', '.join(counts)}"]


class SharedFramesError(ApexflowError):
    """The same frames stand under two people; everything was processed all the same.

    Attributes
    ----------
    summary : RunSummary
    """

    def __init__(self, message: str, summary: RunSummary) -> None:
        super().__init__(message)
        self.summary = summary


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
    prune: bool = False,
    keep: bool = False,
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
        GPUs of this machine to use, dealt out over the workers, or workers of the scheduler
        that have one: all that are there, or that many.
    gpu_decode : bool
        Let the GPUs decode frames that are JPEG files, with nvImageCodec. Their pixels are
        another decoder's than the CPU's; the store says which clips have them.
    scheduler : str, optional
        Address or file of a Dask scheduler to use instead.
    progress : bool
        Show clips, frames/s and time left on standard error.
    repair : bool
        First read all that the store holds; do the clips again whose part is damaged, and make
        damaged columns again.
    prune, keep : bool
        What becomes of clips that the store has and the catalog no longer has, of the data sets
        that the catalog has: taken out of the store, or kept on purpose. Without either they
        stay where they are and take no part in data sets and folds.
    clip_timeout : float
        Seconds until a clip that has not finished is ended and recorded as failed; 0 waits for
        ever. Not with ``workers=0``.
    dashboard : bool
        Serve Dask's dashboard, and log where.
    performance_report : path, optional
        Write Dask's performance report to this HTML file.
    dask_level : int
        The least level of Dask's own log messages that are shown, as in `logging`.

    Returns
    -------
    RunSummary
        What was done, skipped, failed and flagged, with reasons.

    Raises
    ------
    ApexflowError
        When nothing can be done: another recipe's store, no scheduler, fewer GPUs than asked
        for, a full disk or an unwritable folder.
        A clip that cannot be used is not an error; it is in the summary's ``failed``.
    SharedFramesError
        At the end, when the same frames stand under two people. Every clip is in the store;
        no fold is made of it.
    """
    started = time.perf_counter()
    if prune and keep:
        raise ApexflowError("prune and keep exclude each other: drop clips, or keep them")
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
    check_models(chosen.face)
    executor: AbstractContextManager[RunTasks]
    compiling = scheduler is None and not kernel_compiled(chosen.flow)
    modules = ("apexflow.engine.run.task", *slow_modules(chosen.face))
    if scheduler is not None:
        announce(f"connecting to the scheduler at {scheduler}", show=progress)
        executor = dask_scheduler(scheduler, options, modules=modules, gpus=gpus)
    elif (count := _worker_count(workers)) == 0:
        _gpus_here(0, gpus, gpu_decode=gpu_decode)
        announce("loading the face detector", show=progress)
        executor = serial()
    else:
        gpus_here = _gpus_here(count, gpus, gpu_decode=gpu_decode)
        announce(f"starting {count} workers, loading the face detector", show=progress)
        executor = local_workers(
            count, options, modules=modules, gpus=gpus_here, compile_first=compiling
        )
    with executor as run_tasks:
        _make_folder(target)
        with exclusive(target):
            cannot = f"cannot write to {target_name(store)}"
            with disk_errors(cannot, GOES_ON):
                # Under the lock: a run that started beside this one may have made it by now.
                made = matching_store(target, chosen) or _create(target, catalog, chosen)
                sweep(target)
                if repair:
                    repair_store(made)
                clips = _rooted(catalog)
                todo = find_todo(made, clips, chosen, target, prune=prune, keep=keep)
            if todo.shared:
                logger.warning(
                    "%s; all clips are processed, then the run ends with an error",
                    summed_up(todo.shared),
                )
            shown = Progress(
                total=len(todo.clips), skipped=todo.skipped, show=progress, compiling=compiling
            )
            tally = _run(made, todo, run_tasks, shown)
            shared = shared_frames(made, todo)
    order = todo.order
    failed = sorted(tally.failed, key=lambda failure: order[failure.clip])
    summary = RunSummary(
        store=target_name(store),
        done=tally.done,
        skipped=todo.skipped,
        flagged=tuple(sorted(tally.flagged, key=lambda flagged: order[flagged.clip])),
        failed=(*failed, *(Failure(clip, reason) for clip, reason in todo.unstorable)),
        frames=tally.frames,
        seconds=time.perf_counter() - started,
        stage_seconds=tally.stage_seconds,
        devices=dict(tally.devices),
        gone=todo.gone,
        kept=todo.kept,
        dropped=todo.dropped,
        other_versions=_changed_versions(made),
        without_class=sum(clip.label is None and not clip.emotion for clip in catalog),
        shared=tuple(map(str, shared)),
    )
    if shared:
        raise SharedFramesError(
            f"{summed_up(shared)}: correct the table, or name the person in a column of its "
            f"own, and process again; all else is done, and no fold is made until then",
            summary,
        )
    return summary


def _changed_versions(store: StoreWriter) -> dict[str, tuple[str, str]]:
    made = store.attributes.get("versions", {})
    return {name: (made[name], now) for name, now in other_versions(store).items()}


@dataclass(slots=True)
class _Tally:
    """What has come of a run so far, in a few numbers whatever the number of clips."""

    done: int = 0
    frames: int = 0
    failed: list[Failure] = field(default_factory=list)
    flagged: list[FlaggedClip] = field(default_factory=list)
    stage_seconds: dict[str, float] = field(default_factory=dict)
    devices: Counter[str] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        if outcome.failed:
            self.failed.append(Failure(outcome.clip, outcome.message))
        else:
            self.done += 1
            self.devices[outcome.device] += 1
            if outcome.flags:
                self.flagged.append(FlaggedClip(outcome.clip, outcome.flags))
        self.frames += outcome.frames
        for stage, seconds in outcome.seconds.items():
            self.stage_seconds[stage] = self.stage_seconds.get(stage, 0.0) + seconds


def _run(store: StoreWriter, todo: Todo, run_tasks: RunTasks, shown: Progress) -> _Tally:
    tally = _Tally()
    if not todo.clips and store.complete and not todo.table_changed:
        return tally
    cannot = f"cannot write to {store.name}"
    if todo.clips:
        with disk_errors(cannot, GOES_ON):
            for index in todo.damaged:
                store.forget_row(index)
            expand(store, lost_as_blank=bool(todo.damaged))
            store.begin()
            store.add_run(_provenance(store, todo))
        with shown as progress:
            for outcome in run_tasks(todo.tasks(store)):
                tally.add(outcome)
                progress.advance(outcome)
    with disk_errors(cannot, GOES_ON):
        store.finalize()
    return tally


def _provenance(store: StoreWriter, todo: Todo) -> dict[str, Any]:
    """Return what the store keeps of a run."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return {
        "started": now,
        "clips": len(todo.clips),
        "recipe_hash": store.recipe_hash,
        "versions": _versions(),
    }


def _make_folder(target: Target) -> None:
    """Make the folder of a local store: it is what a run locks."""
    path = local_path(target)
    if path is None:
        return
    with disk_errors(f"cannot create the store {path}", "choose another output"):
        path.mkdir(parents=True, exist_ok=True)


def _create(target: Target, catalog: Catalog, recipe: Recipe) -> StoreWriter:
    return create_store(
        target,
        layout=layout(recipe),
        recipe=recipe.to_dict(),
        recipe_hash=recipe.hash,
        provenance={
            "datasets": sorted({printable(clip.dataset) for clip in catalog}),
            "versions": _versions(),
            "runs": [],
        },
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), **pixel_versions()}
    for name in _STATED_PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _worker_count(workers: int | None) -> int:
    count = cores() if workers is None else workers
    if count < 0:
        raise ApexflowError(f"workers must be 0 or more, not {count}")
    return count


def _gpus_here(count: int, gpus: str | int, *, gpu_decode: bool) -> tuple[str, ...]:
    """Return the GPUs of this machine that a run on ``count`` workers takes."""
    wanted = check_gpus(gpus) or 0
    if wanted > count:
        raise ApexflowError(
            f"gpus is {gpus}, and a GPU needs a worker of its own: workers is {count}"
        )
    found = find_gpus(gpus)[:count] if count else ()
    if gpu_decode:
        check_decoder(found)
    return found


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
