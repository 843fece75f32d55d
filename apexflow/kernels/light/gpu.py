"""Local normalisation on the GPU, for a batch of images at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from apexflow.kernels.gpu import Device, in_batches
from apexflow.kernels.light.gaussian import Floats

GAIN = np.float32(20)

_SOURCE = "light/light.cu"
_THREADS = 256
_MOST_PLANES = 65535  # what a grid takes along its second axis
_PLANES_PER_IMAGE = 6  # of floats: two that are blurred, two between, and two of arithmetic


def normalize(images: Any, taps: Floats, epsilon: np.float32, *, device: Device) -> Any:
    """Return images (H, W) or (N, H, W) of the device, normalised; the result stays there."""
    weights = device.xp.asarray(taps)
    batch = images.reshape(-1, *images.shape[-2:])

    def part(of: slice) -> Any:
        levels = device.xp.ascontiguousarray(batch[of], dtype=np.float32)
        detail = levels - blur(levels, weights, device=device)
        deviation = device.xp.sqrt(blur(detail * detail, weights, device=device))
        return GAIN * detail / (deviation + epsilon)

    count, height, width = batch.shape
    parts = in_batches(part, count, 4 * _PLANES_PER_IMAGE * height * width, device)
    normalized = parts[0] if len(parts) == 1 else device.xp.concatenate(parts)
    return normalized.reshape(images.shape)


def blur(planes: Any, weights: Any, *, device: Device) -> Any:
    """Return planes (N, H, W) averaged with half a Gaussian's weights, all of the device."""
    count, height, width = planes.shape
    between, blurred = (device.xp.empty(planes.shape, np.float32) for _ in range(2))
    sizes = np.int32(height), np.int32(width)
    for start in range(0, count, _MOST_PLANES):
        part = slice(start, start + _MOST_PLANES)
        grid = -(-height * width // _THREADS), len(planes[part])
        for name, source, target in (
            ("blur_down", planes[part], between[part]),
            ("blur_across", between[part], blurred[part]),
        ):
            args = source, target, *sizes, weights, np.int32(len(weights) - 1)
            device.kernel(_SOURCE, name)(grid, (_THREADS,), args)
    return blurred
