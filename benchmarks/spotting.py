"""How well spotting finds known expressions, and how fast.

Long videos are rendered (faces of some 144 px, each video another one, heads that sway by up to
4 px, 1 degree and 1%, 15 blinks a minute, speech in a tenth of the time, light that drifts over
the face by 2%, noise of 2 gray levels) and taken the whole way of a recipe. F1 is that of
`apexflow.spotting.score` with its published rule.

    python benchmarks/spotting.py                    # the tables of docs/spotting.md
    python benchmarks/spotting.py --parts speed      # one of them
    python benchmarks/spotting.py --tiny             # a minute, for a look

All of it takes some 25 minutes of one core. What was measured of the videos is kept in --folder,
where one is given: several processes may fill it, each with some of the --rates.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import resource
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow import spotting
from apexflow.spotting.curves import Measured, MotionCurves, curves_of
from apexflow.spotting.measure import FaceBox, Measurer, measured_of, samples, step_of
from apexflow.spotting.recipe import SpotRecipe
from apexflow.synthetic import Light, LongTruth, Subject

AMPLITUDES = (0.2, 0.5, 1.0, 2.0, 3.0)
RATES = (30, 100, 200)
METHODS = ("regions", "mdmd")
KINDS = ("micro", "macro")
SECONDS = {30: 30, 100: 20, 200: 16}  # of each video; rendering takes the longer the more frames
STILL: dict[str, dict[str, Any]] = {
    "a still head": {"blinks_a_minute": 0, "shift": 0, "rotation": 0, "scale": 0},
    "a head that sways": {"blinks_a_minute": 0},
    "a head that turns by 4 degrees and nears by 6%": {
        "blinks_a_minute": 0,
        "shift": 15,
        "rotation": 4,
        "scale": 0.06,
    },
    "20 blinks a minute": {"blinks_a_minute": 20},
    "speech in a third of the time": {"speech": 0.33},
    "light that drifts by 8%, noise of 4": {"light": Light(drift=0.08), "noise": 4.0},
    "light that flickers by 5%": {"light": Light(flicker=0.05)},
    "all of it": {"speech": 0.2, "light": Light(drift=0.04), "shift": 10, "rotation": 3},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parts = ("speed", "found", "false")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--folder", type=Path, help="keep what was measured here")
    parser.add_argument("--videos", type=int, default=4, help="a cell of a table")
    parser.add_argument("--rates", nargs="+", type=int, choices=RATES, default=RATES)
    parser.add_argument("--minutes", type=float, default=10, help="of the video that is timed")
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
    videos, rates = (1, RATES[:1]) if options.tiny else (options.videos, options.rates)
    if "speed" in options.parts:
        print_speed(minutes=0.05 if options.tiny else options.minutes)
    if "found" in options.parts:
        print_found(videos, rates, AMPLITUDES[2:3] if options.tiny else AMPLITUDES, options.folder)
    if "false" in options.parts:
        print_false(videos, rates, options.folder)


def print_found(
    videos: int, rates: Sequence[int], amplitudes: Sequence[float], folder: Path | None
) -> None:
    print("\nF1 micro / macro / together by amplitude in px of the frame (true expressions)\n")
    print("| method, frames/s |" + "".join(f" {amplitude:g} |" for amplitude in amplitudes))
    print("|---|" + "---|" * len(amplitudes))
    missed: list[str] = []
    for rate in rates:
        cells: dict[str, list[str]] = {method: [] for method in METHODS}
        for amplitude in amplitudes:
            pairs = spotted(videos_of(videos, rate, SECONDS[rate], amplitude=amplitude), folder)
            for method in METHODS:
                whole = scored(pairs[method])
                parts = [whole.kinds[kind].f1 if kind in whole.kinds else 0.0 for kind in KINDS]
                cells[method].append(" / ".join(f"{f1:.2f}" for f1 in (*parts, whole.f1)))
            missed += [f"{amplitude:g} px, {rate}/s, {what}" for what in misses(pairs["regions"])]
        for method in METHODS:
            count = whole.n_true
            print(f"| {method}, {rate} ({count}) | " + " | ".join(cells[method]) + " |", flush=True)
    print("\nwhat regions misses, and why:")
    for what in dict.fromkeys(missed):
        print(f"  {missed.count(what):3d}  {what}")


Pair = tuple[LongTruth, MotionCurves]


def scored(pairs: list[Pair]) -> spotting.Score:
    true = [
        (truth.name, event.onset, event.offset, event.kind)
        for truth, _ in pairs
        for event in truth.events
    ]
    found = [
        (truth.name, spot.onset, spot.offset, spot.kind)
        for truth, motion in pairs
        for spot in motion.spots
    ]
    return spotting.score(found, true)


def misses(pairs: list[Pair]) -> Iterator[str]:
    """Say of each true interval that was missed what it was, and what was found there."""
    for truth, motion in pairs:
        for event in truth.events:
            near = [s for s in motion.spots if s.onset <= event.offset and event.onset <= s.offset]
            if any(s.kind == event.kind and overlap(s, event) >= 0.5 for s in near):
                continue
            blink = any(event.onset <= blink <= event.offset for blink in truth.blinks)
            why = "its interval is wrong" if near else "nothing found"
            why = "found as the other kind" if any(s.kind != event.kind for s in near) else why
            yield f"{event.kind} {event.expression}: {why}{', a blink within it' if blink else ''}"


def overlap(spot: Any, event: Any) -> float:
    inside = min(spot.offset, event.offset) - max(spot.onset, event.onset) + 1
    return inside / (max(spot.offset, event.offset) - min(spot.onset, event.onset) + 1)


def print_false(videos: int, rates: Sequence[int], folder: Path | None) -> None:
    minutes = {rate: videos * SECONDS[rate] / 60 for rate in rates}
    heads = [f"{method}, {rate}/s" for rate in rates for method in METHODS]
    said = ", ".join(f"{minutes[rate]:.1f} minutes at {rate}/s" for rate in rates)
    print(f"\nfalse alarms a minute on videos without any expression ({said})\n")
    print("| | " + " | ".join(heads) + " |")
    print("|---|" + "---|" * len(heads))
    for name, changed in STILL.items():
        options = {"micro": 0, "macro": 0, "speech": 0.0, "light": Light(), **changed}
        cells = []
        for rate in rates:
            pairs = spotted(videos_of(videos, rate, SECONDS[rate], **options), folder)
            for method in METHODS:
                count = sum(len(motion.spots) for _, motion in pairs[method])
                cells.append(f"{count / minutes[rate]:.1f}")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def videos_of(count: int, rate: int, seconds: int, **options: Any) -> Iterator[LongTruth]:
    for number in range(count):
        seed = 4000 + number
        defaults: dict[str, Any] = {
            "micro": seconds // 5,
            "macro": seconds // 8,
            "speech": 0.1,
            "light": Light(drift=0.02, seed=seed),
        }
        yield LongTruth.random(
            Subject.random(seed, size=(192, 176), face=0.75),
            seed=seed,
            seconds=seconds,
            fps=rate,
            name=f"video{number}",
            **defaults | options,
        )


def spotted(truths: Iterable[LongTruth], folder: Path | None) -> dict[str, list[Pair]]:
    """Measure each video once, and spot in it by each method."""
    recipes = {method: SpotRecipe.load(method) for method in METHODS}
    found: dict[str, list[Pair]] = {method: [] for method in METHODS}
    for truth in truths:
        known = measured(truth, recipes[METHODS[0]], folder)
        for method, recipe in recipes.items():
            found[method].append((truth, curves_of(known, recipe)))
    return found


def measured(truth: LongTruth, recipe: SpotRecipe, folder: Path | None) -> Measured:
    step, face = step_of(truth.fps, recipe), face_of(truth)
    path = folder / f"{key_of(truth, recipe)}.npy" if folder else None
    if path is not None and path.exists():
        return measured_of(np.load(path), truth.fps, step, face, recipe)
    records = np.array(list(records_of(truth.frames(), step, face, recipe)))
    if path is not None:
        np.save(path, records)
    return measured_of(records, truth.fps, step, face, recipe)


def key_of(truth: LongTruth, recipe: SpotRecipe) -> str:
    """Return what a video and how it is measured are known by."""
    arrays = [getattr(truth, name).tobytes() for name in ("shift", "rotation", "scale")]
    names = ("seed", "fps", "events", "blinks", "speech", "light", "noise")
    said = repr([getattr(truth, name) for name in names]) + recipe.measuring_hash
    return hashlib.sha256(b"".join(arrays) + said.encode()).hexdigest()[:16]


def face_of(truth: LongTruth) -> FaceBox:
    return FaceBox(truth.box, tuple((x, y) for x, y in truth.landmarks.tolist()))


def records_of(
    frames: Iterator[NDArray[np.uint8]], step: int, face: FaceBox, recipe: SpotRecipe
) -> Iterator[NDArray[Any]]:
    measurer = None
    for row, image in enumerate(samples(frames, step)):
        measurer = measurer or Measurer(image, face, recipe)
        yield measurer.measure(row, row * step + step // 2, image)


def print_speed(minutes: float) -> None:
    """Time 10 minutes at 200 frames/s of 640x480, without decoding, on one core.

    1,000 frames are rendered; they are played forward and back until the time is full.
    """
    rate, recipe = 200, SpotRecipe.load("regions")
    subject = Subject.random(1, size=(480, 640), face=0.5)
    truth = LongTruth.random(subject, seed=1, seconds=5, fps=rate, amplitude=1.5, micro=2, macro=1)
    shown = list(truth.frames())
    played = itertools.chain.from_iterable(
        itertools.repeat([*range(len(shown)), *reversed(range(len(shown)))])
    )
    count = int(minutes * 60 * rate)
    frames = (shown[at] for at in itertools.islice(played, count))
    step = step_of(rate, recipe)
    records = [*records_of(iter(shown[: 10 * step]), step, face_of(truth), recipe)]  # compiles
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, spent = time.perf_counter(), time.process_time()
    records = list(records_of(frames, step, face_of(truth), recipe))
    followed = time.process_time() - spent
    whole = measured_of(np.array(records), rate, step, face_of(truth), recipe)
    del records
    curves_of(whole, recipe)
    wall, core = time.perf_counter() - started, time.process_time() - spent
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    unit = 2**20 if sys.platform != "darwin" else 2**30
    print(f"{minutes:g} minutes at {rate} frames/s, 640x480, {count} frames, one core:")
    print(f"  {core:.1f} s of processor time, {wall:.1f} s of wall time")
    print(f"  {count / core:.0f} frames/s of processor time: {minutes * 60 / core:.1f} x real time")
    print(f"  following and flow {1000 * followed / count:.3f} ms a frame")
    print(f"  peak memory {peak / unit:.2f} GiB ({before / unit:.2f} before)", flush=True)


if __name__ == "__main__":
    main()
