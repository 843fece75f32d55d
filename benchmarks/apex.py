"""How far the estimates of an unannotated apex lie from the true one, and how sure they are.

Clips of .25 to .5 s at 200, 100, 60 and 30 frames/s whose apex lies anywhere between 25 % and 75 %
of the clip, aligned by similarity and cut to 224x224: a face of 200 px, a head that drifts and
turns, sensor noise of 2 gray levels, light that drifts by 4 %, JPEG 92, and an expression whose
strongest part moves by a known number of pixels of the crop. Clips in which nothing moves but the
head show how often the confidence is wrong.

    python benchmarks/apex.py            # the tables of docs/motion.md, some ten minutes
    python benchmarks/apex.py --clips 40 # surer ones
    python benchmarks/apex.py --tiny     # seconds, for a look
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow import synthetic
from apexflow.engine.clip.align import Aligner
from apexflow.engine.clip.apex import CLEAR, ApexMethod, estimate_apex
from apexflow.engine.recipe import Recipe

BASE = Recipe.load("default")
SIZE = (400, 480)
RATES = (200, 100, 60, 30)
PEAKS = (0.2, 0.5, 1.0, 3.0)
BOUNDS = (0.2, 0.3, 0.4, 0.5, 0.6)
METHODS: tuple[ApexMethod, ...] = ("middle", "difference", "flow")
DRIFT = synthetic.Light(drift=0.04)
STILL = {
    "drifting light": DRIFT,
    "flicker of 5 %": synthetic.Light(flicker=0.05),
    "light from the side, 10 %": synthetic.Light(side=0.1),
    "gamma 1.15": synthetic.Light(gamma=1.15),
}


@dataclass
class Result:
    """Of one method: errors in ms, confidences, seconds a frame."""

    errors: list[float] = field(default_factory=list)
    confidences: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    @property
    def unclear(self) -> float:
        """The share of clips whose apex is called unclear."""
        return float(np.mean(np.array(self.confidences) < CLEAR))


def make_clip(
    seed: tuple[int, ...], peak: float, rate: int, light: synthetic.Light = DRIFT
) -> tuple[NDArray[np.uint8], int]:
    """Return the aligned crops of a clip and the position of its apex."""
    rng = np.random.default_rng(seed)
    person = synthetic.Subject.random(int(rng.integers(2**31)), size=SIZE, face=0.5)
    frames = max(6, round(rng.uniform(0.25, 0.5) * rate))
    apex = int(np.clip(round(frames * rng.uniform(0.25, 0.75)), 2, frames - 3))
    expressions = sorted(synthetic.EXPRESSIONS)
    motion = synthetic.Motion.random(
        frames, apex, seed=int(rng.integers(2**31)), shift=2.0, rotation=0.3
    )
    truth = synthetic.ClipTruth(
        subject=person,
        motion=motion,
        expression=expressions[seed[-1] % len(expressions)],
        amplitude=1.0 if peak else 0.0,
        apex=apex,
        noise_seed=seed[-1],
        light=replace(light, seed=seed[-1]),
    )
    if peak:
        truth = replace(truth, amplitude=peak / _largest(truth))
    return _aligned(truth), apex


def _largest(truth: synthetic.ClipTruth) -> float:
    """Return how far the expression moves its strongest part, in pixels of the crop."""
    x0, y0, x1, y1 = (int(value) for value in truth.box)
    grid = np.stack(np.meshgrid(np.arange(x0, x1), np.arange(y0, y1)), axis=-1).astype(float)
    moved = np.linalg.norm(truth.expression_at(grid), axis=-1)
    return float(moved.max()) * BASE.crop.height / (y1 - y0)


def _aligned(truth: synthetic.ClipTruth) -> NDArray[np.uint8]:
    face, template = synthetic.paint(truth.subject), len(truth) // 2
    images = np.stack([_through_jpeg(synthetic.take(truth, i, face)) for i in range(len(truth))])
    box = np.array(truth.subject.box) + np.tile(truth.motion.shift[template], 2)
    x0, y0, x1, y1 = (int(value) for value in box)
    aligner = Aligner(images[template], (x0, y0, x1, y1), BASE.alignment)
    poses = aligner.find(images)
    return aligner.cut(images, poses, [(x0, y0, x1, y1)], BASE.crop)[:, 0]


def _through_jpeg(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)


def judge(clips: Iterator[tuple[NDArray[np.uint8], int]], rate: int) -> dict[ApexMethod, Result]:
    """Return what each method makes of clips."""
    results = {method: Result() for method in METHODS}
    for crops, apex in clips:
        for method, result in results.items():
            start = time.process_time()
            found = estimate_apex(crops, method=method)
            result.times.append((time.process_time() - start) / len(crops))
            result.errors.append(1e3 * abs(found.position - apex) / rate)
            result.confidences.append(found.confidence)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=12, help="of each kind; 12")
    parser.add_argument("--seed", type=int, default=0, help="of other faces and other motion")
    parser.add_argument("--tiny", action="store_true", help="one clip of a kind, at 30 frames/s")
    options = parser.parse_args()
    clips, cases = (1, slice(1)) if options.tiny else (options.clips, slice(None))
    rates, peaks, still = RATES[::-1][cases][::-1], PEAKS[cases], dict(list(STILL.items())[cases])
    cv2.setNumThreads(1)
    estimate_apex(make_clip((0, 0), 1.0, 30)[0], method="flow")  # compile

    print(f"{clips} clips a row, each of another face; seed {options.seed}\n")
    moving = print_motion(rates, peaks, clips, options.seed)
    unmoved = print_still(rates, still, clips, options.seed)
    print_bounds(moving, unmoved)


def print_motion(
    rates: Sequence[int], peaks: Sequence[float], clips: int, seed: int
) -> dict[str, list[float]]:
    """Print how far estimates lie from the apex; return the confidences of `flow` by peak."""
    print(
        "| frames/s | peak, px | middle | difference | flow: mean | 90% within | "
        "confidence: median | 10% below | called unclear |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    sure: dict[str, list[float]] = {f"{peak} px": [] for peak in peaks}
    costs: dict[str, list[float]] = {method: [] for method in METHODS}
    for rate in rates:
        for peak in peaks:
            seeds = ((seed, rate, int(10 * peak), i) for i in range(clips))
            found = judge((make_clip(one, peak, rate) for one in seeds), rate)
            means = {method: np.mean(result.errors) for method, result in found.items()}
            flow = found["flow"]
            sure[f"{peak} px"] += flow.confidences
            for method, result in found.items():
                costs[method] += result.times
            within, low, median = (
                np.percentile(flow.errors, 90),
                *np.percentile(flow.confidences, [10, 50]),
            )
            print(
                f"| {rate} | {peak} | {means['middle']:.0f} ms | {means['difference']:.0f} ms |"
                f" {means['flow']:.0f} ms | {within:.0f} ms | {median:.2f} | {low:.2f} |"
                f" {flow.unclear:.0%} |",
                flush=True,
            )
    print("\nCPU ms a frame:", *(f"{m} {1e3 * np.median(t):.2f}" for m, t in costs.items()))
    return sure


def print_still(
    rates: Sequence[int], lights: Mapping[str, synthetic.Light], clips: int, seed: int
) -> dict[str, list[float]]:
    """Print the confidence where nothing moves but the head; return it by light."""
    print("\n| without motion | frames/s | confidence: median | highest | called clear |")
    print("|---|---|---|---|---|")
    sure: dict[str, list[float]] = {name: [] for name in lights}
    for number, (name, light) in enumerate(lights.items()):
        for rate in rates:
            seeds = ((seed, rate, 1000 + number, i) for i in range(clips))
            flow = judge((make_clip(one, 0.0, rate, light) for one in seeds), rate)["flow"]
            sure[name] += flow.confidences
            print(
                f"| {name} | {rate} | {np.median(flow.confidences):.2f} |"
                f" {max(flow.confidences):.2f} | {1 - flow.unclear:.0%} |",
                flush=True,
            )
    return sure


def print_bounds(
    moving: Mapping[str, Sequence[float]], still: Mapping[str, Sequence[float]]
) -> None:
    """Print how often the flag `apex-unclear` is a false alarm, and how often it is missing."""
    print(f"\nFalse alarms and misses of `apex-unclear`, by its bound; in use is {CLEAR}\n")
    print("| bound |", *(f"{name}: flagged |" for name in moving), end="")
    print(*(f" {name}, still: not flagged |" for name in still))
    print("|---" * (1 + len(moving) + len(still)) + "|")
    for bound in BOUNDS:
        alarms = (f"{np.mean(np.array(found) < bound):.0%}" for found in moving.values())
        misses = (f"{np.mean(np.array(found) >= bound):.0%}" for found in still.values())
        print(f"| {bound} |", " | ".join((*alarms, *misses)), "|", flush=True)


if __name__ == "__main__":
    main()
