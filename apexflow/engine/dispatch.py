"""Handing clips to the workers of a Dask client, so that no worker's death costs a clip.

A bounded number of clips is on its way at a time, so that memory does not grow with the
catalog. Clips that take less than a scheduler's turn travel several to a task. Clips that were
on a worker when it died go again, one by one; those that were on a second one too, each in a
process of its own.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from apexflow.engine.task import Outcome, Task, fail_task, finished_outcome, worker_versions
from apexflow.engine.worker import Answer, run_clips, run_suspect
from apexflow.errors import ApexflowError

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

# A task costs Dask about 1.5 ms; clips travel together until that is little beside them.
SECONDS_A_PARCEL = 0.2
MOST_CLIPS_A_PARCEL = 50
DEATHS_OF_A_SUSPECT = 2
DEATHS_ALLOWED = 5
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_FOR_AN_ANSWER = 5.0
SECONDS_BETWEEN_COMPLAINTS = 30.0


@dataclass(frozen=True, slots=True)
class _Parcel:
    """Clips that travel together; ``deaths`` is how many workers died with them."""

    tasks: tuple[Task, ...]
    deaths: int = 0
    sent: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class Dispatch:
    """One run's clips on the workers of a client.

    Attributes
    ----------
    client : distributed.Client
    clip_timeout : float
        Seconds until a clip that has not finished is ended; 0 waits for ever.
    mend : callable
        Called about once a second; puts local workers in the place of lost ones.
    """

    client: Client
    clip_timeout: float
    mend: Callable[[], None]
    _in_flight: dict[Any, _Parcel] = field(default_factory=dict)
    _again: deque[_Parcel] = field(default_factory=deque)
    _finished: SimpleQueue[Any] = field(default_factory=SimpleQueue)
    _refused: set[str] = field(default_factory=set)
    _seconds_a_clip: float = SECONDS_A_PARCEL
    _threads: int = 1
    _next_look: float = 0.0
    _alone_since: float = field(default_factory=time.monotonic)

    def run(self, tasks: Iterable[Task]) -> Iterator[Outcome]:
        """Yield the outcome of each task, in whatever order they finish."""
        from distributed.comm import CommClosedError

        waiting = iter(tasks)
        try:
            self._fill(waiting)
            while self._in_flight:
                # An interrupt is heard between two waits.
                with suppress(Empty):
                    yield from self._outcomes(self._finished.get(timeout=SECONDS_BETWEEN_LOOKS))
                self._fill(waiting)
        except CommClosedError:  # the scheduler died while it was spoken to
            raise _scheduler_lost(self.client) from None

    def _fill(self, waiting: Iterator[Task]) -> None:
        """Send parcels until each thread has one, and as many again lie ready."""
        if time.monotonic() >= self._next_look:
            self._look()
        while len(self._in_flight) < 2 * self._threads + 2:
            if self._again:
                self._send(self._again.popleft())
            elif tasks := tuple(islice(waiting, self._parcel_size())):
                self._send(_Parcel(tasks))
            else:
                return

    def _parcel_size(self) -> int:
        wanted = SECONDS_A_PARCEL
        if self.clip_timeout:  # the limit is each clip's; a parcel must stay far below it
            wanted = min(wanted, self.clip_timeout / 20)
        return max(1, min(MOST_CLIPS_A_PARCEL, int(wanted / max(self._seconds_a_clip, 1e-6))))

    def _send(self, parcel: _Parcel) -> None:
        options = {
            "versions": worker_versions(),
            "clip_timeout": self.clip_timeout,
            "pure": False,
            "workers": self._accepted(),
        }
        if parcel.deaths >= DEATHS_OF_A_SUSPECT:
            future = self.client.submit(run_suspect, parcel.tasks[0], **options)
        else:
            future = self.client.submit(run_clips, parcel.tasks, **options)
        self._in_flight[future] = parcel
        future.add_done_callback(self._finished.put)

    def _outcomes(self, future: Any) -> Iterator[Outcome]:
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker

        parcel = self._in_flight.pop(future)
        try:
            answer: Answer = future.result(timeout=SECONDS_FOR_AN_ANSWER)
        except KilledWorker:
            yield from self._try_again(parcel)
            return
        except TimeoutError:
            # The answer was on a worker that has died: Dask does it again, once there is one.
            self._in_flight[future] = parcel
            future.add_done_callback(self._finished.put)
            return
        except FutureCancelledError:
            raise _scheduler_lost(self.client) from None
        if answer.refusal:
            self._refuse(answer)
            self._again.append(parcel)
            return
        if not parcel.deaths:
            seconds = answer.seconds / len(parcel.tasks)
            self._seconds_a_clip += (seconds - self._seconds_a_clip) / 4
        yield from answer.outcomes

    def _try_again(self, parcel: _Parcel) -> Iterator[Outcome]:
        """Send the clips of a dead worker again, but those that it had finished."""
        deaths = parcel.deaths + 1
        if self.clip_timeout and time.monotonic() - parcel.sent >= self.clip_timeout:
            deaths = max(deaths, DEATHS_OF_A_SUSPECT)  # a clip that hung, most likely
        logger.warning("a worker died with %s", ", ".join(str(t.clip) for t in parcel.tasks))
        for task in parcel.tasks:
            if outcome := finished_outcome(task):
                yield outcome
            elif deaths > DEATHS_ALLOWED:
                yield fail_task(task, f"{deaths} workers died while they had this clip")
            else:
                self._again.append(_Parcel((task,), deaths))

    def _refuse(self, answer: Answer) -> None:
        logger.warning("refused: %s", answer.refusal)
        self._refused.add(answer.worker)
        if not self._accepted():
            raise ApexflowError(f"no worker is left: {answer.refusal}; install one version")

    def _accepted(self) -> list[str] | None:
        """Return the workers that may be used; None for all."""
        if not self._refused:
            return None
        return [w for w in self.client.nthreads() if w not in self._refused]

    def _look(self) -> None:
        """See to what changes while a run goes on: workers that come, go, or are lost."""
        self._next_look = time.monotonic() + SECONDS_BETWEEN_LOOKS
        if self.client.status in ("closed", "closing"):
            raise _scheduler_lost(self.client)
        self.mend()
        threads = sum(self.client.nthreads().values())
        if threads:
            self._alone_since = time.monotonic()
        elif time.monotonic() - self._alone_since > SECONDS_BETWEEN_COMPLAINTS:
            logger.warning("the scheduler has no worker; the run waits for one")
            self._alone_since = time.monotonic()
        self._threads = max(1, threads)


def _scheduler_lost(client: Client) -> ApexflowError:
    return ApexflowError(
        f"the Dask scheduler is gone ({client.status}); the clips finished so far are safe, and "
        f"the same command goes on from there"
    )
