"""Run every CPU kernel on fixed input and save what it returns.

``python -m tests.kernels.portable FILE``, see `test_portable`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from apexflow import kernels


def scene(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return a smooth texture with a little noise."""
    image = cv2.GaussianBlur(rng.normal(size=(height, width)), (0, 0), 2.5)
    image = 128 + 45 * image / image.std()
    return np.clip(np.rint(image + rng.normal(0, 1, image.shape)), 0, 255).astype(np.uint8)


def answers() -> dict[str, np.ndarray]:
    """Return the results of all kernels by name."""
    rng = np.random.default_rng(0)
    first = scene(rng, 61, 87)
    second = np.roll(first, 1, axis=1)
    noisy = np.clip(first + rng.normal(0, 2, first.shape), 0, 255).astype(np.uint8)
    gray = [first, noisy, second, noisy]
    colour = [np.stack([frame, frame[::-1], first], -1) for frame in gray]
    searched = {
        name: [matcher.match(frame) for frame in frames]
        for name, frames in (("gray", gray), ("colour", colour))
        for matcher in [kernels.TemplateMatcher(frames[0][4:50, 6:80])]
    }
    smooth = cv2.GaussianBlur(rng.normal(size=(61, 87, 2)), (0, 0), 6).astype(np.float32)
    return {
        "template, gray": np.array(searched["gray"]),
        "template, colour": np.array(searched["colour"]),
        "farneback, box": kernels.farneback(first, second, winsize=9),
        "farneback, Gaussian": kernels.farneback(first, second, winsize=9, flags=256),
        "tvl1": kernels.tvl1(first, second, nscales=1, warps=1),
        "hsv": kernels.encode_hsv(smooth),
        "strain": kernels.optical_strain(smooth),
        "light": kernels.normalize_light(first),
        "clg": kernels.clg(first, noisy, levels=2, warps=1),
        "clg, sequence": kernels.clg_sequence(
            np.stack([first, noisy, first, second, second]), 0, 4, levels=2, warps=1
        ).flow,
    }


if __name__ == "__main__":
    np.savez(Path(sys.argv[1]), **answers())
