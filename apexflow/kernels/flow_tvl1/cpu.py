"""The compiled steps of TV-L1 at one pyramid level: warping, median, iterating.

The state lies in ``rows``: for each image row the ten fields below, one after the other, so
that a sweep finds everything about a row in the first-level cache. A field is ``pitch`` floats
long, the width rounded up to whole vectors plus a gap of 16; what lies beyond the width is zero
and stays zero, which makes it the dual field's border. Row 0 is the zero row above the image.

The flow is kept multiplied by the dual step (``U = step * u`` with ``step = tau / theta``), and
the gradients of the image divided by it: each dual update then starts from differences of U
as they are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels.compiled import njit
from apexflow.kernels.sampling import clamp, cubic_weights, sample_window, window_weights
from apexflow.kernels.simd import (
    LANES,
    any_lane,
    floor,
    inverse_sqrt,
    load,
    lowest,
    maximum,
    minimum,
    muladd,
    pointer,
    ramp,
    reciprocal,
    select,
    splat,
    store,
    widen,
)

Floats = NDArray[np.float32]

U1, U2, P11, P12, P21, P22, IX, IY, RHO, INVERSE = range(10)
FIELDS = 10
GAP = 16

# The warp reads both images from planes with zeros around: all taps of any position that it
# clamps lie inside.
SECOND, D_X, D_Y, FIRST = range(4)
PLANES = 4
BORDER = 8
RIGHT_BORDER = 24

_F = np.float32
_EPSILON = _F(1.1920929e-07)  # OpenCV takes a smaller squared gradient for none
_FAR = _F(1e9)
_STEEP = _F(-1e30)  # divides a residual by no gradient: the clamp decides


def workspace(height: int, width: int) -> Floats:
    """Return room for `refine` at a level of this size, or of any smaller one.

    One block for all, because the allocator gives many of this size back to the system and
    gets them again each time: a third of the whole time at 224x224. It starts on a cache line,
    as all fields then do: split loads cost the sweep 30%.
    """
    size = sum(_room(height, width))
    room = np.empty(size + LANES, np.float32)
    start = -(room.ctypes.data // room.itemsize) % LANES
    return room[start : start + size]


@njit
def _room(height, width):  # type: ignore[no-untyped-def]
    """Floats that the rows, the planes, and the median's copy and columns take."""
    pitch = _pitch(width)
    plane = (height + 2 * BORDER) * (width + BORDER + RIGHT_BORDER)
    return (
        (height + 1) * FIELDS * pitch,
        PLANES * plane,
        (height + 4) * (pitch + LANES),
        5 * (pitch + LANES),
    )


@njit
def _pitch(width):  # type: ignore[no-untyped-def]
    return -(-width // LANES) * LANES + GAP


@njit
def refine(  # type: ignore[no-untyped-def]
    first, second, flow, room, tau, lambda_, theta, warps, epsilon, inner, outer, median, cubic
):
    """Improve ``flow`` (2, H, W) in place from one level of two images."""
    height, width = first.shape
    pitch = _pitch(width)
    step = _F(tau / theta)
    rows_end, planes_size, copy_size, _ = _room(height, width)
    planes_end = rows_end + planes_size
    copy_end = planes_end + copy_size
    room[:planes_end] = 0
    rows, planes = pointer(room[:rows_end]), pointer(room[rows_end:planes_end])
    copy, columns = pointer(room[planes_end:copy_end]), pointer(room[copy_end:])
    _fill_planes(first, second, planes)
    _copy_flow_in(flow, rows, pitch, step)
    limit = _F(_F(lambda_ * theta) * step * step)
    done = np.float64(_F(epsilon * epsilon * height * width)) * np.float64(step) ** 2
    for _warp_number in range(warps):
        _warp(planes, rows, height, width, pitch, step, _F(cubic))
        change = np.inf
        for _outer_number in range(outer):
            if change <= done:
                break
            if median > 1:
                _median(rows, U1, height, width, pitch, median, copy, columns)
                _median(rows, U2, height, width, pitch, median, copy, columns)
            for _inner_number in range(inner):
                change = _sweep(rows, height, width, pitch, limit, step * _F(theta))
                if change <= done:
                    break
    _copy_flow_out(rows, flow, pitch, step)


@njit
def _fill_planes(first, second, planes):  # type: ignore[no-untyped-def]
    """Copy both images, and the second one's gradient, into the zeroed planes.

    Central differences, halved one-sided ones at the image's edge, as in OpenCV.
    """
    height, width = first.shape
    stride = width + BORDER + RIGHT_BORDER
    plane = (height + 2 * BORDER) * stride
    for y in range(height):
        at = (y + BORDER) * stride + BORDER
        above, below = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            planes[at + SECOND * plane + x] = second[y, x]
            planes[at + FIRST * plane + x] = first[y, x]
            planes[at + D_Y * plane + x] = _F(0.5) * (second[below, x] - second[above, x])
        for x in range(1, width - 1):
            planes[at + D_X * plane + x] = _F(0.5) * (second[y, x + 1] - second[y, x - 1])
        last = width - 1
        planes[at + D_X * plane] = _F(0.5) * (second[y, 1] - second[y, 0])
        planes[at + D_X * plane + last] = _F(0.5) * (second[y, last] - second[y, last - 1])


@njit
def _copy_flow_in(flow, rows, pitch, step):  # type: ignore[no-untyped-def]
    _, height, width = flow.shape
    for y in range(height):
        at = (y + 1) * FIELDS * pitch
        for x in range(width):
            rows[at + U1 * pitch + x] = flow[0, y, x] * step
            rows[at + U2 * pitch + x] = flow[1, y, x] * step


@njit
def _copy_flow_out(rows, flow, pitch, step):  # type: ignore[no-untyped-def]
    _, height, width = flow.shape
    inverse = _F(1) / step
    for y in range(height):
        at = (y + 1) * FIELDS * pitch
        for x in range(width):
            flow[0, y, x] = rows[at + U1 * pitch + x] * inverse
            flow[1, y, x] = rows[at + U2 * pitch + x] * inverse


@njit
def _sweep(rows, height, width, pitch, limit, tau):  # type: ignore[no-untyped-def]
    """Do one iteration and return the sum of squared changes of U, in double.

    The dual step of a row needs the new flow of the row below, so one pass takes the primal
    step of each row together with the dual step of the row above it.
    """
    row = FIELDS * pitch
    vectors = -(-width // LANES) * LANES
    total = splat(0.0)
    for x in range(0, vectors, LANES):
        _, _, _, _, squares = _step_flow(rows, row + x, pitch, limit, tau)
        total = total + widen(squares)
    for y in range(1, height):
        at = (y + 1) * row
        change = splat(_F(0))
        for x in range(0, vectors, LANES):
            u1, u2, p12, p22, squares = _step_flow(rows, at + x, pitch, limit, tau)
            inside = _has_right_neighbour(x, width)
            _step_dual(rows, at - row + x, U1, P11, pitch, u1, p12, inside)
            _step_dual(rows, at - row + x, U2, P21, pitch, u2, p22, inside)
            change = change + squares
        total = total + widen(change)
    at = height * row
    for x in range(0, vectors, LANES):
        # Below the last row the flow continues unchanged: no vertical difference.
        inside = _has_right_neighbour(x, width)
        for u, p in ((U1, P11), (U2, P21)):
            below, p_y = load(rows, at + x + u * pitch), load(rows, at + x + (p + 1) * pitch)
            _step_dual(rows, at + x, u, p, pitch, below, p_y, inside)
    sums = np.empty(LANES)
    store(sums, 0, total)
    return sums.sum()


@njit
def _has_right_neighbour(x, width):  # type: ignore[no-untyped-def]
    return ramp() < splat(_F(width - 1 - x))


@njit
def _step_flow(rows, at, pitch, limit, tau):  # type: ignore[no-untyped-def]
    """Primal step of 16 pixels: thresholding, then the divergence of the dual field.

    Thresholding is a clamp: outside +-limit the residual is too large to be explained away.
    Returns the new U1 and U2, P12 and P22 of the row above as the dual step needs them, and
    the squared change.
    """
    above = at - FIELDS * pitch
    u1, u2 = load(rows, at + U1 * pitch), load(rows, at + U2 * pitch)
    ix, iy = load(rows, at + IX * pitch), load(rows, at + IY * pitch)
    residual = muladd(ix, u1, muladd(iy, u2, load(rows, at + RHO * pitch)))
    pull = residual * load(rows, at + INVERSE * pitch)
    pull = minimum(maximum(pull, splat(-limit)), splat(limit))
    p12, p22 = load(rows, above + P12 * pitch), load(rows, above + P22 * pitch)
    p11_x = load(rows, at + P11 * pitch) - load(rows, at + P11 * pitch - 1)
    p21_x = load(rows, at + P21 * pitch) - load(rows, at + P21 * pitch - 1)
    divergence1 = p11_x + (load(rows, at + P12 * pitch) - p12)
    divergence2 = p21_x + (load(rows, at + P22 * pitch) - p22)
    new1 = muladd(splat(tau), divergence1, muladd(pull, ix, u1))
    new2 = muladd(splat(tau), divergence2, muladd(pull, iy, u2))
    store(rows, at + U1 * pitch, new1)
    store(rows, at + U2 * pitch, new2)
    change1, change2 = new1 - u1, new2 - u2
    return new1, new2, p12, p22, muladd(change1, change1, change2 * change2)


@njit
def _step_dual(rows, at, u, p, pitch, below, p_y, inside):  # type: ignore[no-untyped-def]
    """Dual step of 16 pixels of one component: p = (p + grad U) / (1 + |grad U|)."""
    here = load(rows, at + u * pitch)
    d_x = select(inside, load(rows, at + u * pitch + 1) - here, splat(_F(0)))
    d_y = below - here
    # The tiny addend keeps the estimate of 1 / sqrt(0) finite.
    squared = muladd(d_x, d_x, muladd(d_y, d_y, splat(_F(1e-30))))
    shrink = reciprocal(muladd(squared, inverse_sqrt(squared), splat(_F(1))))
    store(rows, at + p * pitch, (load(rows, at + p * pitch) + d_x) * shrink)
    store(rows, at + (p + 1) * pitch, (p_y + d_y) * shrink)


@njit
def _warp(planes, rows, height, width, pitch, step, cubic):  # type: ignore[no-untyped-def]
    """Linearise around the present flow: fill IX, IY, RHO and INVERSE of all rows.

    Keys' cubic interpolation, by its parameter A, with zeros outside. Where the flow of 16
    neighbours lies within one pixel, as nearly everywhere, they share a window of 5 x 5 taps,
    each lane with its own weights; elsewhere each pixel is sampled alone.
    """
    stride = width + BORDER + RIGHT_BORDER
    plane = (height + 2 * BORDER) * stride
    positions, alone = np.empty(2 * LANES, np.float32), np.empty(3 * LANES, np.float32)
    for y in range(height):
        for x in range(0, width, LANES):
            at = (y + 1) * FIELDS * pitch + x
            u = load(rows, at + U1 * pitch) * splat(_F(1) / step)
            v = load(rows, at + U2 * pitch) * splat(_F(1) / step)
            # Beyond 3 px outside all taps are zero, wherever exactly.
            column = clamp(ramp() + splat(_F(x)) + u, _F(-3), _F(width + 2))
            line = clamp(splat(_F(y)) + v, _F(-3), _F(height + 2))
            left, top = floor(column), floor(line)
            shift_x, shift_y = left - ramp(), top
            valid = ramp() < splat(_F(width - x))
            least_x = lowest(select(valid, shift_x, splat(_FAR)))
            least_y = lowest(select(valid, shift_y, splat(_FAR)))
            torn = (splat(least_x + _F(1)) < shift_x) | (splat(least_y + _F(1)) < shift_y)
            if not any_lane(torn & valid):
                corner = (BORDER - 1 + int(least_y)) * stride + BORDER - 1 + int(least_x)
                weights_x = window_weights(column - left, splat(least_x) < shift_x, cubic)
                weights_y = window_weights(line - top, splat(least_y) < shift_y, cubic)
                image = sample_window(planes, corner + SECOND * plane, stride, weights_x, weights_y)
                d_x = sample_window(planes, corner + D_X * plane, stride, weights_x, weights_y)
                d_y = sample_window(planes, corner + D_Y * plane, stride, weights_x, weights_y)
            else:
                store(positions, 0, column)
                store(positions, LANES, line)
                _sample_alone(planes, stride, plane, positions, alone, cubic)
                image, d_x, d_y = load(alone, 0), load(alone, LANES), load(alone, 2 * LANES)
            zero = splat(_F(0))
            d_x, d_y = select(valid, d_x, zero), select(valid, d_y, zero)
            previous = load(planes, FIRST * plane + (BORDER + y) * stride + BORDER + x)
            squared = d_x * d_x + d_y * d_y
            slope = splat(-step * step) / maximum(squared, splat(_EPSILON))
            slope = select(splat(_EPSILON) < squared, slope, splat(_STEEP))
            store(rows, at + IX * pitch, d_x * splat(_F(1) / step))
            store(rows, at + IY * pitch, d_y * splat(_F(1) / step))
            residual = select(valid, image - d_x * u - d_y * v - previous, zero)
            store(rows, at + RHO * pitch, residual)
            store(rows, at + INVERSE * pitch, slope)


@njit
def _sample_alone(planes, stride, plane, positions, samples, cubic):  # type: ignore[no-untyped-def]
    """Sample the second image and its gradient at 16 unrelated positions, (columns, lines)."""
    for lane in range(LANES):
        column, line = positions[lane], positions[LANES + lane]
        left, top = np.floor(column), np.floor(line)
        weights_x = cubic_weights(column - left, _F(1), cubic)
        weights_y = cubic_weights(line - top, _F(1), cubic)
        corner = (BORDER - 1 + int(top)) * stride + BORDER - 1 + int(left)
        for image in (SECOND, D_X, D_Y):
            total = _F(0)
            for j in range(4):
                at = corner + image * plane + j * stride
                for i in range(4):
                    total += weights_y[j] * (weights_x[i] * planes[at + i])
            samples[image * LANES + lane] = total


@njit
def _median(rows, field, height, width, pitch, size, copy, columns):  # type: ignore[no-untyped-def]
    """Replace a field by its median over size x size pixels, edges repeated."""
    stride = pitch + LANES
    reach = size // 2
    _copy_padded(rows, field, height, width, pitch, reach, copy)
    for y in range(height):
        above, at = y * stride, (y + 1) * FIELDS * pitch + field * pitch
        # Columns are sorted once for the `size` windows that share them.
        for x in range(0, width + 2 * reach, LANES):
            if size == 3:
                _sort_columns3(copy, above + x, stride, columns, x)
            else:
                _sort_columns5(copy, above + x, stride, columns, x)
        for x in range(0, width, LANES):
            if size == 3:
                middle = _median_of_columns3(columns, x, stride)
            else:
                middle = _median_of_columns5(columns, x, stride)
            inside = ramp() < splat(_F(width - x))
            store(rows, at + x, select(inside, middle, splat(_F(0))))


@njit
def _copy_padded(rows, field, height, width, pitch, reach, copy):  # type: ignore[no-untyped-def]
    stride = pitch + LANES
    for y in range(height + 2 * reach):
        at = (min(max(y - reach, 0), height - 1) + 1) * FIELDS * pitch + field * pitch
        for x in range(width):
            copy[y * stride + reach + x] = rows[at + x]
        for x in range(reach):
            copy[y * stride + x] = rows[at]
            copy[y * stride + reach + width + x] = rows[at + width - 1]


@njit
def _sort2(a, b):  # type: ignore[no-untyped-def]
    return minimum(a, b), maximum(a, b)


@njit
def _sort3(a, b, c):  # type: ignore[no-untyped-def]
    a, b = _sort2(a, b)
    b, c = _sort2(b, c)
    a, b = _sort2(a, b)
    return a, b, c


@njit
def _sort5(a, b, c, d, e):  # type: ignore[no-untyped-def]
    """Sort by the shortest network, nine exchanges; LLVM drops those whose result is not used."""
    a, b = _sort2(a, b)
    d, e = _sort2(d, e)
    c, e = _sort2(c, e)
    c, d = _sort2(c, d)
    a, d = _sort2(a, d)
    b, e = _sort2(b, e)
    a, c = _sort2(a, c)
    b, d = _sort2(b, d)
    b, c = _sort2(b, c)
    return a, b, c, d, e


@njit
def _sort_columns3(source, at, stride, lines, x):  # type: ignore[no-untyped-def]
    a, b, c = _sort3(load(source, at), load(source, at + stride), load(source, at + 2 * stride))
    store(lines, x, a)
    store(lines, stride + x, b)
    store(lines, 2 * stride + x, c)


@njit
def _median_of_columns3(lines, x, stride):  # type: ignore[no-untyped-def]
    """Median of 3 x 3: the middle one of greatest least, middle middle and least greatest."""
    _, _, a = _sort3(*_neighbours3(lines, x))
    _, b, _ = _sort3(*_neighbours3(lines, stride + x))
    c, _, _ = _sort3(*_neighbours3(lines, 2 * stride + x))
    return _sort3(a, b, c)[1]


@njit
def _neighbours3(lines, at):  # type: ignore[no-untyped-def]
    return load(lines, at), load(lines, at + 1), load(lines, at + 2)


@njit
def _sort_columns5(source, at, stride, lines, x):  # type: ignore[no-untyped-def]
    a, b, c, d, e = _sort5(
        load(source, at),
        load(source, at + stride),
        load(source, at + 2 * stride),
        load(source, at + 3 * stride),
        load(source, at + 4 * stride),
    )
    store(lines, x, a)
    store(lines, stride + x, b)
    store(lines, 2 * stride + x, c)
    store(lines, 3 * stride + x, d)
    store(lines, 4 * stride + x, e)


@njit
def _median_of_columns5(lines, x, stride):  # type: ignore[no-untyped-def]
    """Median of 5 x 5, from sorted columns.

    With columns and then rows sorted, the median is the middle one of three: the greatest on
    the diagonal above the anti-diagonal, the median of the anti-diagonal, the least on the
    diagonal below it. Shown by the 0-1 principle, over all 6^5 states of sorted columns.
    """
    _, _, _, a4, a5 = _sort5(*_neighbours5(lines, x))
    _, _, b3, b4, b5 = _sort5(*_neighbours5(lines, stride + x))
    _, c2, c3, c4, _ = _sort5(*_neighbours5(lines, 2 * stride + x))
    d1, d2, d3, _, _ = _sort5(*_neighbours5(lines, 3 * stride + x))
    e1, e2, _, _, _ = _sort5(*_neighbours5(lines, 4 * stride + x))
    low = maximum(maximum(a4, b3), maximum(c2, d1))
    high = minimum(minimum(b5, c4), minimum(d3, e2))
    return _sort3(low, _sort5(a5, b4, c3, d2, e1)[2], high)[1]


@njit
def _neighbours5(lines, at):  # type: ignore[no-untyped-def]
    return (
        load(lines, at),
        load(lines, at + 1),
        load(lines, at + 2),
        load(lines, at + 3),
        load(lines, at + 4),
    )
