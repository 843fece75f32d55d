"""Local normalisation of one image, compiled."""

from __future__ import annotations

import numpy as np

from apexflow.kernels.compiled import njit
from apexflow.kernels.light.gaussian import (
    GAP,
    blur_across,
    blur_down,
    fill_offsets,
    pitch_of,
    plane_size,
    row_room,
)
from apexflow.kernels.simd import LANES, aligned, load, pointer, splat, sqrt, store

GAIN = np.float32(20)


@njit
def normalize(image, taps, epsilon, normalized):  # type: ignore[no-untyped-def]
    """Fill ``normalized`` (H, W) from an image (H, W), both float32."""
    height, width = image.shape
    size, radius = plane_size(height, width), len(taps) - 1
    room = aligned(2 * size + row_room(width, radius))
    room[:] = 0
    offsets = np.empty(height + 2 * radius, np.int64)
    fill_offsets(offsets, height, width, radius)
    _normalize(image, pointer(taps), radius, epsilon, normalized, room, offsets)


@njit
def _normalize(  # type: ignore[no-untyped-def]
    image, weights, radius, epsilon, normalized, room, offsets
):
    height, width = image.shape
    size, pitch = plane_size(height, width), pitch_of(width)
    detail, other, row = pointer(room), pointer(room[size:]), pointer(room[2 * size :])
    for y in range(height):
        for x in range(width):
            other[GAP + y * pitch + x] = image[y, x]
    for y in range(height):
        blur_down(other, 0, offsets, y, width, weights, radius, row)
        at = GAP + y * pitch
        for x in range(0, width, LANES):
            store(detail, at + x, load(other, at + x) - blur_across(row, x, weights, radius))
    for y in range(height):
        at = GAP + y * pitch
        for x in range(0, width, LANES):
            here = load(detail, at + x)
            store(other, at + x, here * here)
    for y in range(height):
        blur_down(other, 0, offsets, y, width, weights, radius, row)
        at = GAP + y * pitch
        for x in range(0, width, LANES):
            deviation = sqrt(blur_across(row, x, weights, radius))
            here = load(detail, at + x)
            store(detail, at + x, splat(GAIN) * here / (deviation + splat(epsilon)))
        for x in range(width):
            normalized[y, x] = detail[at + x]
