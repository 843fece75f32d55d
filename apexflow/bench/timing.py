"""Time on one pinned core, both sides in turn, so that what else the machine does hits both."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from statistics import median
from typing import Any

import cv2

from apexflow.bench.cases import Case

SECONDS_A_TURN = 0.02


@contextmanager
def cores(count: int) -> Iterator[int]:
    """Keep the process, and OpenCV's one thread, on that many cores; yield how many there are."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    if not hasattr(os, "sched_setaffinity"):  # only Linux can pin
        yield min(count, os.cpu_count() or 1)
        cv2.setNumThreads(threads)
        return
    allowed = os.sched_getaffinity(0)
    chosen = sorted(allowed)[:count]
    os.sched_setaffinity(0, chosen)
    try:
        yield len(chosen)
    finally:
        os.sched_setaffinity(0, allowed)
        cv2.setNumThreads(threads)


def measure(case: Case, *, rounds: int) -> dict[str, Any]:
    """Return the medians of one case in ms per piece of work, and the agreement."""
    difference = case.difference(case.ours(), case.reference())  # compiles, too
    timed = {"ours": case.ours, "reference": case.reference}
    spent = interleave(timed, rounds)
    ours, reference = spent["ours"] / case.items, spent["reference"] / case.reference_items
    others = interleave(case.others, min(rounds, 3))
    return {
        "kernel": case.kernel,
        "size": case.size,
        "ours_ms": ours,
        "reference_ms": reference,
        "ratio": reference / ours,
        "difference": difference,
        "unit": case.unit,
        "tolerance": case.tolerance if case.tolerance < float("inf") else None,
        "others_ms": others,
    }


def interleave(functions: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Call the functions in turn; return the median of each in ms.

    A turn lasts `SECONDS_A_TURN` at least, so that both sides are measured warm: one call
    straight after the other side's work of several ms costs a kernel of 1 ms some .2 ms more.
    """
    spent: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            turn = time.perf_counter()
            while True:
                start = time.perf_counter()
                function()
                end = time.perf_counter()
                spent[name].append((end - start) * 1e3)
                if end - turn >= SECONDS_A_TURN:
                    break
    return {name: median(values) for name, values in spent.items()}


def throughput(work: Sequence[Callable[[], Any]], *, rounds: int) -> dict[str, Any]:
    """Run the pieces of work in one thread on one core, and in two threads on two.

    The best of the rounds counts for each: what else the machine does can only slow them down,
    and slows two threads more.
    """
    spent: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for threads, values in spent.items():
            with cores(threads) as available, ThreadPoolExecutor(threads) as pool:
                list(pool.map(lambda _: None, range(threads)))  # threads start before the clock
                start = time.perf_counter()
                list(pool.map(lambda piece: piece(), work))
                values.append(time.perf_counter() - start)
    one, two = min(spent[1]), min(spent[2])
    return {"cores": available, "one_s": one, "two_s": two, "speedup": one / two}
