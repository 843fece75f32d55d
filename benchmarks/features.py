"""How well features tell known motions apart, and how fast LBP-TOP is.

Synthetic faces show one of three motions each: the brows go up, the corners of the mouth go out,
the nose wrinkles (32x32 px, a bright part on a face of its own brightness, noise of 4 gray levels;
flow with a noise of .1 px). A linear SVM is trained leaving out one person at a time, as `apexflow
train --model svm` does; shuffled labels say what chance is.

    python benchmarks/features.py                 # the table of docs/features.md
    python benchmarks/features.py --parts speed   # LBP-TOP against two loops of NumPy
    python benchmarks/features.py --tiny          # seconds, for a look
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent.parent))

from apexflow import features
from apexflow.features.lbp import uniform_labels
from apexflow.storage.dataset import ClipDataset
from apexflow.training.config import TrainConfig
from apexflow.training.fitting import fit_fold
from apexflow.training.folds import make_folds
from apexflow.training.machine import find_machine
from apexflow.training.metrics import scores
from tests.storage.stores import Made
from tests.training.motion import CLASSES, motion_clips

# Boxes of the three parts that move, as a recipe's regions would be.
BOXES = [(8, 2, 24, 14), (2, 16, 18, 31), (16, 10, 31, 22)]
STRENGTHS = (0.1, 0.3, 1.0)


def of_frames(function: Callable[..., NDArray[np.float32]], clip: Made) -> NDArray[np.float32]:
    return function(clip.frames)


def of_flow(function: Callable[..., NDArray[np.float32]], clip: Made) -> NDArray[np.float32]:
    return function(np.moveaxis(clip.flow["onset-apex"], 0, -1))


METHODS: dict[str, Callable[[Made], NDArray[np.float32]]] = {
    "lbp-top": partial(of_frames, partial(features.lbp_top, radii=1)),
    "hog-top": partial(of_frames, features.hog_top),
    "bi-woof": partial(of_flow, features.bi_woof),
    "hoof": partial(of_flow, features.hoof),
    "hoof, circle": partial(of_flow, partial(features.hoof, symmetric=False)),
    "mdmo": partial(of_flow, partial(features.mdmo, boxes=BOXES)),
}


def weakened(clip: Made, strength: float, rng: np.random.Generator) -> Made:
    """Return the clip with so much of its motion, and noise as before."""
    flow = clip.flow["onset-apex"] * strength + rng.normal(0, 0.1, clip.flow["onset-apex"].shape)
    clip.flow["onset-apex"] = flow.astype(np.float32)
    still = clip.frames[0].astype(float)
    frames = still + (clip.frames - still) * strength + rng.normal(0, 4, clip.frames.shape)
    clip.frames = frames.clip(0, 255).astype(np.uint8)
    return clip


def uar(values: NDArray[np.float32], labels: list[str], subjects: list[str]) -> float:
    data = ClipDataset.from_arrays(values, labels, subjects=subjects)
    said = np.full(len(data), -1)
    for fold in make_folds(data.samples):
        config, machine = TrainConfig.of("svm"), find_machine("cpu", None, 0)
        said[list(fold.test)] = fit_fold(data, fold, config, machine).probabilities.argmax(1)
    return scores(data.labels.tolist(), said.tolist(), len(CLASSES)).uar


def table(people: int, clips: int, shuffles: int) -> None:
    heads = [f"{strength:g} of the motion" for strength in STRENGTHS]
    print(f"UAR, {people} people with {3 * clips} clips each, leaving out one person at a time")
    print(f"| method | {' | '.join(heads)} | labels shuffled |")
    print(f"|---|{'---|' * (len(heads) + 1)}")
    for name, method in METHODS.items():
        cells = []
        for strength in STRENGTHS:
            rng = np.random.default_rng(1)
            made = motion_clips(people, clips, seed=7, frames=9)
            values = np.stack([method(weakened(clip, strength, rng)) for clip in made])
            labels, subjects = [c.emotion for c in made], [c.subject for c in made]
            cells.append(uar(values, labels, subjects))
        rng = np.random.default_rng(0)
        chance = [uar(values, rng.permutation(labels).tolist(), subjects) for _ in range(shuffles)]
        cells.append(float(np.mean(chance)))
        print(f"| {name} | {' | '.join(f'{cell:.2f}' for cell in cells)} |", flush=True)


def codes_by_loop(frames: NDArray[np.uint8]) -> NDArray[np.int64]:
    """One histogram of XY, XT and YT with radius 1 and 8 neighbours, voxel by voxel."""
    labels, found = uniform_labels(8), np.zeros((3, 59), np.int64)
    angles = 2 * np.pi * np.arange(8) / 8
    down, across = np.round(-np.sin(angles), 5), np.round(np.cos(angles), 5)
    wide = frames.astype(float)
    for plane, axes in enumerate(((1, 2), (0, 2), (0, 1))):
        for at in np.ndindex(*(size - 2 for size in frames.shape)):
            here, code = np.add(at, 1), 0
            for p in range(8):
                value = _bilinear(wide, here, axes, down[p], across[p])
                code |= int(value >= wide[tuple(here)]) << p
            found[plane, labels[code]] += 1
    return found


def _bilinear(
    frames: NDArray[np.float64],
    at: NDArray[np.int64],
    axes: tuple[int, int],
    down: float,
    across: float,
) -> float:
    rows, columns = (
        (int(np.floor(down)), int(np.ceil(down))),
        (
            int(np.floor(across)),
            int(np.ceil(across)),
        ),
    )
    values = []
    for row in rows:
        for column in columns:
            place = at.copy()
            place[axes[0]] += row
            place[axes[1]] += column
            values.append(frames[tuple(place)])
    a, b = down - rows[0], across - columns[0]
    above = (1 - b) * values[0] + b * values[1]
    below = (1 - b) * values[2] + b * values[3]
    return (1 - a) * above + a * below


def codes_by_slices(frames: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Do the same with a whole volume at a time: what a careful script does."""
    labels, found = uniform_labels(8), np.zeros((3, 59), np.int64)
    angles = 2 * np.pi * np.arange(8) / 8
    wide = frames.astype(float)
    shape = [size - 2 for size in frames.shape]

    def moved(offset: list[int]) -> NDArray[np.float64]:
        return wide[tuple(slice(1 + o, 1 + o + n) for o, n in zip(offset, shape, strict=True))]

    for plane, axes in enumerate(((1, 2), (0, 2), (0, 1))):
        codes = np.zeros(shape, np.int64)
        for p in range(8):
            steps = np.round(-np.sin(angles[p]), 5), np.round(np.cos(angles[p]), 5)
            corners = []
            for row in (np.floor(steps[0]), np.ceil(steps[0])):
                for column in (np.floor(steps[1]), np.ceil(steps[1])):
                    offset = [0, 0, 0]
                    offset[axes[0]], offset[axes[1]] = int(row), int(column)
                    corners.append(moved(offset))
            a, b = (step - np.floor(step) for step in steps)
            above = (1 - b) * corners[0] + b * corners[1]
            below = (1 - b) * corners[2] + b * corners[3]
            codes |= ((1 - a) * above + a * below >= moved([0, 0, 0])).astype(np.int64) << p
        found[plane] = np.bincount(labels[codes].ravel(), minlength=59)
    return found


def speed(frames: int, side: int) -> None:
    """Print the ratio of times of the same histograms, the best of several, alternating."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (5, 24, 24), np.uint8)
    clip = rng.integers(0, 256, (frames, side, side), np.uint8)
    ours = partial(features.lbp_top, blocks=1, radii=1)
    ours(small)
    for name, reference, volume in (
        ("a loop over voxels", codes_by_loop, small),
        ("NumPy, a volume at a time", codes_by_slices, clip),
    ):
        counts = reference(volume)
        same = counts / counts.sum(1, keepdims=True)
        # Some voxels in a million are ties, which another order of adding decides otherwise.
        np.testing.assert_allclose(ours(volume), same.ravel(), rtol=0, atol=1e-5)
        best = [np.inf, np.inf]
        for _ in range(3):
            for i, function in enumerate((reference, ours)):
                began = time.perf_counter()
                function(volume)
                best[i] = min(best[i], time.perf_counter() - began)
        size = "x".join(map(str, volume.shape))
        print(
            f"{size}: {name} {1e3 * best[0]:.1f} ms, lbp_top {1e3 * best[1]:.2f} ms, "
            f"ratio {best[0] / best[1]:.0f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", choices=("all", "table", "speed"), default="all")
    parser.add_argument("--tiny", action="store_true")
    given = parser.parse_args()
    if given.parts in ("all", "speed"):
        speed(*((6, 32) if given.tiny else (32, 224)))
    if given.parts in ("all", "table"):
        table(*((3, 1, 1) if given.tiny else (6, 2, 2)))


if __name__ == "__main__":
    main()
