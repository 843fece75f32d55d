"""Folds, epochs and time left of a training, on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Self


class Progress:
    """A bar over all epochs of all folds on a terminal, a line a fold elsewhere."""

    def __init__(self, *, folds: int, finished: int, epochs: int, show: bool) -> None:
        self._folds, self._finished, self._epochs, self._show = folds, finished, epochs, show
        self._begun = self._epoch = 0
        self._bar: Any = None
        self._task: Any = None
        self._started = time.monotonic()

    def __enter__(self) -> Self:
        if self._show and sys.stderr.isatty():
            self._bar = _make_bar()
            self._bar.start()
            total = self._folds * self._epochs
            done = self._finished * self._epochs
            self._task = self._bar.add_task("folds", total=total, completed=done)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def begin(self, fold: str) -> None:
        """Say which fold is trained."""
        self._begun += 1
        if self._bar is not None:
            number = self._finished + self._begun
            self._bar.update(self._task, description=f"fold {number}/{self._folds} {fold}")

    def epoch(self, number: int) -> None:
        """Count an epoch of the fold."""
        if self._bar is not None:
            done = (self._finished + self._begun - 1) * self._epochs + number
            self._bar.update(self._task, completed=done)

    def end(self, fold: str, right: int, clips: int, epoch: int) -> None:
        """Count a fold, which may have ended before its last epoch."""
        if self._bar is not None:
            done = (self._finished + self._begun) * self._epochs
            self._bar.update(self._task, completed=done)
        elif self._show:
            number = self._finished + self._begun
            left = (time.monotonic() - self._started) / self._begun * (self._folds - number)
            line = f"fold {number}/{self._folds} {fold}: {right} of {clips} right, epoch {epoch}"
            print(f"{line}; {left:.0f} s left", file=sys.stderr, flush=True)


def _make_bar() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
