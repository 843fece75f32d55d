"""The compiled steps of CLG at one pyramid level: warping, averaging, solving.

All fields of a level lie one after the other in one block, each a plane as in
`apexflow.kernels.light.gaussian`. A field of the solver holds a copy of its first and last
column in the gaps beside each row, so that the Laplacian sees a border across which nothing
changes; what lies beyond is zero wherever it enters a sum. The equations are divided by alpha.
"""

from __future__ import annotations

import numpy as np

from apexflow.kernels.compiled import njit
from apexflow.kernels.confidence import HALF_SURE, ROUNDING, UNSEEN
from apexflow.kernels.light.gaussian import (
    GAP,
    blur_across,
    blur_down,
    fill_offsets,
    mirrored,
    pitch_of,
    plane_size,
    row_room,
)
from apexflow.kernels.sampling import clamp, cubic_weights, sample_window, window_weights
from apexflow.kernels.simd import (
    LANES,
    aligned,
    any_lane,
    floor,
    keep,
    load,
    lowest,
    muladd,
    pointer,
    ramp,
    select,
    splat,
    store,
    widen,
)

# The flow; residual and direction of conjugate gradients and what the matrix makes of that; the
# averaged products of the slopes; the preconditioner.
U, V, R1, R2, P1, P2, Q1, Q2, J11, J12, J22, M11, M12, M22 = range(14)
FIELDS = 14
# Before the solver starts, its fields hold the products of the slopes, which are averaged into
# J11, J12, J22, R1, R2, and what they are made of.
XX, XY, YY, XT, YT = P1, P2, Q1, Q2, M11
MEAN, CHANGE = M12, M22

# An image that is warped has its edge repeated around it: all taps of any position that the
# warp clamps lie inside.
BORDER = 8
LEFT, RIGHT = 16, 32

_F = np.float32
_CUBIC = _F(-0.5)  # Catmull and Rom's: the one cubic of Keys' that is exact for parabolas
_FAR = _F(1e9)
_UNSEEN, _HALF_LESS = _F(UNSEEN), _F(0.5 - ROUNDING)
_HALF_SURE_SQUARED = _F(HALF_SURE**2)


@njit
def stride_of(width):  # type: ignore[no-untyped-def]
    """Return the length of a bordered image's row."""
    return -(-width // LANES) * LANES + LEFT + RIGHT


@njit
def bordered_size(height, width):  # type: ignore[no-untyped-def]
    """Return how many floats a bordered image takes."""
    return (height + 2 * BORDER) * stride_of(width)


@njit
def add_border(image, bordered):  # type: ignore[no-untyped-def]
    """Copy an image (H, W) into the middle of its bordered form and repeat its edge."""
    height, width = image.shape
    stride = stride_of(width)
    for row in range(height + 2 * BORDER):
        y = min(max(row - BORDER, 0), height - 1)
        at = row * stride
        for x in range(LEFT):
            bordered[at + x] = image[y, 0]
        for x in range(width):
            bordered[at + LEFT + x] = image[y, x]
        for x in range(LEFT + width, stride):
            bordered[at + x] = image[y, width - 1]


@njit
def halve(image):  # type: ignore[no-untyped-def]
    """Return an image at half the size: means of 2 x 2, an odd side's last pixel repeated."""
    height, width = image.shape
    half = np.empty(((height + 1) // 2, (width + 1) // 2), np.float32)
    for y in range(half.shape[0]):
        above, below = 2 * y, min(2 * y + 1, height - 1)
        for x in range(half.shape[1]):
            left, right = 2 * x, min(2 * x + 1, width - 1)
            upper = image[above, left] + image[above, right]
            half[y, x] = _F(0.25) * (upper + (image[below, left] + image[below, right]))
    return half


@njit
def double(flow, height, width):  # type: ignore[no-untyped-def]
    """Return the flow (2, h, w) of a level for the next finer one, of this size: bilinear."""
    _, rows, columns = flow.shape
    doubled = np.empty((2, height, width), np.float32)
    line = np.empty(columns, np.float32)
    near, far = _F(1.5), _F(0.5)  # 3/4 and 1/4, and the flow is twice as long
    for part in range(2):
        for y in range(height):
            i = y // 2
            j = max(i - 1, 0) if y % 2 == 0 else min(i + 1, rows - 1)
            for x in range(columns):
                line[x] = near * flow[part, i, x] + far * flow[part, j, x]
            for x in range(0, width, 2):
                k = x // 2
                doubled[part, y, x] = _F(0.75) * line[k] + _F(0.25) * line[max(k - 1, 0)]
            for x in range(1, width, 2):
                k = x // 2
                last = line[min(k + 1, columns - 1)]
                doubled[part, y, x] = _F(0.75) * line[k] + _F(0.25) * last
    return doubled


@njit
def fields_size(height, width):  # type: ignore[no-untyped-def]
    """Return how many floats the fields of a level take."""
    return FIELDS * plane_size(height, width)


@njit
def workspace(height, width):  # type: ignore[no-untyped-def]
    """Return room for `refine` at a level of this size, or of any smaller one."""
    return aligned(fields_size(height, width) + 2 * bordered_size(height, width))


@njit
def refine(  # type: ignore[no-untyped-def]
    first, second, flow, room, alpha, taps, warps, iterations, tolerance
):
    """Improve ``flow`` (2, H, W) in place from one level (H, W) of two images."""
    height, width = first.shape
    fields_end = fields_size(height, width)
    first_end = fields_end + bordered_size(height, width)
    room[:fields_end] = 0
    fields = pointer(room)
    images = pointer(room[fields_end:]), pointer(room[first_end:])
    add_border(first, images[0])
    add_border(second, images[1])
    offsets, row = _averaging(height, width, taps)
    copy_in(flow, fields)
    for _ in range(warps):
        _compare(images, fields, height, width)
        average(fields, height, width, alpha, pointer(taps), len(taps) - 1, offsets, pointer(row))
        solve(fields, height, width, iterations, tolerance)
    copy_out(fields, flow)
    keep(row)


@njit
def fit(  # type: ignore[no-untyped-def]
    mean, change, flow, room, alpha, taps, iterations, tolerance
):
    """Improve ``flow`` (2, H, W) in place, given what a warp by it leaves.

    ``mean`` is the mean of the first and the warped second image, ``change`` what the second
    one has more, both (H, W).
    """
    _, height, width = flow.shape
    room[: fields_size(height, width)] = 0
    fields = pointer(room)
    offsets, row = _averaging(height, width, taps)
    copy_in(flow, fields)
    size, pitch = plane_size(height, width), pitch_of(width)
    for y in range(height):
        at = GAP + y * pitch
        for x in range(width):
            fields[MEAN * size + at + x] = mean[y, x]
            fields[CHANGE * size + at + x] = change[y, x]
    average(fields, height, width, alpha, pointer(taps), len(taps) - 1, offsets, pointer(row))
    solve(fields, height, width, iterations, tolerance)
    copy_out(fields, flow)
    keep(row)


@njit
def compare(first, second, flow, room):  # type: ignore[no-untyped-def]
    """Return what `fit` takes, mean and change, of two images (H, W) and a flow (2, H, W)."""
    height, width = first.shape
    fields_end = fields_size(height, width)
    first_end = fields_end + bordered_size(height, width)
    room[:fields_end] = 0
    fields = pointer(room)
    images = pointer(room[fields_end:]), pointer(room[first_end:])
    add_border(first, images[0])
    add_border(second, images[1])
    copy_in(flow, fields)
    _compare(images, fields, height, width)
    size, pitch = plane_size(height, width), pitch_of(width)
    mean, change = np.empty((2, height, width), np.float32)
    for y in range(height):
        at = GAP + y * pitch
        for x in range(width):
            mean[y, x] = fields[MEAN * size + at + x]
            change[y, x] = fields[CHANGE * size + at + x]
    return mean, change


@njit
def confidence(mean, change, step, flow, room, alpha, taps, share):  # type: ignore[no-untyped-def]
    """Return the confidence (H, W) in a flow (2, H, W).

    ``mean`` and ``change`` are as in `fit`, of a warp by the flow less ``step``; ``share`` is what
    the mean square error is of the energy over the stiffness.
    """
    _, height, width = flow.shape
    room[: fields_size(height, width)] = 0
    fields = pointer(room)
    offsets, row = _averaging(height, width, taps)
    copy_in(step, fields)
    size, pitch = plane_size(height, width), pitch_of(width)
    for y in range(height):
        at = GAP + y * pitch
        for x in range(width):
            fields[MEAN * size + at + x] = mean[y, x]
            fields[CHANGE * size + at + x] = change[y, x]
    mirror_ends(fields, MEAN * size, height, width)
    for y in range(height):
        _multiply(fields, y, height, width)
        _square(fields, y, height, width)
    one, reach = splat(_F(1)), len(taps) - 1
    for source, target in ((XX, J11), (XY, J12), (YY, J22), (XT, R1)):
        _average(
            fields, source, target, height, width, pointer(taps), reach, offsets, pointer(row), one
        )
    result = np.empty((height, width), np.float32)
    for y in range(height):
        at = GAP + y * pitch
        above, below = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            a, b = fields[J11 * size + at + x], fields[J12 * size + at + x]
            c = fields[J22 * size + at + x]
            half = _F(0.5) * (a - c)
            least = _HALF_LESS * (a + c) - np.sqrt(half * half + b * b)
            left, right = max(x - 1, 0), min(x + 1, width - 1)
            energy = _F(0)
            for part in range(2):
                across = flow[part, y, right] - flow[part, y, left]
                down = flow[part, below, x] - flow[part, above, x]
                energy += _F(0.25) * (across * across + down * down)
            energy = fields[R1 * size + at + x] + alpha * energy
            error = share * energy / (least + alpha)
            ratio = error / _HALF_SURE_SQUARED + _UNSEEN * alpha / least
            result[y, x] = _F(1) / (_F(1) + ratio) if least > _F(0) else _F(0)
    keep(row)
    return result


@njit
def _square(fields, y, height, width):  # type: ignore[no-untyped-def]
    """Fill a row of XT with the square of the change that is left after the step in U, V."""
    size, pitch = plane_size(height, width), pitch_of(width)
    at = GAP + y * pitch
    for x in range(0, width, LANES):
        slope_x, slope_y = slopes(fields, MEAN * size, x, y, height, pitch)
        rest = load(fields, CHANGE * size + at + x)
        rest = rest + slope_x * load(fields, U * size + at + x)
        rest = rest + slope_y * load(fields, V * size + at + x)
        store(fields, XT * size + at + x, rest * rest)


@njit
def _averaging(height, width, taps):  # type: ignore[no-untyped-def]
    radius = len(taps) - 1
    offsets = np.empty(height + 2 * radius, np.int64)
    fill_offsets(offsets, height, width, radius)
    row = aligned(row_room(width, radius))
    row[:] = 0  # beyond a row's end it is read, and never written
    return offsets, row


@njit
def copy_in(flow, fields):  # type: ignore[no-untyped-def]
    """Copy a flow (2, H, W) into its fields."""
    _, height, width = flow.shape
    size, pitch = plane_size(height, width), pitch_of(width)
    for y in range(height):
        at = GAP + y * pitch
        for x in range(width):
            fields[U * size + at + x] = flow[0, y, x]
            fields[V * size + at + x] = flow[1, y, x]


@njit
def copy_out(fields, flow):  # type: ignore[no-untyped-def]
    """Copy the flow out of its fields."""
    _, height, width = flow.shape
    size, pitch = plane_size(height, width), pitch_of(width)
    for y in range(height):
        at = GAP + y * pitch
        for x in range(width):
            flow[0, y, x] = fields[U * size + at + x]
            flow[1, y, x] = fields[V * size + at + x]


@njit
def _compare(images, fields, height, width):  # type: ignore[no-untyped-def]
    """Warp the second image by the flow and fill MEAN and CHANGE against the first."""
    first, second = images
    stride, size, pitch = stride_of(width), plane_size(height, width), pitch_of(width)
    positions = aligned(2 * LANES)
    values = aligned(LANES)
    for y in range(height):
        for x in range(0, width, LANES):
            at = GAP + y * pitch + x
            u, v = load(fields, U * size + at), load(fields, V * size + at)
            warped = warp(second, u, v, x, y, height, width, positions, values)
            here = load(first, (BORDER + y) * stride + LEFT + x)
            store(fields, MEAN * size + at, splat(_F(0.5)) * (here + warped))
            store(fields, CHANGE * size + at, warped - here)


@njit
def warp(image, u, v, x, y, height, width, positions, values):  # type: ignore[no-untyped-def]
    """Return 16 pixels from (x, y) on of a bordered image, moved by (u, v).

    Where the flow of 16 neighbours lies within one pixel, as nearly everywhere, they share a
    window of 5 x 5 taps, each lane with its own weights; elsewhere each pixel is sampled alone.
    """
    stride = stride_of(width)
    # Beyond 3 px outside all taps see the same edge, wherever exactly.
    column = clamp(ramp() + splat(_F(x)) + u, _F(-3), _F(width + 2))
    line = clamp(splat(_F(y)) + v, _F(-3), _F(height + 2))
    left, top = floor(column), floor(line)
    shift_x, shift_y = left - ramp(), top
    valid = ramp() < splat(_F(width - x))
    least_x = lowest(select(valid, shift_x, splat(_FAR)))
    least_y = lowest(select(valid, shift_y, splat(_FAR)))
    torn = (splat(least_x + _F(1)) < shift_x) | (splat(least_y + _F(1)) < shift_y)
    if any_lane(torn & valid):
        store(positions, 0, column)
        store(positions, LANES, line)
        _warp_alone(image, stride, positions, values)
        return load(values, 0)
    corner = (BORDER - 1 + int(least_y)) * stride + LEFT - 1 + int(least_x)
    across = window_weights(column - left, splat(least_x) < shift_x, _CUBIC)
    down = window_weights(line - top, splat(least_y) < shift_y, _CUBIC)
    return sample_window(image, corner, stride, across, down)


@njit
def _warp_alone(image, stride, positions, values):  # type: ignore[no-untyped-def]
    """Sample 16 positions, columns and then lines, one by one."""
    for lane in range(LANES):
        column, line = positions[lane], positions[LANES + lane]
        left, top = np.floor(column), np.floor(line)
        across = cubic_weights(column - left, _F(1), _CUBIC)
        down = cubic_weights(line - top, _F(1), _CUBIC)
        at = (BORDER - 1 + int(top)) * stride + LEFT - 1 + int(left)
        total = _F(0)
        for j in range(4):
            part = _F(0)
            for i in range(4):
                part += across[i] * image[at + j * stride + i]
            total += down[j] * part
        values[lane] = total


@njit
def average(  # type: ignore[no-untyped-def]
    fields, height, width, alpha, taps, radius, offsets, row
):
    """Fill J11, J12, J22 and R1, R2 (which then hold b), divided by alpha, from MEAN, CHANGE."""
    size = plane_size(height, width)
    mirror_ends(fields, MEAN * size, height, width)
    for y in range(height):
        _multiply(fields, y, height, width)
    scale = splat(_F(1) / alpha)
    _average(fields, XX, J11, height, width, taps, radius, offsets, row, scale)
    _average(fields, XY, J12, height, width, taps, radius, offsets, row, scale)
    _average(fields, YY, J22, height, width, taps, radius, offsets, row, scale)
    _average(fields, XT, R1, height, width, taps, radius, offsets, row, scale)
    _average(fields, YT, R2, height, width, taps, radius, offsets, row, scale)


@njit
def mirror_ends(planes, plane, height, width):  # type: ignore[no-untyped-def]
    """Mirror two pixels beyond the ends of each row of the plane that starts at ``plane``."""
    pitch = pitch_of(width)
    for y in range(height):
        at = plane + GAP + y * pitch
        for k in (1, 2):
            planes[at - k] = planes[at + mirrored(k, width)]
            planes[at + width - 1 + k] = planes[at + mirrored(width - 1 + k, width)]


@njit
def slopes(planes, plane, x, y, height, pitch):  # type: ignore[no-untyped-def]
    """Return the slopes (x, y) of 16 pixels, by the five taps (1, -8, 0, 8, -1) / 12."""
    column = plane + GAP + x
    here = column + y * pitch
    above = column + mirrored(y - 1, height) * pitch
    below = column + mirrored(y + 1, height) * pitch
    far_above = column + mirrored(y - 2, height) * pitch
    far_below = column + mirrored(y + 2, height) * pitch
    near = load(planes, here + 1) - load(planes, here - 1)
    far = load(planes, here + 2) - load(planes, here - 2)
    slope_x = splat(_F(2 / 3)) * near - splat(_F(1 / 12)) * far
    near = load(planes, below) - load(planes, above)
    far = load(planes, far_below) - load(planes, far_above)
    return slope_x, splat(_F(2 / 3)) * near - splat(_F(1 / 12)) * far


@njit
def _multiply(fields, y, height, width):  # type: ignore[no-untyped-def]
    """Fill a row of the five products of the slopes of MEAN and of CHANGE."""
    size, pitch = plane_size(height, width), pitch_of(width)
    at = GAP + y * pitch
    for x in range(0, width, LANES):
        slope_x, slope_y = slopes(fields, MEAN * size, x, y, height, pitch)
        change = load(fields, CHANGE * size + at + x)
        store(fields, XX * size + at + x, slope_x * slope_x)
        store(fields, XY * size + at + x, slope_x * slope_y)
        store(fields, YY * size + at + x, slope_y * slope_y)
        store(fields, XT * size + at + x, slope_x * change)
        store(fields, YT * size + at + x, slope_y * change)


@njit
def _average(  # type: ignore[no-untyped-def]
    fields, source, target, height, width, taps, radius, offsets, row, scale
):
    size, pitch = plane_size(height, width), pitch_of(width)
    for y in range(height):
        blur_down(fields, source * size, offsets, y, width, taps, radius, row)
        at = target * size + GAP + y * pitch
        for x in range(0, width, LANES):
            value = scale * blur_across(row, x, taps, radius)
            store(fields, at + x, _inside(value, x, width))


@njit
def _inside(value, x, width):  # type: ignore[no-untyped-def]
    """Return 16 pixels from x on, zero where they lie beyond the row's end."""
    if x + LANES <= width:
        return value
    return select(ramp() < splat(_F(width - x)), value, splat(_F(0)))


@njit
def solve(fields, height, width, iterations, tolerance):  # type: ignore[no-untyped-def]
    """Solve (J - Laplacian) f = J f0 - b for f by conjugate gradients, from f = f0 on.

    They are preconditioned with the 2 x 2 blocks of the diagonal, and end when the residual is
    at most ``tolerance`` of the right side, or after ``iterations`` steps.
    """
    size, pitch = plane_size(height, width), pitch_of(width)
    sums = np.empty(3 * LANES)
    _close(fields, U * size, height, width, pitch)
    _close(fields, V * size, height, width, pitch)
    squared, limit, product = _start(fields, height, width, sums)
    limit *= tolerance * tolerance
    turn = _F(0)
    for _ in range(iterations):
        # The product vanishes when the residual has shrunk to nothing that float32 holds.
        if squared <= limit or not product > 0:
            break
        curvature = _turn(fields, height, width, turn, sums)
        if not curvature > 0:
            break
        squared, following = _advance(fields, height, width, _F(product / curvature), sums)
        turn = _F(following / product)
        product = following


@njit
def _close(fields, start, height, width, pitch):  # type: ignore[no-untyped-def]
    """Repeat the first and last column of a field in the gaps."""
    for y in range(height):
        _close_row(fields, start + GAP + y * pitch, width)


@njit
def _close_row(fields, at, width):  # type: ignore[no-untyped-def]
    fields[at - 1] = fields[at]
    fields[at + width] = fields[at + width - 1]


@njit
def _laplacian(fields, at, above, below):  # type: ignore[no-untyped-def]
    """Return the sum of the four neighbours less four times the pixel; rows are distances."""
    beside = load(fields, at - 1) + load(fields, at + 1)
    around = beside + (load(fields, at + above) + load(fields, at + below))
    return muladd(splat(_F(-4)), load(fields, at), around)


@njit
def _precondition(fields, at, size, r1, r2):  # type: ignore[no-untyped-def]
    m12 = load(fields, at + M12 * size)
    z1 = muladd(load(fields, at + M11 * size), r1, m12 * r2)
    return z1, muladd(load(fields, at + M22 * size), r2, m12 * r1)


@njit
def _start(fields, height, width, sums):  # type: ignore[no-untyped-def]
    """Fill the residual, the preconditioner and a direction of zero.

    Return the squared length of the residual and of the right side, and the residual's product
    with its preconditioned form.
    """
    size, pitch = plane_size(height, width), pitch_of(width)
    all_residual, all_right, all_product = splat(0.0), splat(0.0), splat(0.0)
    zero = splat(_F(0))
    for y in range(height):
        above, below = -pitch if y > 0 else 0, pitch if y < height - 1 else 0
        neighbours = _F((y > 0) + (y < height - 1))
        residual, right, product = zero, zero, zero
        for x in range(0, width, LANES):
            at = GAP + y * pitch + x
            j11, j12 = load(fields, at + J11 * size), load(fields, at + J12 * size)
            j22 = load(fields, at + J22 * size)
            beside = select(splat(_F(0.5 - x)) < ramp(), splat(_F(1)), zero)
            beside = beside + select(ramp() < splat(_F(width - 1 - x)), splat(_F(1)), zero)
            degree = beside + splat(neighbours)
            d1, d2 = j11 + degree, j22 + degree
            inverse = splat(_F(1)) / (d1 * d2 - j12 * j12)
            store(fields, at + M11 * size, d2 * inverse)
            store(fields, at + M12 * size, -j12 * inverse)
            store(fields, at + M22 * size, d1 * inverse)
            b1, b2 = load(fields, at + R1 * size), load(fields, at + R2 * size)
            r1 = _inside(_laplacian(fields, at + U * size, above, below) - b1, x, width)
            r2 = _inside(_laplacian(fields, at + V * size, above, below) - b2, x, width)
            store(fields, at + R1 * size, r1)
            store(fields, at + R2 * size, r2)
            store(fields, at + P1 * size, zero)
            store(fields, at + P2 * size, zero)
            u, v = load(fields, at + U * size), load(fields, at + V * size)
            # J is zero beyond the row's end.
            f1 = muladd(j11, u, j12 * v) - b1
            f2 = muladd(j12, u, j22 * v) - b2
            z1, z2 = _precondition(fields, at, size, r1, r2)
            residual = muladd(r1, r1, muladd(r2, r2, residual))
            right = muladd(f1, f1, muladd(f2, f2, right))
            product = muladd(r1, z1, muladd(r2, z2, product))
        all_residual = all_residual + widen(residual)
        all_right = all_right + widen(right)
        all_product = all_product + widen(product)
    store(sums, 0, all_residual)
    store(sums, LANES, all_right)
    store(sums, 2 * LANES, all_product)
    return sums[:LANES].sum(), sums[LANES : 2 * LANES].sum(), sums[2 * LANES :].sum()


@njit
def _turn_row(fields, y, width, size, pitch, turn):  # type: ignore[no-untyped-def]
    """Turn a row of the direction towards the preconditioned residual."""
    at = GAP + y * pitch
    for x in range(at, at + width, LANES):
        r1, r2 = load(fields, x + R1 * size), load(fields, x + R2 * size)
        z1, z2 = _precondition(fields, x, size, r1, r2)
        store(fields, x + P1 * size, muladd(turn, load(fields, x + P1 * size), z1))
        store(fields, x + P2 * size, muladd(turn, load(fields, x + P2 * size), z2))
    _close_row(fields, at + P1 * size, width)
    _close_row(fields, at + P2 * size, width)


@njit
def _turn(fields, height, width, turn, sums):  # type: ignore[no-untyped-def]
    """Take the next direction, apply the matrix to it, and return the product of the two.

    The Laplacian of a row needs the new direction of the row below: one pass does both.
    """
    size, pitch = plane_size(height, width), pitch_of(width)
    total = splat(0.0)
    _turn_row(fields, 0, width, size, pitch, splat(turn))
    for y in range(height):
        if y + 1 < height:
            _turn_row(fields, y + 1, width, size, pitch, splat(turn))
        above, below = -pitch if y > 0 else 0, pitch if y < height - 1 else 0
        product = splat(_F(0))
        for x in range(0, width, LANES):
            at = GAP + y * pitch + x
            p1, p2 = load(fields, at + P1 * size), load(fields, at + P2 * size)
            j12 = load(fields, at + J12 * size)
            q1 = muladd(load(fields, at + J11 * size), p1, j12 * p2)
            q2 = muladd(load(fields, at + J22 * size), p2, j12 * p1)
            q1 = _inside(q1 - _laplacian(fields, at + P1 * size, above, below), x, width)
            q2 = _inside(q2 - _laplacian(fields, at + P2 * size, above, below), x, width)
            store(fields, at + Q1 * size, q1)
            store(fields, at + Q2 * size, q2)
            product = muladd(p1, q1, muladd(p2, q2, product))
        total = total + widen(product)
    store(sums, 0, total)
    return sums[:LANES].sum()


@njit
def _advance(fields, height, width, step, sums):  # type: ignore[no-untyped-def]
    """Go a step along the direction.

    Return the residual's squared length and its product with its preconditioned form.
    """
    size, pitch = plane_size(height, width), pitch_of(width)
    all_residual, all_product = splat(0.0), splat(0.0)
    onwards, back = splat(step), splat(-step)
    for y in range(height):
        residual, product = splat(_F(0)), splat(_F(0))
        start = GAP + y * pitch
        for at in range(start, start + width, LANES):
            p1, p2 = load(fields, at + P1 * size), load(fields, at + P2 * size)
            store(fields, at + U * size, muladd(onwards, p1, load(fields, at + U * size)))
            store(fields, at + V * size, muladd(onwards, p2, load(fields, at + V * size)))
            r1 = muladd(back, load(fields, at + Q1 * size), load(fields, at + R1 * size))
            r2 = muladd(back, load(fields, at + Q2 * size), load(fields, at + R2 * size))
            store(fields, at + R1 * size, r1)
            store(fields, at + R2 * size, r2)
            z1, z2 = _precondition(fields, at, size, r1, r2)
            residual = muladd(r1, r1, muladd(r2, r2, residual))
            product = muladd(r1, z1, muladd(r2, z2, product))
        all_residual = all_residual + widen(residual)
        all_product = all_product + widen(product)
    store(sums, 0, all_residual)
    store(sums, LANES, all_product)
    return sums[:LANES].sum(), sums[LANES : 2 * LANES].sum()
