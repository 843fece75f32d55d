"""Sampling images between their pixels, 16 at a time: what the warps of the flows share.

R. G. Keys, "Cubic convolution interpolation for digital image processing", IEEE TASSP 29(6),
1981, doi:10.1109/TASSP.1981.1163711.
"""

from __future__ import annotations

import numpy as np

from apexflow.kernels.compiled import njit
from apexflow.kernels.simd import load, maximum, minimum, muladd, select, splat

_F = np.float32


@njit
def clamp(a, low, high):  # type: ignore[no-untyped-def]
    """Hold 16 numbers within two limits."""
    return minimum(maximum(a, splat(low)), splat(high))


@njit
def cubic_weights(t, one, a):  # type: ignore[no-untyped-def]
    """Keys' cubic kernel at t + 1, t, 1 - t and 2 - t, for numbers or vectors alike."""
    r = one - t
    b = a + one + one
    w1 = (b * t - (b + one)) * t * t + one
    w2 = (b * r - (b + one)) * r * r + one
    return a * t * r * r, w1, w2, a * r * t * t


@njit
def window_weights(t, late, a):  # type: ignore[no-untyped-def]
    """Weights of 5 taps: the cubic's 4, one tap later where ``late``."""
    zero = splat(_F(0))
    w0, w1, w2, w3 = cubic_weights(t, splat(_F(1)), splat(a))
    return (
        select(late, zero, w0),
        select(late, w0, w1),
        select(late, w1, w2),
        select(late, w2, w3),
        select(late, w3, zero),
    )


@njit
def sample_window(image, corner, stride, across, down):  # type: ignore[no-untyped-def]
    """Weighted sum of 5 x 5 taps from ``corner`` on, for 16 neighbours."""
    total = down[0] * _sample_row(image, corner, across)
    total = muladd(down[1], _sample_row(image, corner + stride, across), total)
    total = muladd(down[2], _sample_row(image, corner + 2 * stride, across), total)
    total = muladd(down[3], _sample_row(image, corner + 3 * stride, across), total)
    return muladd(down[4], _sample_row(image, corner + 4 * stride, across), total)


@njit
def _sample_row(image, at, weights):  # type: ignore[no-untyped-def]
    total = weights[0] * load(image, at)
    total = muladd(weights[1], load(image, at + 1), total)
    total = muladd(weights[2], load(image, at + 2), total)
    total = muladd(weights[3], load(image, at + 3), total)
    return muladd(weights[4], load(image, at + 4), total)
