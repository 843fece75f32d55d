"""STSTNet's streams in training, forward and backward in one pass over each map.

What the plain layers do (convolution, ReLU, batch norm, max pool, dropout, average pool) is
arranged anew, exactly:

- All filters of the three streams are one convolution.
- Max pool and ReLU commute. The norm is monotone where its weight is positive, so that it goes
  behind the pool, where a ninth of the values is left; its statistics are still those of all
  900 places before it.
- The gradient of a place is then the norm's part, a straight line in its own value, and where
  the pool took its value from, what comes back through the pool.

A map is padded to 32x32 and kept as one row: place p of the result is a sum over p, p + 1,
p + 2, p + 32, … p + 66 of each channel. Of its 32 columns the last two are no places; they hold
-1, which neither counts nor learns. Two filters share what is loaded.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numba import njit

SIDE = 28
WIDTH = 32
PLACES = 30
_ROW = PLACES * WIDTH
_Place = np.uint64
# The last place reads the last value of a padded map.
_LAST = (PLACES - 1) * WIDTH + PLACES
_PADDED = WIDTH * WIDTH
POOLED = 10
# Sums may be taken in any order, which lets them be taken side by side; NaN stays NaN.
_SUMS = {"reassoc", "contract", "nsz"}


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS)
def convolve(maps: Any, weight: Any, bias: Any, z: Any, top: Any, pivot: Any, sums: Any) -> None:
    """Convolve maps, pool them, and sum up what the norm needs.

    Parameters
    ----------
    maps : float32 (n, channel, 28, 28)
    weight : float32 (filter, channel, 9)
    bias : float32 (filter,)
        Filters are even in number.
    z : float32 (n, filter, 960)
        Out: the convolution, before the ReLU.
    top : float32 (n, filter, 10, 10)
        Out: its largest values, 3x3 at stride 3 and padding 1.
    pivot : float32 (filter,)
        Out: near the mean after the ReLU; sums about it lose no digits.
    sums : float64 (2, filter)
        Out: of the values after the ReLU less the pivot, and of their squares.
    """
    n, channels = maps.shape[:2]
    filters = weight.shape[0]
    padded = np.zeros((channels, _PADDED), np.float32)
    rows = np.empty(WIDTH, np.float32)
    sums[:] = 0
    for i in range(n):
        _pad(maps[i], padded)
        for f in range(0, filters, 2):
            z0, z1 = z[i, f], z[i, f + 1]
            z0[:] = bias[f]
            z1[:] = bias[f + 1]
            for c in range(channels):
                _add_products(padded[c], weight[f, c], weight[f + 1, c], z0, z1)
        for f in range(filters):
            mine = z[i, f]
            for r in range(PLACES):
                mine[r * WIDTH + PLACES] = -1
                mine[r * WIDTH + PLACES + 1] = -1
            if i == 0:
                pivot[f] = _positive_sum(mine) / (PLACES * PLACES)
            first, second = _moments(mine, pivot[f])
            sums[0, f] += first
            sums[1, f] += second
            _pool(mine, rows, top[i, f])
    # The places that are none were counted as zeros after the ReLU.
    beyond = n * PLACES * (WIDTH - PLACES)
    for f in range(filters):
        p = np.float64(pivot[f])
        sums[0, f] += beyond * p
        sums[1, f] -= beyond * p * p


@njit(cache=True, nogil=True, error_model="numpy")
def normalize(top: Any, factor: Any, offset: Any, kept: Any, out: Any) -> None:
    """Norm, dropout and average pool of what `convolve` pooled.

    Parameters
    ----------
    top : float32 (n, filter, 10, 10)
    factor, offset : float32 (filter,)
        The norm, a straight line in the value after the ReLU, and a quarter of what is left
        after dropout is divided by.
    kept : bool (n, filter, 10, 10)
    out : float32 (n, filter, 5, 5)
        Out.
    """
    zero = np.float32(0)
    for i in range(top.shape[0]):
        for f in range(top.shape[1]):
            a, b = factor[f], offset[f]
            for r in range(POOLED // 2):
                for c in range(POOLED // 2):
                    total = zero
                    for y in range(2 * r, 2 * r + 2):
                        for x in range(2 * c, 2 * c + 2):
                            value = a * max(top[i, f, y, x], zero) + b
                            total += value if kept[i, f, y, x] else zero
                    out[i, f, r, c] = total


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS)
def norm_gradients(top: Any, above: Any, kept: Any, mean: Any, d_beta: Any, d_gamma: Any) -> None:
    """Sum up the gradients of the norm's offsets, and of its values less their mean.

    ``above`` is the gradient of what `normalize` gave, float32 (n, filter, 5, 5); ``d_beta``
    and ``d_gamma`` are float64 (filter,), out, before they are scaled.
    """
    zero = np.float32(0)
    d_beta[:] = 0
    d_gamma[:] = 0
    for i in range(top.shape[0]):
        for f in range(top.shape[1]):
            first, second = zero, zero
            for r in range(POOLED // 2):
                for c in range(POOLED // 2):
                    count, values = zero, zero
                    for y in range(2 * r, 2 * r + 2):
                        for x in range(2 * c, 2 * c + 2):
                            value = max(top[i, f, y, x], zero) - mean[f]
                            count += np.float32(kept[i, f, y, x])
                            values += value if kept[i, f, y, x] else zero
                    first += above[i, f, r, c] * count
                    second += above[i, f, r, c] * values
            d_beta[f] += first
            d_gamma[f] += second


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS)
def gradients(
    maps: Any,
    z: Any,
    top: Any,
    above: Any,
    kept: Any,
    factor: Any,
    k1: Any,
    k2: Any,
    d_weight: Any,
    d_bias: Any,
) -> None:
    """Sum up the gradients of weights and biases.

    Parameters
    ----------
    maps, z, top, kept, factor
        As `convolve` and `normalize` take and give them.
    above : float32 (n, filter, 5, 5)
        The gradient of what `normalize` gave.
    k1, k2 : float32 (filter,)
        The norm's part of the gradient is -(k1 + k2 z) wherever z is positive.
    d_weight, d_bias : float64 (filter, channel, 9), float64 (filter,)
        Out.
    """
    n, channels = maps.shape[:2]
    filters = z.shape[1]
    padded = np.zeros((channels, _PADDED), np.float32)
    g = np.zeros((2, _ROW), np.float32)
    columns = np.empty(POOLED, np.int64)
    d_weight[:] = 0
    d_bias[:] = 0
    for i in range(n):
        _pad(maps[i], padded)
        for f in range(0, filters, 2):
            for h in range(2):
                k = f + h
                line = factor[k], k1[k], k2[k]
                d_bias[k] += _gradient(
                    z[i, k], top[i, k], above[i, k], kept[i, k], *line, columns, g[h]
                )
            for c in range(channels):
                _products(padded[c], g[0], g[1], d_weight[f, c], d_weight[f + 1, c])


@njit(cache=True, nogil=True, error_model="numpy")
def _pad(image: Any, padded: Any) -> None:
    for c in range(image.shape[0]):
        for y in range(SIDE):
            start = (y + 2) * WIDTH + 2
            for x in range(SIDE):
                padded[c, start + x] = image[c, y, x]


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS)
def _add_products(x: Any, w0: Any, w1: Any, z0: Any, z1: Any) -> None:
    a0, a1, a2, a3, a4, a5, a6, a7, a8 = w0
    b0, b1, b2, b3, b4, b5, b6, b7, b8 = w1
    for p in range(_LAST):
        x0, x1, x2 = x[p], x[p + 1], x[p + 2]
        x3, x4, x5 = x[p + 32], x[p + 33], x[p + 34]
        x6, x7, x8 = x[p + 64], x[p + 65], x[p + 66]
        z0[p] += (
            a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3 + a4 * x4 + a5 * x5 + a6 * x6 + a7 * x7 + a8 * x8
        )
        z1[p] += (
            b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3 + b4 * x4 + b5 * x5 + b6 * x6 + b7 * x7 + b8 * x8
        )


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS)
def _positive_sum(z: Any) -> Any:
    total = np.float32(0)
    for p in range(_ROW):
        total += max(z[p], np.float32(0))
    return total


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS)
def _moments(z: Any, pivot: Any) -> Any:
    first = second = np.float32(0)
    for p in range(_ROW):
        d = max(z[p], np.float32(0)) - pivot
        first += d
        second += d * d
    return first, second


@njit(cache=True, nogil=True, error_model="numpy")
def _pool(z: Any, rows: Any, top: Any) -> None:
    for i in range(POOLED):
        middle = 3 * i * WIDTH
        above = middle - WIDTH if i > 0 else middle
        for c in range(WIDTH):
            rows[c] = max(z[above + c], z[middle + c], z[middle + WIDTH + c])
        top[i, 0] = max(rows[0], rows[1])
        for j in range(1, POOLED):
            top[i, j] = max(rows[3 * j - 1], rows[3 * j], rows[3 * j + 1])


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS)
def _gradient(
    z: Any, top: Any, above: Any, kept: Any, factor: Any, k1: Any, k2: Any, columns: Any, g: Any
) -> Any:
    """Write the gradient of each place of a map after one filter; return their sum."""
    zero = np.float32(0)
    total = zero
    for p in range(_ROW):
        value = -(k1 + k2 * z[p]) if z[p] > zero else zero
        g[p] = value
        total += value
    for i in range(POOLED):
        # A place with a sign might count from the end, which takes a look each time.
        middle = _Place(3 * i * WIDTH)
        before = middle - _Place(WIDTH) if i > 0 else middle
        behind = middle + _Place(WIDTH)
        # Half are dropped; a branch for each would be guessed wrong half of the time.
        count = 0
        for j in range(POOLED):
            columns[count] = j
            # The ReLU lets nothing through that is not positive.
            count += int(kept[i, j] & (top[i, j] > zero))
        for m in range(count):
            j = columns[m]
            left, column = _Place(max(3 * j - 1, 0)), _Place(3 * j)
            at = _first(z, top[i, j], before, middle, behind, left, column)
            back = factor * above[i // 2, j // 2]
            g[at] += back
            total += back
    return total


@njit(cache=True, nogil=True, error_model="numpy", inline="always")
def _first(z: Any, value: Any, above: Any, middle: Any, below: Any, left: Any, column: Any) -> Any:
    """Return the first of nine places that holds a value, without a branch: four times as fast."""
    right = column + _Place(1)
    at = below + right
    at = below + column if z[below + column] == value else at
    at = below + left if z[below + left] == value else at
    at = middle + right if z[middle + right] == value else at
    at = middle + column if z[middle + column] == value else at
    at = middle + left if z[middle + left] == value else at
    at = above + right if z[above + right] == value else at
    at = above + column if z[above + column] == value else at
    return above + left if z[above + left] == value else at


@njit(cache=True, nogil=True, error_model="numpy", fastmath=_SUMS)
def _products(x: Any, g0: Any, g1: Any, d0: Any, d1: Any) -> None:
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = a8 = np.float32(0)
    b0 = b1 = b2 = b3 = b4 = b5 = b6 = b7 = b8 = np.float32(0)
    for p in range(_LAST):
        u, v = g0[p], g1[p]
        x0, x1, x2 = x[p], x[p + 1], x[p + 2]
        x3, x4, x5 = x[p + 32], x[p + 33], x[p + 34]
        x6, x7, x8 = x[p + 64], x[p + 65], x[p + 66]
        a0 += u * x0
        a1 += u * x1
        a2 += u * x2
        a3 += u * x3
        a4 += u * x4
        a5 += u * x5
        a6 += u * x6
        a7 += u * x7
        a8 += u * x8
        b0 += v * x0
        b1 += v * x1
        b2 += v * x2
        b3 += v * x3
        b4 += v * x4
        b5 += v * x5
        b6 += v * x6
        b7 += v * x7
        b8 += v * x8
    for k, d in enumerate((a0, a1, a2, a3, a4, a5, a6, a7, a8)):
        d0[k] += d
    for k, d in enumerate((b0, b1, b2, b3, b4, b5, b6, b7, b8)):
        d1[k] += d


class Streams(torch.autograd.Function):
    """Convolution, ReLU, batch norm by this batch's statistics, max pool, dropout, average pool.

    ``apply(maps, weight, bias, gamma, beta, eps, kept, scale)`` takes maps (n, channel, 28, 28),
    weights (filter, channel, 3, 3) and three rows of a value a filter, all float32 on the CPU,
    every gamma positive; what dropout keeps, bool (n, filter, 10, 10), and the factor of what is
    kept. It returns (n, filter, 5, 5), and the mean and the biased variance of each filter, which
    carry no gradient. Maps get no gradient either.
    """

    @staticmethod
    def forward(
        ctx: Any,
        maps: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        gamma: torch.Tensor,
        beta: torch.Tensor,
        eps: float,
        kept: torch.Tensor,
        scale: float,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        n, filters = len(maps), len(weight)
        maps = maps.contiguous()
        z = torch.empty(n, filters, _ROW)
        top = torch.empty(n, filters, POOLED, POOLED)
        out = torch.empty(n, filters, POOLED // 2, POOLED // 2)
        pivot, sums = np.empty(filters, np.float32), np.empty((2, filters))
        rows = weight.flatten(2).contiguous().numpy()
        convolve(maps.numpy(), rows, bias.numpy(), z.numpy(), top.numpy(), pivot, sums)
        count = n * PLACES * PLACES
        about = sums / count
        mean = pivot + about[0]
        variance = np.maximum(about[1] - about[0] ** 2, 0)
        inverse = 1 / np.sqrt(variance + eps)
        factor = gamma.numpy() * inverse * (scale / 4)
        offset = beta.numpy() * (scale / 4) - factor * mean
        line = factor.astype(np.float32), offset.astype(np.float32)
        normalize(top.numpy(), *line, kept.numpy(), out.numpy())
        ctx.save_for_backward(maps, z, top, kept)
        ctx.norm = mean, inverse, factor, scale / 4, count
        ctx.shape = weight.shape
        statistics = torch.from_numpy(mean).float(), torch.from_numpy(variance).float()
        ctx.mark_non_differentiable(*statistics)
        return out, *statistics

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        maps, z, top, kept = (one.numpy() for one in ctx.saved_tensors)
        mean, inverse, factor, share, count = ctx.norm
        above = grads[0].contiguous().numpy()
        d_beta, d_gamma = np.empty_like(mean), np.empty_like(mean)
        norm_gradients(top, above, kept, mean.astype(np.float32), d_beta, d_gamma)
        # Before the line of the norm, whose factor holds gamma, the deviation and the share.
        k2 = factor * d_gamma * inverse**2 / count
        k1 = factor * d_beta / count - k2 * mean
        d_weight = np.empty((*ctx.shape[:2], math.prod(ctx.shape[2:])))
        d_bias = np.empty_like(mean)
        lines = (one.astype(np.float32) for one in (factor, k1, k2))
        gradients(maps, z, top, above, kept, *lines, d_weight, d_bias)
        found = d_weight.reshape(ctx.shape), d_bias, d_gamma * inverse * share, d_beta * share
        return None, *(torch.from_numpy(one).float() for one in found), None, None, None
