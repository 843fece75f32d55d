"""The compiled steps of Farnebäck's method on the CPU.

Coefficients and observations are planar: (5, H, W) float32. The five coefficients of a pixel
are those of y, x, y², x², xy; the five observations are the distinct entries of the normal
equations, g11, g12, g22, h1, h2, with index 1 for y and 2 for x.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from apexflow.kernels.farneback.plan import Floats, Indices


@njit(nogil=True, cache=True)
def reduce_image(
    image: Floats,
    row_index: Indices,
    row_weight: Floats,
    column_index: Indices,
    column_weight: Floats,
) -> Floats:
    """Blur and reduce the full image to one pyramid level."""
    height, width = len(row_index), len(column_index)
    level = np.empty((height, width), np.float32)
    line = np.empty(image.shape[1], np.float32)
    for y in range(height):
        line[:] = 0
        for t in range(row_index.shape[1]):
            row, weight = image[row_index[y, t]], row_weight[y, t]
            for x in range(len(line)):
                line[x] += weight * row[x]
        for x in range(width):
            total = np.float32(0)
            for t in range(column_index.shape[1]):
                total += column_weight[x, t] * line[column_index[x, t]]
            level[y, x] = total
    return level


@njit(nogil=True, cache=True)
def expand(
    image: Floats,
    smooth: Floats,
    slope: Floats,
    curve: Floats,
    ig11: float,
    ig03: float,
    ig33: float,
    ig55: float,
) -> Floats:
    """Fit a quadratic polynomial to the neighbourhood of each pixel."""
    height, width = image.shape
    n = len(smooth) - 1
    coefficients = np.empty((5, height, width), np.float32)
    moments = np.empty((3, width + 2 * n), np.float32)
    for y in range(height):
        m0, m1, m2 = moments[0], moments[1], moments[2]
        for x in range(width):
            m0[n + x] = image[y, x] * smooth[0]
            m1[n + x] = 0
            m2[n + x] = 0
        for k in range(1, n + 1):
            above, below = image[max(y - k, 0)], image[min(y + k, height - 1)]
            for x in range(width):
                m0[n + x] += smooth[k] * (above[x] + below[x])
                m1[n + x] += slope[k] * (below[x] - above[x])
                m2[n + x] += curve[k] * (above[x] + below[x])
        for i in range(3):
            moments[i, :n] = moments[i, n]
            moments[i, n + width :] = moments[i, n + width - 1]
        for x in range(width):
            b1 = np.float64(smooth[0] * m0[n + x])
            b3 = np.float64(smooth[0] * m1[n + x])
            b5 = np.float64(smooth[0] * m2[n + x])
            b2, b4, b6 = 0.0, 0.0, 0.0
            for k in range(1, n + 1):
                left, right = n + x - k, n + x + k
                b1 += (m0[right] + m0[left]) * np.float64(smooth[k])
                b4 += (m0[right] + m0[left]) * np.float64(curve[k])
                b2 += (m0[right] - m0[left]) * slope[k]
                b3 += (m1[right] + m1[left]) * smooth[k]
                b6 += (m1[right] - m1[left]) * slope[k]
                b5 += (m2[right] + m2[left]) * smooth[k]
            coefficients[0, y, x] = b3 * ig11
            coefficients[1, y, x] = b2 * ig11
            coefficients[2, y, x] = b1 * ig03 + b5 * ig33
            coefficients[3, y, x] = b1 * ig03 + b4 * ig33
            coefficients[4, y, x] = b6 * ig55
    return coefficients


@njit(nogil=True, cache=True)
def enlarge_flow(
    flow: Floats,
    row_index: Indices,
    row_weight: Floats,
    column_index: Indices,
    column_weight: Floats,
    factor: float,
) -> Floats:
    """Carry the (2, h, w) flow of a coarser level over to the next finer one."""
    height, width = len(row_index), len(column_index)
    enlarged = np.empty((2, height, width), np.float32)
    lines = np.empty((2, width), np.float32)
    scale = np.float32(factor)
    for i in range(2):
        for y in range(height):
            for j in range(2):
                row = flow[i, row_index[y, j]]
                for x in range(width):
                    a, b = row[column_index[x, 0]], row[column_index[x, 1]]
                    lines[j, x] = a * column_weight[x, 0] + b * column_weight[x, 1]
            w0, w1 = row_weight[y, 0], row_weight[y, 1]
            for x in range(width):
                enlarged[i, y, x] = (lines[0, x] * w0 + lines[1, x] * w1) * scale
    return enlarged


@njit(nogil=True, cache=True)
def observe(first: Floats, second: Floats, flow: Floats, border: Floats, out: Floats) -> None:
    """Compare the first frame's polynomials with the second's where the flow points to."""
    _, height, width = first.shape
    half, quarter = np.float32(0.5), np.float32(0.25)
    one = np.float32(1)
    sample = np.empty(5, np.float32)
    for y in range(height):
        for x in range(width):
            dx, dy = flow[0, y, x], flow[1, y, x]
            fx, fy = np.float32(x) + dx, np.float32(y) + dy
            c0, c1 = first[0, y, x], first[1, y, x]
            a, b, c = first[2, y, x], first[3, y, x], first[4, y, x]
            left, top = np.floor(fx), np.floor(fy)
            if 0 <= left < width - 1 and 0 <= top < height - 1:
                i, j = int(top), int(left)
                fx -= left
                fy -= top
                w00, w01 = (one - fx) * (one - fy), fx * (one - fy)
                w10, w11 = (one - fx) * fy, fx * fy
                for p in range(5):
                    sample[p] = (
                        w00 * second[p, i, j]
                        + w01 * second[p, i, j + 1]
                        + w10 * second[p, i + 1, j]
                        + w11 * second[p, i + 1, j + 1]
                    )
                c0, c1 = (c0 - sample[0]) * half, (c1 - sample[1]) * half
                a, b = (a + sample[2]) * half, (b + sample[3]) * half
                c = (c + sample[4]) * quarter
            else:
                c0, c1, c = c0 * half, c1 * half, c * half
            weight = border[y, x]
            c0 = (c0 + (a * dy + c * dx)) * weight
            c1 = (c1 + (c * dy + b * dx)) * weight
            a, b, c = a * weight, b * weight, c * weight
            out[0, y, x] = a * a + c * c
            out[1, y, x] = (a + b) * c
            out[2, y, x] = b * b + c * c
            out[3, y, x] = a * c0 + c * c1
            out[4, y, x] = c * c0 + b * c1


@njit(nogil=True, cache=True)
def solve(sums: Floats, scale: float, flow: Floats, y: int) -> None:
    """Solve the 2x2 normal equations of one row."""
    for x in range(flow.shape[2]):
        g11, g12, g22 = sums[0, x] * scale, sums[1, x] * scale, sums[2, x] * scale
        h1, h2 = sums[3, x] * scale, sums[4, x] * scale
        inverse = 1.0 / (g11 * g22 - g12 * g12 + 1e-3)
        flow[0, y, x] = (g11 * h2 - g12 * h1) * inverse
        flow[1, y, x] = (g22 * h1 - g12 * h2) * inverse


@njit(nogil=True, cache=True)
def average_box(observations: Floats, winsize: int, flow: Floats) -> None:
    """Average the observations over a square window and solve for the flow."""
    _, height, width = observations.shape
    before, after = winsize // 2, winsize // 2
    if winsize == 1:
        before = 1  # OpenCV's running sum then covers the pixel and the one before it.
    columns = np.zeros((5, width), np.float64)
    sums = np.empty((5, width), np.float64)
    for i in range(5):
        for t in range(-before - 1, after):
            columns[i] += observations[i, min(max(t, 0), height - 1)]
    for y in range(height):
        for i in range(5):
            entering = observations[i, min(y + after, height - 1)]
            leaving = observations[i, max(y - before - 1, 0)]
            for x in range(width):
                columns[i, x] += np.float64(entering[x]) - np.float64(leaving[x])
            total = 0.0
            for t in range(-before - 1, after):
                total += columns[i, min(max(t, 0), width - 1)]
            for x in range(width):
                entering_sum = columns[i, min(x + after, width - 1)]
                total += entering_sum - columns[i, max(x - before - 1, 0)]
                sums[i, x] = total
        solve(sums, 1.0 / (winsize * winsize), flow, y)


@njit(nogil=True, cache=True)
def average_gaussian(observations: Floats, window: Floats, flow: Floats) -> None:
    """Average the observations under a Gaussian window and solve for the flow."""
    _, height, width = observations.shape
    m = len(window) - 1
    line = np.empty(width + 2 * m, np.float32)
    sums = np.empty((5, width), np.float64)
    for y in range(height):
        for i in range(5):
            for x in range(width):
                line[m + x] = window[0] * observations[i, y, x]
            for k in range(1, m + 1):
                above = observations[i, max(y - k, 0)]
                below = observations[i, min(y + k, height - 1)]
                for x in range(width):
                    line[m + x] += window[k] * (above[x] + below[x])
            line[:m] = line[m]
            line[m + width :] = line[m + width - 1]
            for x in range(width):
                total = window[0] * line[m + x]
                for k in range(1, m + 1):
                    total += window[k] * (line[m + x - k] + line[m + x + k])
                sums[i, x] = total
        solve(sums, 1.0, flow, y)


@njit(nogil=True, cache=True)
def refine(
    first: Floats,
    second: Floats,
    flow: Floats,
    border: Floats,
    winsize: int,
    window: Floats,
    iterations: int,
) -> None:
    """Improve the (2, H, W) flow of one level in place; an empty window means a box."""
    observations = np.empty_like(first)
    for _ in range(iterations):
        observe(first, second, flow, border, observations)
        if len(window):
            average_gaussian(observations, window, flow)
        else:
            average_box(observations, winsize, flow)
