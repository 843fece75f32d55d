"""Clips, frames/s and time left of a run, on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any, Protocol, Self

from apexflow.failures import kind_of

# Without a terminal (a log file, a batch job) a line now and then says as much as a bar.
SECONDS_BETWEEN_LINES = 10.0
MOST_REASONS = 3
"""Failures that are told while a run goes on: the first of each kind. The summary has all."""

_COMPILING = "compiling the kernels for this machine, once: the first clip takes about a minute"


class Outcome(Protocol):
    """What progress must know of a finished clip."""

    @property
    def clip(self) -> str: ...
    @property
    def failed(self) -> bool: ...
    @property
    def message(self) -> str: ...
    @property
    def frames(self) -> int: ...


def announce(text: str, *, show: bool) -> None:
    """Say at once what a run begins with: it takes seconds until the first clip is done."""
    if show:
        print(text, file=sys.stderr, flush=True)


class Progress:
    """Progress of a run: a bar on a terminal, a line every ten seconds elsewhere.

    Rate and time left are those of the clips after the first that is done: what comes before it
    is starting, and compiling where kernels have to be. Clips that an earlier run finished count
    as done, and for no rate. The clock is one that nobody sets. The first failure of each kind is
    told when it happens, up to three.
    """

    def __init__(self, *, total: int, skipped: int, show: bool, compiling: bool = False) -> None:
        self._total = total
        self._skipped = skipped
        self._show = show
        self._compiling = compiling
        self._untimed = 0, 0  # clips and frames until the clock began
        self._clips = self._failed = self._frames = 0
        self._told: set[str] = set()
        self._bar: Any = None
        self._task: Any = None
        self._started: float | None = None
        self._last_line = time.monotonic()

    def __enter__(self) -> Self:
        announce(_COMPILING, show=self._show and self._compiling and bool(self._total))
        if self._show and sys.stderr.isatty():
            self._bar = _make_bar()
            self._bar.start()
            self._task = self._bar.add_task(
                "clips",
                total=self._skipped + self._total,
                completed=self._skipped,
                said="starting",
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
        if self._started is None and not outcome.failed:
            self._started, self._untimed = time.monotonic(), (self._clips, self._frames)
        if outcome.failed:
            self._tell(outcome)
        if self._bar is not None:
            self._bar.update(self._task, advance=1, said=", ".join(self._said()))
        elif self._show and time.monotonic() - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            print(self._line(), file=sys.stderr, flush=True)

    def _tell(self, outcome: Outcome) -> None:
        kind = kind_of(outcome.message)
        if not self._show or kind in self._told or len(self._told) >= MOST_REASONS:
            return
        self._told.add(kind)
        line = f"failed: {outcome.clip}: {outcome.message}"
        if self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def _said(self) -> list[str]:
        """Return failures, rate and time left, as far as they are known."""
        said = [f"{self._failed} failed"] if self._failed else []
        timed = self._clips - self._untimed[0]
        if self._started is None or not timed:
            return said
        elapsed = max(time.monotonic() - self._started, 1e-3)
        rate = (self._frames - self._untimed[1]) / elapsed
        left = elapsed / timed * (self._total - self._clips)
        return [*said, f"{rate:.0f} frames/s", f"{in_words(left)} left"]

    def _line(self) -> str:
        before = f" ({self._skipped} finished before)" if self._skipped else ""
        start = f"{self._skipped + self._clips}/{self._skipped + self._total} clips{before}"
        return ", ".join([start, *self._said()])


def in_words(seconds: float) -> str:
    """Return a length of time as people say it: ``41 s``, ``3 min``, ``2 h 10 min``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def _make_bar() -> Any:
    """Return a bar whose words are cut before they wrap, however narrow the terminal is."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    return Bar(
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        BarColumn(bar_width=None, table_column=Column(min_width=4, max_width=40, ratio=1)),
        TextColumn("{task.fields[said]}", table_column=Column(no_wrap=True, ratio=2)),
        console=Console(stderr=True),
        expand=True,
    )
