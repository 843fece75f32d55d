"""A clip as a unit of work: what a worker gets, does and answers."""

from __future__ import annotations

import json
import math
import platform
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import cv2
from numpy.typing import NDArray

from apexflow.catalog import Clip
from apexflow.engine.clip import CPU, ClipResult, process_clip
from apexflow.engine.clip.backend import Backend
from apexflow.engine.clip.clock import STAGES
from apexflow.engine.clip.facemesh import POINTS as MESH_POINTS
from apexflow.engine.clip.plan import MOST_NUMBER
from apexflow.engine.recipe import Recipe
from apexflow.engine.windows import Window
from apexflow.errors import ApexflowError, ClipError, DamagedError
from apexflow.quality import format_flags
from apexflow.storage.format import (
    DONE,
    FAILED,
    FIGURES,
    NO_NUMBER,
    ClipRecord,
    ClipRow,
    Layout,
    MapLayout,
    Slot,
)
from apexflow.storage.store import Store
from apexflow.storage.target import Target, disk_errors
from apexflow.storage.writer import ClipArrays, StoreWriter, open_writer

GOES_ON = "the clips finished so far are safe, and the same command goes on from there"
# Another version of these may give other pixels.
_PIXEL_PACKAGES = (
    *("apexflow", "numpy", "numba", "opencv-contrib-python-headless", "torch"),
    *("facenet-pytorch", "cupy-cuda13x"),
)


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
    device: str = CPU.name
    flags: str = ""

    @property
    def failed(self) -> bool:
        return self.status == FAILED


def run_task(task: Task, backend: Backend = CPU) -> Outcome:
    """Process one clip and commit it, done or failed.

    Whatever goes wrong with the clip is its own record; only a store that cannot be written
    raises, as `ApexflowError`.
    """
    one_thread_each()
    store = _store(task)
    try:
        result = process_clip(task.clip, task.recipe, backend)
    except ClipError as error:
        return _fail(store, task, str(error))
    except Exception as error:  # a defect met on one clip must not cost the others
        return _fail(store, task, _unexpected(error))
    return _commit_result(store, task, result)


def _unexpected(error: Exception) -> str:
    """Say what went wrong, and where."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{where.name}, line {where.lineno}"
    return f"unexpected {type(error).__name__} in {place}: {error}"


def _commit_result(store: StoreWriter, task: Task, result: ClipResult) -> Outcome:
    try:
        record, arrays = _done_record(task.clip, result), _arrays(task.recipe, result)
        record = replace(record, versions=other_versions(store))
        seconds = _commit(store, task.slot, record, arrays, result)
    except ApexflowError:
        raise
    except Exception as error:  # a value that no array can hold must not cost the others
        return _fail(store, task, _unexpected(error))
    frames = len(result.plan.numbers)
    return Outcome(
        str(task.clip), DONE, "", frames, seconds, result.device, format_flags(result.flags)
    )


def _fail(store: StoreWriter, task: Task, reason: str) -> Outcome:
    reason = " ".join(printable(reason).splitlines())
    record = ClipRecord(**_key(task.clip), status=FAILED, message=reason)
    _commit(store, task.slot, record, None, None)
    return Outcome(str(task.clip), FAILED, reason)


def fail_task(task: Task, reason: str) -> Outcome:
    """Commit a task's failure from outside of it: its worker could not."""
    return _fail(open_writer(task.target), task, reason)


def finished_outcome(task: Task) -> Outcome | None:
    """Return what a task has committed though nobody heard of it; None when it has not.

    A run takes back the records of clips that it does again before it sends them.
    """
    try:
        record = _store(task).record(task.slot.index)
    except DamagedError:
        return None
    if record is None or record.fingerprint != task.fingerprint or not record.done:
        return None
    return Outcome(
        str(task.clip),
        DONE,
        frames=len(record.frame_numbers),
        device=record.device,
        flags=record.flags,
    )


def clip_row(clip: Clip, frame_capacity: int, shared: str = "") -> ClipRow:
    """Return the clip as the store's table has it; its key must be `storable`.

    ``shared`` is the clip of another person that has its frames.
    """
    return ClipRow(
        **_key(clip),
        source=printable(clip.source),
        emotion=printable(clip.emotion),
        action_units=printable(clip.action_units),
        details=printable(_details(clip)),
        person=printable(clip.person),
        shared=printable(shared),
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
    return NO_NUMBER if value is None or abs(value) > MOST_NUMBER else value


def storable(text: str) -> bool:
    """Whether a text is UTF-8 throughout: a name on disk need not be."""
    return printable(text) == text


def printable(text: str) -> str:
    """Return a text in which bytes that are not UTF-8 are escaped."""
    return text.encode(errors="backslashreplace").decode()


@lru_cache(maxsize=1)
def pixel_versions() -> dict[str, str]:
    """Return the versions here of what may change a pixel."""
    found = {"machine": platform.machine()}
    for name in _PIXEL_PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def other_versions(store: Store) -> dict[str, str]:
    """Return those of `pixel_versions` that are not what the store was made with."""
    made = store.attributes.get("versions", {})
    return {name: now for name, now in pixel_versions().items() if made.get(name, now) != now}


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
        confidence_dtype=recipe.flow.confidence_dtype,
        landmarks=recipe.face.landmark_count,
        mesh=MESH_POINTS if recipe.face.mesh else 0,
        interpolated=recipe.frames.interpolated,
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


def _store(task: Task) -> StoreWriter:
    if isinstance(task.target, str):
        return _opened(task.target, task.run)
    return open_writer(task.target)


@contextmanager
def committed_together(tasks: Sequence[Task]) -> Iterator[None]:
    """Commit the clips of a batch of one run with one flush, at the end of the block."""
    store = _store(tasks[0])
    with disk_errors(f"cannot write to {store.name}", GOES_ON), store.batch():
        yield


@lru_cache(maxsize=1)
def _opened(target: str, run: str) -> StoreWriter:
    """Open a store once a worker and run: the next run may find it grown, or another one."""
    return open_writer(target)


def _commit(
    store: StoreWriter,
    slot: Slot,
    record: ClipRecord,
    arrays: ClipArrays | None,
    result: ClipResult | None,
) -> dict[str, float]:
    with disk_errors(f"cannot write to {store.name}", GOES_ON):
        return store.commit(slot, record, arrays, {} if result is None else result.seconds)


def _key(clip: Clip) -> dict[str, Any]:
    return {"dataset": clip.dataset, "subject": clip.subject, "clip": clip.name}


def _done_record(clip: Clip, result: ClipResult) -> ClipRecord:
    aligned, face = result.aligned, result.face
    return ClipRecord(
        **_key(clip),
        status=DONE,
        fingerprint=result.plan.fingerprint,
        frames=result.plan.files,
        frame_numbers=aligned.numbers,
        files=result.files,
        shift=tuple((float(x), float(y)) for x, y in aligned.shift),
        rotation=tuple(aligned.rotation.tolist()),
        scale=tuple(aligned.scale.tolist()),
        score=tuple(float(value) for value in aligned.score),
        template_frame=result.plan.template,
        apex_frame=_number(result.plan.key_frames.get("apex")),
        apex_source=result.plan.apex_source,
        apex_confidence=result.plan.apex_confidence,
        box=tuple(float(value) for value in result.box),
        landmarks=face.landmarks,
        mesh=() if result.mesh is None else tuple(map(tuple, result.mesh.round(2).tolist())),
        confidence=face.confidence,
        pairs=result.plan.pairs,
        roi_box=result.regions,
        device=result.device,
        face_device=CPU.name,
        decode_device=aligned.decode_device,
        sample_bits=result.sample_bits,
        frame_rate=result.plan.rate,
        magnification=result.magnification,
        **_figures(result),
        flags=format_flags(result.flags),
    )


def _figures(result: ClipResult) -> dict[str, Any]:
    """Return the figures of quality as a record has them: rounded, None for what says nothing."""
    quality = result.quality
    of_frames = {name: getattr(quality.frames, name) for name in quality.frames.__slots__}
    of_frames["distance_to_margin"] = result.aligned.distance_to_margin
    columns = (of_frames[name].tolist() for name in FIGURES["quality"])
    of_flow = tuple(getattr(quality, name) for name in FIGURES["flow_quality"])
    return {
        "flow_quality": of_flow if math.isfinite(quality.motion) else (),
        "quality": tuple(tuple(map(_rounded, row)) for row in zip(*columns, strict=True)),
    }


def _rounded(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _arrays(recipe: Recipe, result: ClipResult) -> ClipArrays:
    frames = result.aligned.crops if recipe.frames.keep else None
    made = result.interpolated
    interpolated: dict[str, NDArray[Any]] = {}
    if made is not None:
        interpolated = {"image": made.crops, "frame_number": made.frame_numbers}
    return ClipArrays(
        frames, result.flow, result.maps, result.roi, result.confidence, interpolated=interpolated
    )


def worker_versions() -> dict[str, str]:
    """Return what must agree between the process that starts a run and its workers."""
    import apexflow

    return {"apexflow": apexflow.__version__}
