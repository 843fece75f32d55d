"""Run every CPU kernel on fixed input and save what it returns.

``python -m tests.kernels.portable FILE [KERNEL]``, see `test_portable`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from apexflow import kernels


def scene(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return a smooth texture with a little noise."""
    image = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), 2.5)
    image = 128 + 45 * image / image.std()
    return np.clip(np.rint(image + rng.normal(0, 1, image.shape)), 0, 255).astype(np.uint8)


def answers(only: str = "") -> dict[str, np.ndarray]:
    """Return the results of all kernels by name, or of the one that is called so."""
    rng = np.random.default_rng(0)
    first = scene(rng, 61, 87)
    second = np.roll(first, 1, axis=1)
    noisy = np.clip(first + rng.normal(0, 2, first.shape), 0, 255).astype(np.uint8)
    gray = [first, noisy, second, noisy]
    colour = [np.stack([frame, frame[::-1], first], -1) for frame in gray]
    smooth = cv2.GaussianBlur(rng.normal(size=(61, 87, 2)), (0, 0), 6).astype(np.float32)
    moving = np.stack([first, noisy, first, second, second])
    calls: dict[str, Callable[[], np.ndarray]] = {
        "template, gray": lambda: searched(gray),
        "template, colour": lambda: searched(colour),
        "farneback, box": lambda: kernels.farneback(first, second, winsize=9),
        "farneback, Gaussian": lambda: kernels.farneback(first, second, winsize=9, flags=256),
        "tvl1": lambda: kernels.tvl1(first, second, nscales=1, warps=1),
        "hsv": lambda: kernels.encode_hsv(smooth),
        "strain": lambda: kernels.optical_strain(smooth),
        "light": lambda: kernels.normalize_light(first),
        "clg": lambda: kernels.clg(first, noisy, levels=2, warps=1),
        "clg, sequence": lambda: kernels.clg_sequence(moving, 0, 4, levels=2, warps=1).flow,
    }
    return {name: call() for name, call in calls.items() if only in ("", name)}


def searched(frames: list[np.ndarray]) -> np.ndarray:
    """Return where the template of the first frame lies in each, and the scores."""
    matcher = kernels.TemplateMatcher(frames[0][4:50, 6:80])
    return np.array([matcher.match(frame) for frame in frames])


if __name__ == "__main__":
    np.savez(Path(sys.argv[1]), **answers(*sys.argv[2:]))
