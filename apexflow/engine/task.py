"""A clip as a unit of work: what a worker gets, does and answers."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

import cv2

from apexflow.catalog import Clip
from apexflow.engine.process import CPU, STAGES, ClipResult, process_clip
from apexflow.engine.recipe import Recipe
from apexflow.engine.windows import Window
from apexflow.errors import ApexflowError, ClipError
from apexflow.storage.format import (
    DONE,
    FAILED,
    NO_NUMBER,
    ClipRecord,
    ClipRow,
    Layout,
    MapLayout,
    Slot,
)
from apexflow.storage.store import ClipArrays, Store, open_store
from apexflow.storage.target import Target

Made = TypeVar("Made")


@dataclass(frozen=True, slots=True)
class Task:
    """One clip to be processed into its slot, in the run of that name.

    ``fingerprint`` is that of the clip's files when the run was planned; empty when they could
    not be looked at.
    """

    clip: Clip
    slot: Slot
    recipe: Recipe
    target: Target
    fingerprint: str
    run: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one task: small, whatever the clip's size."""

    clip: str
    status: str
    message: str = ""
    frames: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    device: str = CPU

    @property
    def failed(self) -> bool:
        return self.status == FAILED


def run_task(task: Task) -> Outcome:
    """Process one clip and commit it, done or failed.

    Whatever goes wrong with the clip is its own record; only a store that cannot be written
    raises, as `ApexflowError`.
    """
    result = attempt(task, lambda: process_clip(task.clip, task.recipe))
    return result if isinstance(result, Outcome) else commit_result(task, result)


def attempt(task: Task, work: Callable[[], Made]) -> Made | Outcome:
    """Return what some work on a clip makes, or commit that it has failed."""
    one_thread_each()
    store = _store(task)
    try:
        return work()
    except ClipError as error:
        return fail(store, task, str(error))
    except Exception as error:  # a defect met on one clip must not cost the others
        return fail(store, task, unexpected(error))


def unexpected(error: Exception) -> str:
    """Say what went wrong, and where."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{where.name}, line {where.lineno}"
    return f"unexpected {type(error).__name__} in {place}: {error}"


def commit_result(task: Task, result: ClipResult) -> Outcome:
    """Commit a clip that is done."""
    record, arrays = _done_record(task.clip, result), _arrays(task.recipe, result)
    seconds = _commit(_store(task), task.slot, record, arrays, result)
    frames = len(result.plan.numbers)
    return Outcome(str(task.clip), DONE, "", frames, seconds, result.device)


def fail(store: Store, task: Task, reason: str) -> Outcome:
    """Commit a clip's failure with its reason."""
    record = ClipRecord(**_key(task.clip), status=FAILED, message=reason)
    _commit(store, task.slot, record, None, None)
    return Outcome(str(task.clip), FAILED, reason)


def fail_task(task: Task, reason: str) -> Outcome:
    """Commit a task's failure from outside of it: its worker could not."""
    return fail(open_store(task.target, mode="r+"), task, reason)


def finished_outcome(task: Task) -> Outcome | None:
    """Return what a task has committed though nobody heard of it; None when it has not.

    A run takes back the records of clips that it does again before it sends them.
    """
    record = _store(task).record(task.slot.index)
    if record is None or record.fingerprint != task.fingerprint or not record.done:
        return None
    return Outcome(str(task.clip), DONE, "", len(record.frame_numbers), device=record.device)


def clip_row(clip: Clip, frame_capacity: int) -> ClipRow:
    """Return the clip as the store's table has it."""
    return ClipRow(
        **_key(clip),
        source=clip.source,
        emotion=clip.emotion,
        action_units=clip.action_units,
        details=_details(clip),
        label=_number(clip.label),
        onset=_number(clip.onset),
        apex=_number(clip.apex),
        offset=_number(clip.offset),
        frame_capacity=frame_capacity,
    )


def _details(clip: Clip) -> str:
    """Return what else is known of a clip as a JSON object, empty when that is nothing."""
    known: dict[str, str | list[str]] = dict(clip.extra)
    for name in ("emotion_text", "origin"):
        if getattr(clip, name):
            known[name] = getattr(clip, name)
    if clip.corrections:
        known["corrections"] = list(clip.corrections)
    return json.dumps(known, ensure_ascii=False) if known else ""


def _number(value: int | None) -> int:
    return NO_NUMBER if value is None else value


def layout(recipe: Recipe) -> Layout:
    """Return what a recipe makes of each clip, in the store's terms."""
    return Layout(
        crop=(recipe.crop.height, recipe.crop.width),
        keep_frames=recipe.frames.keep,
        windows={name: Window.parse(name).count for name in recipe.windows},
        flow_dtype=recipe.flow.dtype,
        maps={
            name: MapLayout(size=wanted.size, window=wanted.window, regions=wanted.regions)
            for name, wanted in recipe.maps.items()
        },
        stages=STAGES,
        regions=recipe.regions.names,
        region_size=(recipe.regions.height, recipe.regions.width),
        region_units="pixels of the "
        + ("crop" if recipe.regions.source == "flow" else "enlarged region"),
        region_boxes=recipe.regions.placed,
    )


@lru_cache(maxsize=1)
def one_thread_each() -> None:
    """Keep OpenCV's own thread pool from fighting over the cores with the other clips."""
    cv2.setNumThreads(1)


@contextmanager
def opencv_threads_restored() -> Iterator[None]:
    """Leave OpenCV's number of threads in this process as it was."""
    before = cv2.getNumThreads()
    one_thread_each.cache_clear()
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _store(task: Task) -> Store:
    if isinstance(task.target, str):
        return _opened(task.target, task.run)
    return open_store(task.target, mode="r+")


@lru_cache(maxsize=1)
def _opened(target: str, run: str) -> Store:
    """Open a store once a worker and run: the next run may find it grown, or another one."""
    return open_store(target, mode="r+")


def _commit(
    store: Store,
    slot: Slot,
    record: ClipRecord,
    arrays: ClipArrays | None,
    result: ClipResult | None,
) -> dict[str, float]:
    try:
        return store.commit(slot, record, arrays, {} if result is None else result.seconds)
    except OSError as error:
        raise ApexflowError(
            f"cannot write to {store.name}: {error.strerror or error}; the clips finished so far "
            f"are safe, and the same command goes on from there"
        ) from None


def _key(clip: Clip) -> dict[str, Any]:
    return {"dataset": clip.dataset, "subject": clip.subject, "clip": clip.name}


def _done_record(clip: Clip, result: ClipResult) -> ClipRecord:
    aligned, face = result.aligned, result.face
    return ClipRecord(
        **_key(clip),
        status=DONE,
        fingerprint=result.plan.fingerprint,
        frame_numbers=aligned.numbers,
        files=result.files,
        shift=tuple((float(x), float(y)) for x, y in aligned.shift),
        rotation=tuple(aligned.rotation.tolist()),
        scale=tuple(aligned.scale.tolist()),
        score=tuple(float(value) for value in aligned.score),
        template_frame=result.plan.template,
        apex_frame=_number(result.plan.moments.get("apex")),
        apex_source=result.plan.apex_source,
        box=tuple(float(value) for value in result.box),
        landmarks=face.landmarks,
        confidence=face.confidence,
        steps=result.plan.steps,
        roi_box=result.regions,
        device=result.device,
        face_device=result.face_device,
        decode_device=result.decode_device,
    )


def _arrays(recipe: Recipe, result: ClipResult) -> ClipArrays:
    frames = result.aligned.crops if recipe.frames.keep else None
    return ClipArrays(frames, result.flow, result.maps, result.roi)


def worker_versions() -> dict[str, str]:
    """Return what must agree between the process that starts a run and its workers."""
    import apexflow

    return {"apexflow": apexflow.__version__}
