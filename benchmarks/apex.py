"""How far the estimates of an unannotated apex lie from the true one.

On synthetic clips of 20 to 60 frames whose apex lies anywhere between 20 % and 80 % of the clip,
cut to 224x224 with whole-pixel alignment: sensor noise of 2 gray levels, drifting light,
an expression of known size, with and without turns of the head.

    python benchmarks/apex.py            # the table of docs/datasets.md, a few minutes
    python benchmarks/apex.py --tiny     # seconds, for a look
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import dataclass, field
from typing import get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow import synthetic
from apexflow.engine.clip.apex import ApexMethod, estimate_apex

SIZE = (400, 480)
CASES = {
    "0.8 to 2 px": {"amplitude": (0.7, 1.5), "rotation": 0.0},
    "0.8 to 2 px, turns up to 0.5 deg": {"amplitude": (0.7, 1.5), "rotation": 0.5},
    "0.3 to 0.9 px": {"amplitude": (0.3, 0.6), "rotation": 0.0},
}


@dataclass
class Result:
    """Errors in frames, and as shares of the clip; milliseconds a frame."""

    errors: list[int] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        mean, median = statistics.mean(self.errors), statistics.median(self.errors)
        within, share = np.percentile(self.errors, 90), statistics.mean(self.shares)
        return (
            f"mean {mean:5.2f}  median {median:4.1f}  90 % within {within:3.0f}  "
            f"share {share:6.1%}  {statistics.median(self.times):5.2f} ms"
        )


def make_clip(
    seed: tuple[int, int], amplitude: tuple[float, float], rotation: float
) -> tuple[NDArray[np.uint8], int]:
    """Return the aligned crops of a clip and the position of its apex."""
    rng = np.random.default_rng(seed)
    person = synthetic.Subject.random(int(rng.integers(2**31)), size=SIZE, face=0.5)
    frames = int(rng.integers(20, 61))
    apex = int(np.clip(round(frames * rng.uniform(0.2, 0.8)), 2, frames - 3))
    expressions = sorted(synthetic.EXPRESSIONS)
    truth = synthetic.ClipTruth(
        subject=person,
        motion=synthetic.Motion.random(
            frames, apex, seed=int(rng.integers(2**31)), shift=3.0, rotation=rotation
        ),
        expression=expressions[seed[1] % len(expressions)],
        amplitude=float(rng.uniform(*amplitude)),
        apex=apex,
        noise_seed=seed[1],
    )
    x0, y0, x1, y1 = (int(value) for value in truth.box)
    shifts = np.rint(truth.shifts()).astype(int)
    crops = [
        cv2.resize(image[y0 + dy : y1 + dy, x0 + dx : x1 + dx], (224, 224))
        for image, (dx, dy) in zip(synthetic.render(truth), shifts, strict=True)
    ]
    return np.stack(crops), apex


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="two clips a case")
    clips = 2 if parser.parse_args().tiny else 64
    cv2.setNumThreads(1)
    estimate_apex(make_clip((0, 0), (1.0, 1.0), 0.0)[0], method="flow")  # compile
    for number, (name, options) in enumerate(CASES.items(), start=11):
        results: dict[ApexMethod, Result] = {m: Result() for m in get_args(ApexMethod)}
        for i in range(clips):
            crops, apex = make_clip((number, i), **options)
            for method, result in results.items():
                start = time.perf_counter()
                error = abs(estimate_apex(crops, method=method) - apex)
                result.times.append((time.perf_counter() - start) / len(crops) * 1e3)
                result.errors.append(error)
                result.shares.append(error / len(crops))
        for method, result in results.items():
            print(f"{name:34s} {method:11s} {result}", flush=True)


if __name__ == "__main__":
    main()
