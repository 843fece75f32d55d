"""All measurements in one run."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2

from apexflow.bench import accuracy, cases, timing
from apexflow.kernels import TemplateMatcher, encode_hsv, farneback, tvl1


def run(
    *,
    smoke: bool = False,
    rounds: int = 9,
    middlebury: Iterable[str | Path] = (),
    progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measure speed, agreement, threads and accuracy of the CPU kernels.

    Parameters
    ----------
    smoke : bool
        Tiny sizes and one round: shows that everything runs, its times mean nothing.
    rounds : int
        How often each function is timed; the median counts.
    middlebury : iterable of path
        Folders with frame10.png, frame11.png and flow10.flo to measure accuracy on as well.
    progress : callable
        Told what is measured next.

    Returns
    -------
    dict
        Plain numbers and texts, ready for JSON: machine, versions, speed, threads, accuracy.
    """
    rounds = 1 if smoke else rounds
    speed = []
    with timing.cores(1):
        for case in cases.all_cases(smoke=smoke):
            progress(f"{case.kernel}, {case.size}")
            speed.append(timing.measure(case, rounds=rounds))
    progress("threads")
    threads = [
        {"kernel": kernel, **timing.throughput(work, rounds=2 * rounds)}
        for kernel, work in _batches(smoke=smoke).items()
    ]
    progress("accuracy")
    with timing.cores(1):
        errors = list(accuracy.synthetic_errors(**({"side": 64, "faces": 1} if smoke else {})))
        for folder in middlebury:
            errors.extend(accuracy.middlebury_errors(folder))
    return {
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "system": platform.system()},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("apexflow", "numpy", "numba", "scikit-image")},
            "opencv": cv2.__version__,
        },
        "speed": speed,
        "threads": threads,
        "accuracy": errors,
    }


def _batches(*, smoke: bool) -> dict[str, list[Callable[[], Any]]]:
    """Name the kernels and give batches of independent work for them."""
    scale, side, count = (0.12, 48, 4) if smoke else (1.0, 224, 24)
    frames = cases.clip(scale, 12)
    height, width = frames[0].shape
    margin = round(40 * scale)
    template = frames[6][margin : height - margin, margin : width - margin]
    first, second = cases.pair(side)
    flow = cases.smooth_flow(side)

    def search() -> None:
        matcher = TemplateMatcher(template)
        for _ in range(6):
            for frame in frames:
                matcher.match(frame)

    def maps() -> None:
        for _ in range(8):
            encode_hsv(flow)

    return {
        "template search": [search] * (count // 2),
        "Farnebäck": [partial(farneback, first, second)] * (4 * count),
        "TV-L1": [partial(tvl1, first, second)] * (count // 2),
        "HSV map": [maps] * (4 * count),
        # What two threads give here at this moment to work that shares nothing.
        "SHA-256 of 1 MB, for comparison": [partial(hashlib.sha256, bytes(1 << 20))] * (4 * count),
    }


def cpu_name() -> str:
    """Return the processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
