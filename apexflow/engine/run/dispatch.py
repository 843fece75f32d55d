"""Handing clips to the workers of a Dask client, so that no worker's death costs a clip.

A bounded number of clips is in flight at a time, so that memory does not grow with the catalog.
Clips that take less than a scheduler's turn travel several to a batch. Clips that were on a
worker when it died go again, one by one; those that were on a second one too are isolated, each
in a process of its own.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from apexflow.engine.run.task import Outcome, Task, fail_task, finished_outcome
from apexflow.engine.run.worker import Answer, end_process, run_batch, run_isolated
from apexflow.errors import ApexflowError

if TYPE_CHECKING:
    from distributed import Client

logger = logging.getLogger(__name__)

# A task costs Dask about 1.5 ms; clips travel together until that is little beside them.
SECONDS_A_BATCH = 0.2
MOST_CLIPS_A_BATCH = 50
DEATHS_UNTIL_ISOLATED = 2
DEATHS_ALLOWED = 5
SECONDS_COMPILING = 120.0
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_FOR_AN_ANSWER = 5.0
# A look may have to wait for an answer that lies on a worker that is stopped.
LONGEST_BETWEEN_LOOKS = SECONDS_FOR_AN_ANSWER + 2 * SECONDS_BETWEEN_LOOKS
SECONDS_BETWEEN_COMPLAINTS = 30.0
# A worker sends a sign of life every half second; one that is stopped, or waits for a dead disk,
# sends none. One that computes without a pause may be late.
SECONDS_OF_SILENCE = 10.0


@dataclass(frozen=True, slots=True)
class _Batch:
    """Clips that travel together, and how many workers have died with them."""

    tasks: tuple[Task, ...]
    deaths: int = 0
    sent: float = 0.0


@dataclass(slots=True)
class Dispatch:
    """One run's clips on the workers of a client.

    Attributes
    ----------
    client : distributed.Client
    setup : str
        The name of the workers' plug-in, see `worker.WorkerSetup`.
    clip_timeout : float
        Seconds until a clip that has not finished is ended; 0 waits for ever.
    replace_lost_workers : callable
        Called about once a second; starts local workers in the place of those whose nanny died.
    end_worker : callable
        Ends the worker of that address from outside; says what has become of it.
    compile_first : bool
        Whether one batch is in flight, and no more, until a clip is done, or for two minutes.
    """

    client: Client
    setup: str
    clip_timeout: float
    replace_lost_workers: Callable[[], None]
    end_worker: Callable[[str], str]
    compile_first: bool = False
    _in_flight: dict[Any, _Batch] = field(default_factory=dict)
    _again: deque[_Batch] = field(default_factory=deque)
    _finished: SimpleQueue[Any] = field(default_factory=SimpleQueue)
    _refused: set[str] = field(default_factory=set)
    _replaced: set[str] = field(default_factory=set)
    _seconds_a_clip: float = SECONDS_A_BATCH
    _threads: int = 1
    _next_look: float = 0.0
    _signs: dict[str, tuple[float, float]] = field(default_factory=dict)
    _looked: float = 0.0
    _started: float = field(default_factory=time.monotonic)
    _without_worker_since: float = field(default_factory=time.monotonic)

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
        """Send batches until each thread has one, and as many again lie ready."""
        if time.monotonic() >= self._next_look:
            self._look()
        while len(self._in_flight) < self._most_in_flight():
            if self._again:
                self._send(self._again.popleft())
            elif tasks := tuple(islice(waiting, self._batch_size())):
                self._send(_Batch(tasks))
            else:
                return

    def _most_in_flight(self) -> int:
        if self.compile_first and time.monotonic() - self._started < SECONDS_COMPILING:
            return 1
        return 2 * self._threads + 2

    def _batch_size(self) -> int:
        wanted = SECONDS_A_BATCH
        if self.clip_timeout:  # the limit is each clip's; a batch must stay far below it
            wanted = min(wanted, self.clip_timeout / 20)
        return max(1, min(MOST_CLIPS_A_BATCH, int(wanted / max(self._seconds_a_clip, 1e-6))))

    def _send(self, batch: _Batch) -> None:
        options: dict[str, Any] = {"setup": self.setup, "clip_timeout": self.clip_timeout}
        if self._refused:
            # Where none of these is left, one that has refused says so again.
            options |= {"workers": sorted(self._accepted()), "allow_other_workers": True}
        if batch.deaths >= DEATHS_UNTIL_ISOLATED:
            future = self.client.submit(run_isolated, batch.tasks[0], pure=False, **options)
        else:
            future = self.client.submit(run_batch, batch.tasks, pure=False, **options)
        self._await(future, replace(batch, sent=time.monotonic()))

    def _await(self, future: Any, batch: _Batch) -> None:
        self._in_flight[future] = batch
        future.add_done_callback(self._finished.put)

    def _outcomes(self, future: Any) -> Iterator[Outcome]:
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker

        batch = self._in_flight.pop(future)
        try:
            answer: Answer = future.result(timeout=SECONDS_FOR_AN_ANSWER)
        except KilledWorker:
            yield from self._try_again(batch)
            return
        except TimeoutError:
            # The answer was on a worker that has died: Dask does it again, once there is one.
            self._await(future, batch)
            return
        except FutureCancelledError:
            raise _scheduler_lost(self.client) from None
        if answer.refusal:
            self._refuse(answer)
            self._again.append(batch)
            return
        self._hear(answer)
        if not batch.deaths:
            seconds = answer.seconds / len(batch.tasks)
            self._seconds_a_clip += (seconds - self._seconds_a_clip) / 4
        if not all(outcome.failed for outcome in answer.outcomes):
            self.compile_first = False
        yield from answer.outcomes

    def _try_again(self, batch: _Batch) -> Iterator[Outcome]:
        """Send the clips of a dead worker again, but those that it had finished."""
        hung = bool(self.clip_timeout) and time.monotonic() - batch.sent >= self.clip_timeout
        deaths = batch.deaths + 1
        if hung:  # a clip that hung, most likely
            deaths = max(deaths, DEATHS_UNTIL_ISOLATED)
        logger.warning("a worker died with %s", ", ".join(str(t.clip) for t in batch.tasks))
        for task in batch.tasks:
            if outcome := finished_outcome(task):
                yield outcome
            elif deaths > DEATHS_ALLOWED:
                yield fail_task(task, f"{deaths} workers died while they had this clip")
            else:
                self._again.append(_Batch((task,), deaths))

    def _hear(self, answer: Answer) -> None:
        """Pass on what a worker complains of; have its process ended where it asks for that."""
        for warning in answer.warnings:
            logger.warning("worker %s: %s", answer.worker, warning)
        if answer.replace_worker and answer.worker not in self._replaced:
            self._replaced.add(answer.worker)
            self.client.run(end_process, workers=[answer.worker], on_error="ignore")

    def _refuse(self, answer: Answer) -> None:
        if answer.worker not in self._refused:
            logger.warning("refused: %s", answer.refusal)
        self._refused.add(answer.worker)
        if not self._accepted():
            raise ApexflowError(f"no worker is left: {answer.refusal}; install one version")

    def _accepted(self) -> set[str]:
        """Return the workers that may be used."""
        return set(self.client.nthreads()) - self._refused

    def _look(self) -> None:
        """See to what changes while a run goes on: workers that come, go, or are lost."""
        self._next_look = time.monotonic() + SECONDS_BETWEEN_LOOKS
        if self.client.status in ("closed", "closing"):
            raise _scheduler_lost(self.client)
        self._end_silent_workers()
        self.replace_lost_workers()
        threads = self.client.nthreads()
        if threads:
            self._without_worker_since = time.monotonic()
        elif time.monotonic() - self._without_worker_since > SECONDS_BETWEEN_COMPLAINTS:
            logger.warning("the scheduler has no worker; the run waits for one")
            self._without_worker_since = time.monotonic()
        self._threads = max(1, sum(n for w, n in threads.items() if w not in self._refused))

    def _end_silent_workers(self) -> None:
        """End workers that are past a clip's time and give no sign of life.

        A worker ends itself when a clip takes too long, unless it is stopped or waits in the
        kernel: its timer stands still with it.
        """
        now = time.monotonic()
        if now - self._looked > LONGEST_BETWEEN_LOOKS:  # we were stopped ourselves
            self._signs.clear()
        self._looked = now
        overdue = (now - batch.sent > self.clip_timeout for batch in self._in_flight.values())
        if not self.clip_timeout or not any(overdue):
            self._signs.clear()
            return
        for address, worker in self.client.scheduler_info(n_workers=-1)["workers"].items():
            sign, seen = self._signs.get(address, (None, now))
            if sign != worker["last_seen"]:
                self._signs[address] = worker["last_seen"], now
            elif now - seen > SECONDS_OF_SILENCE:
                del self._signs[address]
                became = self.end_worker(address)
                logger.warning("worker %s gives no sign of life: %s", address, became)


def _scheduler_lost(client: Client) -> ApexflowError:
    return ApexflowError(
        f"the Dask scheduler is gone ({client.status}); the clips finished so far are safe, and "
        f"the same command goes on from there"
    )
