"""A worker's side of a run: how it is set up, and the batches of clips that it is given.

What every worker needs is set up once, by a plug-in that Dask hands to each worker there is and
to each that joins later.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any

from distributed import WorkerPlugin, get_worker

from apexflow.engine.clip.backend import CPU, Backend
from apexflow.engine.run.gpus import GpuOptions, open_gpu, share_of_gpu
from apexflow.engine.run.isolated import run_isolated as isolate
from apexflow.engine.run.task import (
    Outcome,
    Task,
    committed_together,
    finished_outcome,
    one_thread_each,
    run_task,
    worker_versions,
)
from apexflow.kernels.gpu import GpuUnavailable
from apexflow.system import keep_freed_memory


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker sends back: small, whatever the clips' size.

    Attributes
    ----------
    outcomes : tuple of Outcome
        One a clip; empty when the worker refused.
    seconds : float
        Time that the clips took together.
    refusal : str
        Why this worker cannot take part, with its name.
    worker : str
        Its address.
    warnings : tuple of str
        What the user has to know of this worker, each once.
    replace_worker : bool
        Whether its process has to be ended, so that its nanny starts another.
    """

    outcomes: tuple[Outcome, ...]
    seconds: float = 0.0
    refusal: str = ""
    worker: str = ""
    warnings: tuple[str, ...] = ()
    replace_worker: bool = False


class WorkerSetup(WorkerPlugin):  # type: ignore[misc]
    """What a worker needs for one run.

    Parameters
    ----------
    name : str
        Of the run: workers of a scheduler may serve several.
    versions : dict of str to str
        What a worker must have.
    modules : sequence of str
        Those that clips will need and that take long to import: imported while Dask connects.
    gpu : GpuOptions, optional
        How a worker that was given a GPU uses it; None leaves it alone.
    """

    def __init__(
        self,
        name: str,
        *,
        versions: dict[str, str],
        modules: Sequence[str] = (),
        gpu: GpuOptions | None = None,
    ) -> None:
        self.name = name
        self.refusal = ""
        self.warnings: list[str] = []
        self._versions = versions
        self._modules = tuple(modules)
        self._gpu = gpu
        self._backend: Backend | None = None
        self._share = 0.0

    def setup(self, worker: Any) -> None:
        found = worker_versions()
        if found != self._versions:
            place = f"worker {worker.name} at {worker.address}"
            self.refusal = f"{place} has {found}, the run {self._versions}"
            return
        one_thread_each()
        keep_freed_memory()
        self._opening = threading.Lock()
        self._share = share_of_gpu(worker) if self._gpu else 0.0
        threading.Thread(target=self._import, daemon=True).start()

    def _import(self) -> None:
        with suppress(Exception):  # the first clip that needs it says what does not load
            for name in self._modules:
                importlib.import_module(name)

    @property
    def backend(self) -> Backend:
        """The GPU that this worker was given, opened at its first use; else the CPU."""
        with self._opening:
            if self._backend is None:
                self._backend = self._open()
            return self._backend

    def _open(self) -> Backend:
        if self._gpu is None or not self._share:
            return CPU
        try:
            return open_gpu(self._gpu, self._share)
        except GpuUnavailable as error:
            self.warnings.append(f"a worker goes on with the CPU: {error}")
            return CPU

    def take_warnings(self) -> tuple[str, ...]:
        """Return what nobody has been told yet."""
        complaints = getattr(self._backend, "complaints", [])
        told = (*self.warnings, *complaints)
        self.warnings.clear()
        complaints.clear()
        return told

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_opening"}


def run_batch(tasks: Sequence[Task], *, setup: str, clip_timeout: float) -> Answer:
    """Process clips one after the other, as the plug-in called ``setup`` says.

    A clip that hangs cannot be ended without its process: when the time is up the worker ends
    itself, and the run gives each clip that was on it a process of its own.
    """
    worker = get_worker()
    own: WorkerSetup = worker.plugins[setup]
    if own.refusal:
        return Answer((), refusal=own.refusal, worker=worker.address)
    started = time.perf_counter()
    outcomes = []
    with committed_together(tasks):
        for task in tasks:
            with time_limit(clip_timeout):
                # Dask does a task again whose answer died with its worker.
                outcomes.append(finished_outcome(task) or run_task(task, own.backend))
    return Answer(
        tuple(outcomes),
        time.perf_counter() - started,
        worker=worker.address,
        warnings=own.take_warnings(),
        replace_worker=getattr(own.backend, "broken", False),
    )


def run_isolated(task: Task, *, setup: str, clip_timeout: float) -> Answer:
    """Process one clip on the CPU in a process of its own, within the memory of this worker."""
    worker = get_worker()
    own: WorkerSetup = worker.plugins[setup]
    if own.refusal:
        return Answer((), refusal=own.refusal, worker=worker.address)
    limit = getattr(worker.memory_manager, "memory_limit", None) or 0
    started = time.perf_counter()
    outcome = isolate(task, clip_timeout=clip_timeout, memory_limit=limit)
    return Answer((outcome,), time.perf_counter() - started, worker=worker.address)


def end_process() -> None:
    """End the worker's process; its nanny starts another."""
    os._exit(1)


@dataclass(slots=True)
class _Watch:
    """Ends this process when a clip takes too long, even one that holds the GIL.

    The timer is faulthandler's, a thread of the C library. There is one a process, so it is
    set to the earliest of the threads' deadlines.
    """

    deadlines: dict[int, float] = field(default_factory=dict)
    armed: float | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def limit(self, seconds: float) -> Iterator[None]:
        if not seconds:
            yield
            return
        me = threading.get_ident()
        with self.lock:
            self.deadlines[me] = time.monotonic() + seconds
            # An earlier deadline that is over by then sets the timer again.
            if self.armed is None or self.deadlines[me] < self.armed:
                self._arm()
        try:
            yield
        finally:
            with self.lock:
                mine = self.deadlines.pop(me)
                if self.armed is not None and mine <= self.armed:
                    self._arm()

    def _arm(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        self.armed = min(self.deadlines.values(), default=None)
        if self.armed is not None:
            left = max(self.armed - time.monotonic(), 0.001)
            faulthandler.dump_traceback_later(left, exit=True, file=_nowhere())


_watch = _Watch()
time_limit = _watch.limit


@cache
def _nowhere() -> IO[str]:
    return Path(os.devnull).open("w")
