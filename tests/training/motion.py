"""A small data set whose classes are motions: which part of the face moves, and where to."""

from __future__ import annotations

import numpy as np

from tests.storage.stores import Made

SIDE = 32
CLASSES = ("brows", "mouth", "nose")
# Part of the face that moves (row, column) and its displacement (x, y) in pixels.
_MOTIONS = {"brows": ((8, 16), (0, -2)), "mouth": ((24, 10), (2, 0)), "nose": ((16, 24), (0, 2))}
_REGIONS = (slice(2, 14), slice(10, 22), slice(18, 30))


def motion_clips(
    subjects: int = 5, clips_per_class: int = 2, *, seed: int = 0, frames: int = 6
) -> list[Made]:
    """Clips of each subject and class: frames with a bright spot that moves, and their flow.

    Subjects differ in brightness, in the strength of their motion and in their noise.
    """
    rng = np.random.default_rng(seed)
    made = []
    for subject in range(subjects):
        light, strength = rng.uniform(60, 120), rng.uniform(0.8, 1.3)
        for i in range(clips_per_class * len(CLASSES)):
            motion = CLASSES[i % len(CLASSES)]
            flow = strength * _flow(motion) + rng.normal(0, 0.1, (2, SIDE, SIDE))
            made.append(_clip(f"{subject:02d}", f"c{i}", motion, flow.astype(np.float32), frames))
            made[-1].frames = _frames(motion, light, strength, frames, rng)
    return made


def _clip(subject: str, name: str, motion: str, flow: np.ndarray, frames: int) -> Made:
    windows = {"onset-apex": flow, "apex-offset": -flow}
    regions = {w: np.stack([f[:, rows, 4:28] for rows in _REGIONS]) for w, f in windows.items()}
    return Made(subject, name, motion, flow=windows, roi=regions)


def _spot(motion: str, offset: tuple[float, float] = (0, 0)) -> np.ndarray:
    (row, column), _ = _MOTIONS[motion]
    y, x = np.mgrid[:SIDE, :SIDE]
    return np.exp(-((y - row - offset[1]) ** 2 + (x - column - offset[0]) ** 2) / 18)


def _flow(motion: str) -> np.ndarray:
    return np.stack([step * _spot(motion) for step in _MOTIONS[motion][1]])


def _frames(
    motion: str, light: float, strength: float, count: int, rng: np.random.Generator
) -> np.ndarray:
    """The spot grows and moves up to the apex, half-way, and back."""
    crops = np.full((count, SIDE, SIDE), light)
    for i, crop in enumerate(crops):
        way = 1 - abs(i - count // 2) / (count // 2)
        dx, dy = (2 * way * strength * step for step in _MOTIONS[motion][1])
        crop[:] += 100 * way * _spot(motion, (dx, dy)) + rng.normal(0, 4, crop.shape)
    return crops.clip(0, 255).astype(np.uint8)
