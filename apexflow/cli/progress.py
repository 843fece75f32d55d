"""How far a command has come, on standard error: a bar on a terminal, lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from apexflow.engine.run.progress import SECONDS_BETWEEN_LINES


@contextmanager
def counting(what: str, *, show: bool) -> Iterator[Callable[[int, int], None]]:
    """Yield a function of (done, of) that tells how far a command has come.

    On a terminal it shows a bar; elsewhere a line every ten seconds.
    """
    if not show:
        yield lambda _done, _of: None
        return
    if not sys.stderr.isatty():
        last = time.monotonic()

        def line(done: int, of: int) -> None:
            nonlocal last
            if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                print(f"{done}/{of} {what}", file=sys.stderr, flush=True)

        yield line
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
