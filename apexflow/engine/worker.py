"""What a Dask worker is asked to do: some clips one after the other, or one suspect alone."""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO

from apexflow.engine.alone import run_alone
from apexflow.engine.memory import keep_freed_memory
from apexflow.engine.task import Outcome, Task, finished_outcome, run_task, worker_versions


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
        The address of the worker that refused, or whose card took part.
    card, card_failure : str
        The name of the worker whose card took part, and why it failed; then a CPU has done it.
    card_broken : bool
        Whether that worker can use its card no more.
    """

    outcomes: tuple[Outcome, ...]
    seconds: float = 0.0
    refusal: str = ""
    worker: str = ""
    card: str = ""
    card_failure: str = ""
    card_broken: bool = False


def run_clips(tasks: Sequence[Task], *, versions: dict[str, str], clip_timeout: float) -> Answer:
    """Process clips one after the other.

    A clip that hangs cannot be ended without its process: when the time is up the worker ends
    itself, and the run gives each clip that was on it a process of its own.
    """
    if refused := refusal(versions):
        return refused
    keep_freed_memory()
    started = time.perf_counter()
    outcomes = []
    for task in tasks:
        with time_limit(clip_timeout):
            # Dask does a task again whose answer died with its worker.
            outcomes.append(finished_outcome(task) or run_task(task))
    return Answer(tuple(outcomes), time.perf_counter() - started)


def run_suspect(task: Task, *, versions: dict[str, str], clip_timeout: float) -> Answer:
    """Process one clip in a process of its own, within the memory of this worker."""
    from distributed import get_worker

    if refused := refusal(versions):
        return refused
    limit = getattr(get_worker().memory_manager, "memory_limit", None) or 0
    started = time.perf_counter()
    outcome = run_alone(task, clip_timeout=clip_timeout, memory_limit=limit)
    return Answer((outcome,), time.perf_counter() - started)


def refusal(wanted: dict[str, str]) -> Answer | None:
    """Return the refusal of a worker that has joined with other versions."""
    found = worker_versions()
    if found == wanted:
        return None
    from distributed import get_worker

    worker = get_worker()
    text = f"worker {worker.name} at {worker.address} has {found}, the run {wanted}"
    return Answer((), refusal=text, worker=worker.address)


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
            # An earlier deadline that is over by then sets the timer anew.
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
