"""Folds, epochs and time left of a training, on standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from apexflow.training.task import FoldTask

_SILENCE = 15.0  # seconds


class Progress:
    """A bar over all epochs of all folds on a terminal, elsewhere a line a fold and now and then.

    Parameters
    ----------
    folds, finished : int
        Folds of all seeds, and those of them that an earlier run has finished.
    epochs : int
        The most that a fold takes.
    jobs : int
        Folds that are trained side by side.
    show : bool
    told : callable
        What to say of a finished fold.
    """

    def __init__(
        self,
        *,
        folds: int,
        finished: int,
        epochs: int,
        jobs: int,
        show: bool,
        told: Callable[[FoldTask], str],
    ) -> None:
        self._folds, self._finished, self._epochs = folds, finished, epochs
        self._jobs, self._show, self._told = jobs, show, told
        self._running: dict[str, int] = {}
        self._done = 0  # folds
        self._trained = 0  # epochs of these
        self._before: dict[str, int] = {}  # epochs that an earlier run had trained
        self._bar: Any = None
        self._task: Any = None
        self._started = self._said = time.monotonic()
        self._first: float | None = None

    def __enter__(self) -> Self:
        if self._show and sys.stderr.isatty():
            self._bar = _make_bar()
            self._bar.start()
            self._task = self._bar.add_task("folds", total=1.0, left="")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, task: FoldTask) -> None:
        """Say that a fold is being trained."""
        self._running[str(task.place)] = 0
        self._draw(task)

    def epoch(self, task: FoldTask, number: int) -> None:
        """Count the epochs that a fold has done."""
        place = str(task.place)
        if place not in self._before:
            # The first report comes after epoch 1, or after the first one beyond a bookmark.
            self._before[place] = number - 1
            if self._first is None:
                self._first = time.monotonic()
        self._running[place] = number
        self._draw(task)
        now = time.monotonic()
        if self._show and self._bar is None and now - self._said >= _SILENCE:
            self._say(f"{task.name}: epoch {number}/{self._epochs}; {self._left_text()}")

    def end(self, task: FoldTask) -> None:
        """Count a fold, which may have ended before its last epoch."""
        place = str(task.place)
        self._trained += self._running.pop(place, 0)
        self._done += 1
        self._draw(task)
        if self._show and self._bar is None:
            number = self._finished + self._done
            self._say(f"fold {number}/{self._folds} {self._told(task)}; {self._left_text()}")

    def _say(self, line: str) -> None:
        print(line, file=sys.stderr, flush=True)
        self._said = time.monotonic()

    def _draw(self, task: FoldTask) -> None:
        if self._bar is None:
            return
        number = min(self._folds, self._finished + self._done + len(self._running))
        done, left = self._share()
        self._bar.update(
            self._task,
            description=f"fold {number}/{self._folds} {task.name}",
            completed=done / max(done + left, 1e-9),
            left=self._left_text(),
        )

    def _share(self) -> tuple[float, float]:
        """Return the epochs that are done, and those that are left as far as one can tell.

        A fold takes as many as those before it took: patience may end them early.
        """
        each = self._trained / self._done if self._done else float(self._epochs)
        running = sum(self._running.values())
        waiting = self._folds - self._finished - self._done - len(self._running)
        left = waiting * each + sum(max(0.0, each - one) for one in self._running.values())
        return self._finished * each + self._trained + running, left

    def _left_text(self) -> str:
        if self._first is None:
            return "time left not yet known"
        trained = self._trained + sum(self._running.values()) - sum(self._before.values())
        _, left = self._share()
        seconds = (time.monotonic() - self._first) / max(1, trained) * left
        return f"{_duration(seconds)} left"


@contextmanager
def counting(what: str, total: int, *, show: bool) -> Iterator[Callable[[], None]]:
    """Yield what to call for each of ``total`` things done; tell how many, and the time left."""
    started = said = time.monotonic()
    done = 0

    def count() -> None:
        nonlocal done, said
        done += 1
        now = time.monotonic()
        if show and (now - said >= _SILENCE or done == total):
            said = now
            left = _duration((now - started) / done * (total - done))
            print(f"{done}/{total} {what}; {left} left", file=sys.stderr, flush=True)

    yield count


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def _make_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
        console=Console(stderr=True),
    )
