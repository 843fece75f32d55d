"""From a store of frames and flow to a store of features, or to one file of them."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.errors import ApexflowError, DamagedError
from apexflow.failures import say_failures
from apexflow.features.file import write_file
from apexflow.features.methods import make_method, options_of
from apexflow.features.source import Source, SourceClip
from apexflow.quality import say_flagged
from apexflow.storage.checks import torn_clips
from apexflow.storage.compact import expand
from apexflow.storage.create import create_store
from apexflow.storage.format import (
    DONE,
    FAILED,
    GONE,
    NUMBER_COLUMNS,
    TEXT_COLUMNS,
    ClipRecord,
    ClipRow,
    FeatureLayout,
    Layout,
    Slot,
)
from apexflow.storage.store import Store, open_store
from apexflow.storage.target import (
    Target,
    disk_errors,
    exclusive,
    local_path,
    store_exists,
    sweep,
    target_name,
)
from apexflow.storage.writer import ClipArrays, StoreWriter, open_writer
from apexflow.system import cores

_PACKAGES = ("apexflow", "numba", "numpy")
_GOES_ON = "make room and run the same command again: it goes on from here"
# Clips that are flushed to disk together, and computed ahead of the one that is written next.
_BATCH = 32
_FILE = ".npz"
_MOST_FAILED_LINES = 20  # of each reason


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureSummary:
    """What `extract` did.

    Attributes
    ----------
    output, method : str
    length : int
        Numbers of a vector.
    done, skipped : int
        Clips computed now, and clips that an earlier run had finished.
    failed : tuple of (clip, reason)
    flags : tuple of str
        Those of each clip that was computed now.
    unfinished : int
        Clips of the store that are not processed, or failed there: they have no features.
    gone : tuple of str
        Clips of the output that the store no longer has: they take no part from now on.
    seconds : float
    """

    output: str
    method: str
    length: int
    done: int
    skipped: int
    failed: tuple[tuple[str, str], ...]
    flags: tuple[str, ...]
    unfinished: int
    gone: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        rate = self.done / self.seconds if self.seconds else 0.0
        lines = [
            f"features {self.output}: {self.method}, {self.length} numbers a clip",
            f"done     {self.done} clips in {self.seconds:.1f} s ({rate:.1f} clips/s)",
            f"skipped  {self.skipped} clips that were finished before",
            f"failed   {len(self.failed)} clips",
            *say_failures(self.failed, most=_MOST_FAILED_LINES),
        ]
        if any(self.flags):
            lines.append(f"flagged  {say_flagged(self.flags)}")
        if self.unfinished:
            lines.append(f"left out {self.unfinished} clips that the store has not finished")
        if self.gone:
            lines.append(f"gone     {len(self.gone)} clips that the store no longer has")
        return "\n".join(lines)


def extract(
    store: Target,
    output: Target,
    *,
    method: str = "lbp-top",
    frames: str | None = None,
    window: str | None = None,
    workers: int | None = None,
    progress: bool = True,
    **options: Any,
) -> FeatureSummary:
    """Compute handcrafted features of every finished clip of a store.

    The same call goes on where an earlier one ended: it does what is missing, what has changed in
    the store and what had failed. The bytes are the same whatever the number of workers.

    Parameters
    ----------
    store : path, URL or Zarr store
        What `apexflow.process` made.
    output : path, URL or Zarr store
        A store of features, which `ClipDataset`, `train`, `predict`, `info` and `verify` take as
        any other; or a file ``.npz``, written when all clips are done (what is finished so far
        lies in the folder ``FILE.parts``).
    method : str
        "lbp-top" or "hog-top", of frames; "bi-woof", "hoof" or "mdmo", of flow.
    frames : "interval" or "all", optional
        What methods of frames read of a clip: onset to offset, or all that is stored.
    window : str, optional
        What methods of flow read; the store's first window by default.
    workers : int, optional
        Clips computed at a time, in threads; as many as there are cores when not given.
    progress : bool
        Show clips, rate and time left on standard error.
    **options
        Of the method: those of its function.

    Returns
    -------
    FeatureSummary

    Raises
    ------
    ApexflowError
        There is no such store, method or option, the store does not hold what the method reads
        (the message names the key of the recipe), the output is something else or holds other
        features, a disk is full. A clip that a method cannot take is in the summary's ``failed``.
    """
    started = time.perf_counter()
    made = make_method(method, options)
    count = _worker_count(workers)
    with open_store(store) as opened:
        if opened.layout.features:
            raise ApexflowError(
                f"{opened.name} holds features already: name the store that they were made of"
            )
        source = Source.of(opened, made, method, frames, window)
        job = _Job(source, method, progress, count)
        if _is_file(output):
            return job.to_file(Path(str(output)), started)
        return job.to_store(output, started)


class _Job:
    """One run: a source, a method, and where its features go."""

    def __init__(self, source: Source, method: str, progress: bool, workers: int) -> None:
        self._source, self._method = source, method
        self._progress, self._workers = progress, workers
        self._clips = list(source.clips())
        self._about = {
            "method": method,
            **options_of(source.method),
            **source.what,
        }
        text = json.dumps([self._about, source.store.recipe_hash], sort_keys=True)
        self._hash = hashlib.sha256(text.encode()).hexdigest()

    def to_file(self, path: Path, started: float) -> FeatureSummary:
        """Write a file, by way of a store that is deleted when the file is there."""
        parts = path.with_name(path.name + ".parts")
        if path.exists() and self._is_current(path):
            return self._summary(str(path), skipped=len(self._clips), started=started)
        summary = self.to_store(parts, started)
        with disk_errors(f"cannot write {path}", _GOES_ON):
            with open_store(parts) as made:
                write_file(made, path)
            shutil.rmtree(parts)
        return replace(summary, output=str(path), seconds=time.perf_counter() - started)

    def _is_current(self, path: Path) -> bool:
        """Whether a file holds the features of the clips as they are; refuse other features."""
        try:
            with np.load(path, allow_pickle=False) as found:
                known, digest = str(found["recipe_hash"]), str(found["source_digest"])
        except (OSError, ValueError, KeyError) as error:
            raise ApexflowError(
                f"{path} exists and holds no features of ours ({type(error).__name__}); choose "
                "another output"
            ) from None
        if known != self._hash:
            raise self._other(str(path))
        return digest == self._digest

    def to_store(self, output: Target, started: float) -> FeatureSummary:
        self._check_output(output)  # before anything is computed
        path = local_path(output)
        with disk_errors(f"cannot write to {target_name(output)}", _GOES_ON):
            if path is not None:
                path.mkdir(parents=True, exist_ok=True)
            with exclusive(output):
                made = self._check_output(output) or self._create(output)
                sweep(output)
                return self._run(made, started)

    def _check_output(self, output: Target) -> StoreWriter | None:
        """Return the store that is there; refuse one of other features."""
        if not store_exists(output):
            return None
        found = open_writer(output)
        if found.recipe_hash != self._hash:
            raise self._other(found.name)
        return found

    def _other(self, name: str) -> ApexflowError:
        return ApexflowError(
            f"{name} holds something else than {self._method} of {self._source.store.name} with "
            "these options: choose another output, or give the options that it was made with"
        )

    def _create(self, output: Target) -> StoreWriter:
        source = self._source.store
        attributes = source.attributes
        return create_store(
            output,
            layout=Layout(
                crop=source.layout.crop,
                keep_frames=False,
                windows={},
                flow_dtype="float32",
                maps={},
                stages=("features", "store"),
                features={self._method: FeatureLayout(parts=self._source.parts.to_dict())},
            ),
            recipe={"features": self._about, "source": attributes.get("recipe", {})},
            recipe_hash=self._hash,
            provenance={
                "datasets": attributes.get("datasets", []),
                "versions": {name: version(name) for name in _PACKAGES},
                "source": {
                    "store": source.name,
                    "recipe_hash": source.recipe_hash,
                    "versions": attributes.get("versions", {}),
                },
                "runs": [],
            },
        )

    def _run(self, made: StoreWriter, started: float) -> FeatureSummary:
        clips = self._clips
        rows = clip_rows(self._source.store, [clip.row for clip in clips])
        keys = {row.key for row in rows}
        gone = {index: GONE for index, key in enumerate(made.keys()) if key not in keys}
        slots = made.reserve(rows, standing=gone)
        done, torn = _finished(made), torn_clips(made)
        todo = [
            (clip, slot)
            for clip, slot in zip(clips, slots, strict=True)
            if done.get(slot.index) != clip.fingerprint or slot.index in torn
        ]
        outcomes: list[_Outcome] = []
        if todo:
            expand(made)
            made.begin()
            made.add_run(self._provenance(len(todo)))
            for _, slot in todo:
                made.forget_row(slot.index)
        if todo or not made.complete or gone:
            outcomes = list(self._commit_all(made, todo, skipped=len(clips) - len(todo)))
            made.finalize()
        return self._summary(
            made.name,
            outcomes,
            skipped=len(clips) - len(todo),
            gone=["/".join(made.keys()[index]) for index in gone],
            started=started,
        )

    def _summary(
        self,
        output: str,
        outcomes: Sequence[_Outcome] = (),
        *,
        skipped: int,
        started: float,
        gone: Sequence[str] = (),
    ) -> FeatureSummary:
        return FeatureSummary(
            output=output,
            method=self._method,
            length=len(self._source.parts),
            done=sum(not one.failed for one in outcomes),
            skipped=skipped,
            failed=tuple((one.clip, one.message) for one in outcomes if one.failed),
            flags=tuple(one.flags for one in outcomes),
            unfinished=self._source.store.clip_count - len(self._clips),
            gone=tuple(gone),
            seconds=time.perf_counter() - started,
        )

    def _commit_all(
        self, made: StoreWriter, todo: Sequence[tuple[SourceClip, Slot]], *, skipped: int
    ) -> Iterator[_Outcome]:
        """Compute clips side by side; write them one after another, in the store's order."""
        from apexflow.engine.run.progress import Progress

        shown = Progress(total=len(todo), skipped=skipped, show=self._progress)
        computed = _in_order(partial(_compute, self._source), [c for c, _ in todo], self._workers)
        with shown, computed as vectors:
            for start in range(0, len(todo), _BATCH):
                batch = []
                with made.batch():
                    for clip, slot in todo[start : start + _BATCH]:
                        outcome = _commit(made, self._method, clip, slot, next(vectors))
                        batch.append(outcome)
                        shown.advance(outcome)
                yield from batch

    @property
    def _digest(self) -> str:
        """SHA-256 over what the method can read of all clips."""
        digest = hashlib.sha256()
        for clip in self._clips:
            digest.update(f"{clip.record.key} {clip.fingerprint}\n".encode())
        return digest.hexdigest()

    def _provenance(self, count: int) -> dict[str, Any]:
        return {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "clips": count,
            "recipe_hash": self._hash,
            "source_digest": self._digest,
            "versions": {name: version(name) for name in _PACKAGES},
        }


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one clip; what progress is told."""

    clip: str
    message: str
    frames: int
    flags: str

    @property
    def failed(self) -> bool:
        return bool(self.message)


@dataclass(frozen=True, slots=True)
class _Computed:
    """A clip's vector, or why it has none."""

    vector: NDArray[np.float32] | None
    reason: str
    seconds: float


def _compute(source: Source, clip: SourceClip) -> _Computed:
    started = time.perf_counter()
    try:
        vector = source.vector(clip)
    except (ValueError, DamagedError) as error:
        return _Computed(None, " ".join(str(error).split()), 0.0)
    if not np.isfinite(vector).all():
        return _Computed(None, "a feature is not finite", 0.0)
    return _Computed(vector, "", time.perf_counter() - started)


def _commit(
    made: StoreWriter, method: str, clip: SourceClip, slot: Slot, found: _Computed
) -> _Outcome:
    record = clip.record
    name = "/".join(record.key)
    if found.vector is None:
        failed = ClipRecord(
            dataset=record.dataset,
            subject=record.subject,
            clip=record.clip,
            status=FAILED,
            message=found.reason,
        )
        made.commit(slot, failed, None, {})
        return _Outcome(name, found.reason, 0, "")
    arrays = ClipArrays(None, {}, {}, features={method: found.vector})
    made.commit(slot, _record(clip), arrays, {"features": found.seconds})
    return _Outcome(name, "", len(record.frame_numbers), record.flags)


def _record(clip: SourceClip) -> ClipRecord:
    """Return the clip's record without what is of its frames one by one."""
    return replace(
        clip.record,
        status=DONE,
        fingerprint=clip.fingerprint,
        frame_numbers=(),
        files=(),
        shift=(),
        rotation=(),
        scale=(),
        score=(),
        quality=(),
        pairs={},
        roi_box=(),
        digests={},
    )


def clip_rows(store: Store, rows: Sequence[int]) -> list[ClipRow]:
    """Return what a store's table says of some rows, for a store without frames."""
    names = [name for name in (*TEXT_COLUMNS, *NUMBER_COLUMNS) if not name.startswith("frame_")]
    columns = {name: store.column(name).tolist() for name in names}
    return [ClipRow(**{name: columns[name][row] for name in names}) for row in rows]


def _finished(made: StoreWriter) -> Mapping[int, str]:
    """Return the fingerprints of the clips that are done, by row."""
    records = enumerate(made.sound_records())
    return {row: one.fingerprint for row, one in records if one is not None and one.done}


@contextmanager
def _in_order(
    function: partial[_Computed], clips: Sequence[SourceClip], workers: int
) -> Iterator[Iterator[_Computed]]:
    """Yield the results in the order of the clips, as many ahead as there are workers."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="features")

    def results() -> Iterator[_Computed]:
        ahead: deque[Future[_Computed]] = deque()
        for clip in clips:
            ahead.append(pool.submit(function, clip))
            if len(ahead) > 2 * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()

    try:
        yield results()
    finally:
        # What runs is let to its end: a clip takes a second at most.
        pool.shutdown(cancel_futures=True)


def _is_file(output: Target) -> bool:
    return isinstance(output, str | Path) and str(output).lower().endswith(_FILE)


def _worker_count(workers: int | None) -> int:
    count = cores() if workers is None else workers
    if count < 1:
        raise ApexflowError(f"workers must be 1 or more. Got {workers}.")
    return count
