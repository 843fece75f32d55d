"""Clips, frames/s and time left of a run, on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from apexflow.engine.run.task import Outcome

# Without a terminal (a log file, a batch job) a line now and then says as much as a bar.
SECONDS_BETWEEN_LINES = 10.0

_COMPILING = "compiling the kernels for this machine, once: the first clip takes about a minute"


class Progress:
    """Progress of a run: a bar on a terminal, a line every ten seconds elsewhere.

    Clips that an earlier run finished count as done; rates and the time left are of this run's
    clips alone, by a clock that nobody sets. Where kernels have to be compiled first, it says so,
    and the first clip counts for no rate.
    """

    def __init__(self, *, total: int, skipped: int, show: bool, compiling: bool = False) -> None:
        self._total = total
        self._skipped = skipped
        self._show = show
        self._compiling = compiling
        self._untimed = 0, 0  # clips and frames
        self._clips = self._failed = self._frames = 0
        self._bar: Any = None
        self._task: Any = None
        self._started = self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        if self._show and self._compiling and self._total:
            print(_COMPILING, file=sys.stderr, flush=True)
        if self._show and sys.stderr.isatty():
            self._bar = _make_bar()
            self._bar.start()
            self._task = self._bar.add_task(
                "clips",
                total=self._skipped + self._total,
                completed=self._skipped,
                rate="",
                failed="",
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, outcome: Outcome) -> None:
        """Count one finished clip."""
        self._clips += 1
        self._failed += outcome.failed
        self._frames += outcome.frames
        if self._compiling and not outcome.failed:
            self._compiling = False
            self._started, self._untimed = time.monotonic(), (self._clips, self._frames)
        if self._bar is not None:
            failed = f"{self._failed} failed" if self._failed else ""
            self._bar.update(self._task, advance=1, rate=self._rate, failed=failed)
        elif self._show and time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            print(self._line(), file=sys.stderr, flush=True)

    @property
    def _elapsed(self) -> float:
        return max(time.monotonic() - self._started, 1e-3)

    @property
    def _rate(self) -> str:
        return f"{(self._frames - self._untimed[1]) / self._elapsed:.0f} frames/s"

    def _line(self) -> str:
        start = (
            f"{self._skipped + self._clips}/{self._skipped + self._total} clips "
            f"({self._skipped} finished before), {self._failed} failed"
        )
        timed = self._clips - self._untimed[0]
        if not timed:
            return start
        left = self._elapsed / timed * (self._total - self._clips)
        return f"{start}, {self._rate}, {left:.0f} s left"


def _make_bar() -> Any:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    return Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("[red]{task.fields[failed]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
