"""Handing clips to the workers of a Dask client, so that no worker's death costs a clip.

A bounded number of clips is on its way at a time, so that memory does not grow with the
catalog. Clips that take less than a scheduler's turn travel several to a task. Clips that were
on a worker when it died go again, one by one; those that were on a second one too, each in a
process of its own.

Where workers have cards, a clip goes through the stages of `stages`, CPU and card in turn. Two
cards that die with a clip send it to the CPU; a card that fails three times with no success in
between gets no more.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from apexflow.engine import stages
from apexflow.engine.cards import RESOURCE
from apexflow.engine.task import Outcome, Task, fail_task, finished_outcome, worker_versions
from apexflow.engine.worker import Answer, run_clips, run_suspect
from apexflow.errors import ApexflowError

if TYPE_CHECKING:
    from distributed import Client
    from distributed.scheduler import KilledWorker

logger = logging.getLogger(__name__)

# A task costs Dask about 1.5 ms; clips travel together until that is little beside them.
SECONDS_A_PARCEL = 0.2
MOST_CLIPS_A_PARCEL = 50
DEATHS_OF_A_SUSPECT = 2
DEATHS_ALLOWED = 5
CARDS_LOST_WITH_A_CLIP = 2
FAILURES_OF_A_CARD = 3
# Clips on their way beside those that CPU threads have: waiting for a card, or decoded for it.
CLIPS_A_CARD = 4
SECONDS_ALONE = 120.0
SECONDS_BETWEEN_LOOKS = 1.0
SECONDS_FOR_AN_ANSWER = 5.0
SECONDS_BETWEEN_COMPLAINTS = 30.0


@dataclass(frozen=True, slots=True)
class _Parcel:
    """Clips that travel together.

    Attributes
    ----------
    tasks : tuple of Task
    deaths, losses : int
        How many workers died with them, and how many cards.
    needs : tuple of set of str
        Of each of these groups of workers one must be there, or the parcel is stranded.
    computed : future, optional
        What a card is to make of the clip, or has made.
    """

    tasks: tuple[Task, ...]
    deaths: int = 0
    losses: int = 0
    sent: float = field(default_factory=time.monotonic)
    needs: tuple[frozenset[str], ...] = ()
    computed: Any = None

    def back(self) -> _Parcel:
        """Return it as it was before it was sent."""
        return _Parcel(self.tasks, self.deaths, self.losses)


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
    cards : bool
        Whether to use the cards that workers have.
    gpu_decode : bool
        Whether cards decode JPEG files.
    first_alone : bool
        Whether one parcel is on its way, and no more, until a clip is done, or for two minutes.
    """

    client: Client
    clip_timeout: float
    mend: Callable[[], None]
    cards: bool = False
    gpu_decode: bool = False
    first_alone: bool = False
    _in_flight: dict[Any, _Parcel] = field(default_factory=dict)
    _again: deque[_Parcel] = field(default_factory=deque)
    _finished: SimpleQueue[Any] = field(default_factory=SimpleQueue)
    _refused: set[str] = field(default_factory=set)
    _seconds_a_clip: float = SECONDS_A_PARCEL
    _threads: int = 1
    _on_cpu: frozenset[str] = frozenset()
    _on_card: frozenset[str] = frozenset()
    _failures: Counter[str] = field(default_factory=Counter)
    _ended: set[str] = field(default_factory=set)
    _alone: set[Any] = field(default_factory=set)
    _next_look: float = 0.0
    _started: float = field(default_factory=time.monotonic)
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
        while len(self._in_flight) < self._most_in_flight():
            if self._again:
                self._send(self._again.popleft())
            elif tasks := tuple(islice(waiting, self._parcel_size())):
                self._send(_Parcel(tasks))
            else:
                return

    def _most_in_flight(self) -> int:
        if self.first_alone and time.monotonic() - self._started < SECONDS_ALONE:
            return 1
        if self._on_card:
            return self._threads + CLIPS_A_CARD * len(self._on_card) + 2
        return 2 * self._threads + 2

    def _parcel_size(self) -> int:
        if self._on_card:
            return 1
        wanted = SECONDS_A_PARCEL
        if self.clip_timeout:  # the limit is each clip's; a parcel must stay far below it
            wanted = min(wanted, self.clip_timeout / 20)
        return max(1, min(MOST_CLIPS_A_PARCEL, int(wanted / max(self._seconds_a_clip, 1e-6))))

    def _send(self, parcel: _Parcel) -> None:
        task = parcel.tasks[0]
        options = {"versions": worker_versions(), "clip_timeout": self.clip_timeout}
        if parcel.deaths >= DEATHS_OF_A_SUSPECT:
            future = self._submit(run_suspect, task, on=self._on_cpu, **options)
        elif self._on_card and parcel.losses < CARDS_LOST_WITH_A_CLIP:
            for each in parcel.tasks:
                self._send_to_card(replace(parcel, tasks=(each,)))
            return
        else:
            future = self._submit(run_clips, parcel.tasks, on=self._on_cpu, **options)
        self._await(future, replace(parcel, needs=_groups(self._on_cpu)))

    def _send_to_card(self, parcel: _Parcel) -> None:
        """Send a clip through its stages up to that on the card; `_commit` sends the last."""
        (task,) = parcel.tasks
        limits = self._limits()
        face = None
        if task.recipe.face.detector == "mtcnn":
            frame = self._submit(stages.read_template_frame, task, limits, on=self._on_cpu)
            face = self._submit(stages.find_face, task, frame, limits, on=self._on_card)
        prepared = self._submit(stages.prepare, task, face, limits, on=self._on_cpu)
        computed = self._submit(stages.compute, task, prepared, limits, on=self._on_card)
        needs = _groups(self._on_cpu, self._on_card)
        self._await(computed, replace(parcel, needs=needs, computed=computed))

    def _commit(self, parcel: _Parcel) -> None:
        """Send what a card has made to a CPU worker, which writes it."""
        (task,) = parcel.tasks
        future = self._submit(stages.commit, task, parcel.computed, self._limits(), on=self._on_cpu)
        self._await(future, replace(parcel, needs=(*_groups(self._on_cpu), *parcel.needs[-1:])))

    def _limits(self) -> stages.Limits:
        return stages.Limits(worker_versions(), self.clip_timeout, self.gpu_decode)

    def _submit(
        self, stage: Callable[..., Any], *values: Any, on: frozenset[str], **more: Any
    ) -> Any:
        where: dict[str, Any] = {"workers": sorted(on) or None}
        if on and on == self._on_card:
            where["resources"] = {RESOURCE: 1}
        return self.client.submit(stage, *values, pure=False, **where, **more)

    def _await(self, future: Any, parcel: _Parcel) -> None:
        self._in_flight[future] = parcel
        future.add_done_callback(self._finished.put)

    def _outcomes(self, future: Any) -> Iterator[Outcome]:
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker

        parcel = self._in_flight.pop(future, None)
        if parcel is None:  # taken back
            return
        try:
            if future is parcel.computed:  # stays on its worker, whatever it is
                self._pass_on(future, parcel)
                return
            answer: Answer = future.result(timeout=SECONDS_FOR_AN_ANSWER)
        except KilledWorker as error:
            yield from self._try_again(parcel, error)
            return
        except TimeoutError:
            # The answer was on a worker that has died: Dask does it again, once there is one.
            self._await(future, parcel)
            return
        except FutureCancelledError:
            raise _scheduler_lost(self.client) from None
        if answer.refusal:
            self._refuse(answer)
            self._again.append(parcel.back())
            return
        if answer.card:
            self._judge(answer)
        elif parcel.computed is None and not parcel.deaths:
            seconds = answer.seconds / len(parcel.tasks)
            self._seconds_a_clip += (seconds - self._seconds_a_clip) / 4
        if not all(outcome.failed for outcome in answer.outcomes):
            self.first_alone = False
        yield from answer.outcomes

    def _pass_on(self, future: Any, parcel: _Parcel) -> None:
        error = future.exception(timeout=SECONDS_FOR_AN_ANSWER)
        if future.status == "cancelled":
            raise _scheduler_lost(self.client)
        if error is not None:
            raise error
        self._commit(parcel)

    def _try_again(self, parcel: _Parcel, killed: KilledWorker) -> Iterator[Outcome]:
        """Send the clips of a dead worker again, but those that it had finished."""
        hung = bool(self.clip_timeout) and time.monotonic() - parcel.sent >= self.clip_timeout
        deaths, losses = parcel.deaths, parcel.losses
        if killed.task.startswith(stages.ON_CARD):
            losses = CARDS_LOST_WITH_A_CLIP if hung else losses + 1
            self._card_died(killed.last_worker)
        else:
            deaths += 1
            if hung:  # a clip that hung, most likely
                deaths = max(deaths, DEATHS_OF_A_SUSPECT)
        logger.warning("a worker died with %s", ", ".join(str(t.clip) for t in parcel.tasks))
        for task in parcel.tasks:
            if outcome := finished_outcome(task):
                yield outcome
            elif deaths > DEATHS_ALLOWED:
                yield fail_task(task, f"{deaths} workers died while they had this clip")
            else:
                self._again.append(_Parcel((task,), deaths, losses))

    def _card_died(self, worker: Any) -> None:
        failure = "its worker died"
        self._judge(Answer((), worker=worker.address, card=worker.name, card_failure=failure))
        self._ended.add(worker.address)

    def _judge(self, answer: Answer) -> None:
        """Count a card's failures in a row, and give it up when they are many."""
        card = answer.card
        if not answer.card_failure:
            self._failures.pop(card, None)
            return
        if answer.worker in self._ended:  # several clips may have been on it
            return
        if answer.card_broken:
            self._ended.add(answer.worker)
            self.client.run(stages.end_worker, workers=[answer.worker], on_error="ignore")
        self._failures[card] += 1
        logger.warning("card of worker %s: %s", card, answer.card_failure)
        if self._failures[card] == FAILURES_OF_A_CARD:
            logger.warning(
                "card of worker %s is given up after %d failures in a row; other workers do its "
                "clips",
                card,
                FAILURES_OF_A_CARD,
            )
            self._sort(self.client.nthreads())

    def _refuse(self, answer: Answer) -> None:
        logger.warning("refused: %s", answer.refusal)
        self._refused.add(answer.worker)
        self._sort(self.client.nthreads())
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
        self.mend()
        threads = self.client.nthreads()
        if threads:
            self._alone_since = time.monotonic()
        elif time.monotonic() - self._alone_since > SECONDS_BETWEEN_COMPLAINTS:
            logger.warning("the scheduler has no worker; the run waits for one")
            self._alone_since = time.monotonic()
        self._sort(threads)
        self._threads = max(1, sum(threads.get(worker, 0) for worker in self._on_cpu or threads))
        self._take_back_stranded(set(threads))

    def _sort(self, threads: Mapping[str, int]) -> None:
        """Tell the workers that have cards from the others."""
        with_card = card_workers(self.client) if self.cards else {}
        good = {a for a, name in with_card.items() if self._failures[name] < FAILURES_OF_A_CARD}
        self._on_card = frozenset(good - self._refused)
        without = frozenset(threads.keys() - with_card.keys() - self._refused)
        # Any worker will do where no restriction is needed: also one that joins after this look.
        self._on_cpu = without if with_card or self._refused else frozenset()

    def _take_back_stranded(self, there: set[str]) -> None:
        """Send anew the clips that wait for workers that are gone.

        No stage that waits has written anything. A clip that died with its worker looks the
        same for a moment, until the news of it is here: only what waits at two looks is meant.
        """
        alone = {f for f, parcel in self._in_flight.items() if _stranded(parcel, f, there)}
        lost = list(alone & self._alone)
        self._alone = alone.difference(lost)
        self._again.extend(self._in_flight.pop(future).back() for future in lost)
        if lost:
            self.client.cancel(lost)


def card_workers(client: Client) -> dict[str, str]:
    """Return address and name of the workers that have a card."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    return {a: str(w["name"]) for a, w in workers.items() if w["resources"].get(RESOURCE)}


def _groups(*groups: frozenset[str]) -> tuple[frozenset[str], ...]:
    return tuple(group for group in groups if group)


def _stranded(parcel: _Parcel, future: Any, there: set[str]) -> bool:
    """Whether a parcel waits for workers of which none is left."""
    needs = parcel.needs
    if parcel.computed is not None and future is not parcel.computed:
        # Its card is needed again only when what it made is lost.
        kept = parcel.computed.status == "finished"
        needs = needs[:-1] if kept else needs
    return not future.done() and any(not group & there for group in needs)


def _scheduler_lost(client: Client) -> ApexflowError:
    return ApexflowError(
        f"the Dask scheduler is gone ({client.status}); the clips finished so far are safe, and "
        f"the same command goes on from there"
    )
