"""The compiled steps of Farnebäck's method on the CPU.

All arrays are float32 with rows of whole vectors: images and the two planes of the flow are
(H, pitch), where pitch is the width rounded up to 16. What lies beyond the width is undefined.
The five coefficients of a pixel are those of y, x, y², x², xy. They are (H, 5, PAD + pitch),
the planes of a row side by side so that one row stays in the first-level cache, and 0 in the
PAD elements before a row's pixels and beyond its width. The five observations are the distinct
entries of the normal equations, g11, g12, g22, h1, h2, with index 1 for y and 2 for x.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from apexflow.kernels import simd
from apexflow.kernels.compiled import njit
from apexflow.kernels.flow_farneback.levels import PAD, Doubles, Floats, Indices

LANES = simd.LANES

# OpenCV adds this to the determinant of the averaged normal equations.
RIDGE = 1e-3

# Coefficients are fetched from memory this many rows before they are needed.
_AHEAD = 8


@njit
def row_pitch(width: int) -> int:
    """Return the length of a row of whole vectors."""
    return width + -width % LANES


@njit
def _rows(height: int, width: int) -> Floats:
    """Return an array for ``height`` rows of ``width`` pixels, each padded to whole vectors."""
    pitch = row_pitch(width)
    return simd.aligned(height * pitch).reshape((height, pitch))


@njit
def blur(image: Floats, width: int) -> Floats:
    """Smooth with (1, 2, 1) / 4 along both axes, mirrored at the border."""
    height = image.shape[0]
    half, quarter = np.float32(0.5), np.float32(0.25)
    blurred = _rows(height, width)
    line = np.empty(width + 2, np.float32)
    for y in range(height):
        row, out = image[y], blurred[y]
        above = image[min(abs(y - 1), height - 1)]
        below = image[y + 1 if y + 1 < height else max(height - 2, 0)]
        for x in range(width):
            line[x + 1] = quarter * (above[x] + below[x]) + half * row[x]
        line[0] = line[min(2, width)]
        line[width + 1] = line[max(width - 1, 1)]
        for x in range(width):
            out[x] = quarter * (line[x] + line[x + 2]) + half * line[x + 1]
    return blurred


@njit
def _filter_rows(image: Floats, width: int, source: Indices, weight: Floats, out: Floats) -> Floats:
    """Make each row of ``out`` the sum of the rows ``source[y]`` times ``weight[y]``."""
    pitch = image.shape[1]
    height, count = source.shape
    for y in range(height):
        for x in range(0, width, LANES):
            total = simd.load(image, source[y, 0] * pitch + x) * simd.splat(weight[y, 0])
            for t in range(1, count):
                row = simd.load(image, source[y, t] * pitch + x)
                total = simd.muladd(row, simd.splat(weight[y, t]), total)
            simd.store(out, y * pitch + x, total)
    return out


@njit
def _transpose(image: Floats, width: int) -> Floats:
    """Return the (width, H) transpose."""
    transposed = _rows(width, image.shape[0])
    for x in range(width):
        row = transposed[x]
        for y in range(image.shape[0]):
            row[y] = image[y, x]
    return transposed


@njit
def _filter_columns(image: Floats, width: int, source: Indices, weight: Floats) -> Floats:
    """Filter along the rows; by whole vectors, with two transpositions, twice as fast."""
    height = image.shape[0]
    columns = _transpose(image, width)
    filtered = _filter_rows(columns, height, source, weight, _rows(len(source), height))
    return _transpose(filtered, height)


@njit
def reduce(
    image: Floats,
    width: int,
    row_source: Indices,
    row_weight: Floats,
    column_source: Indices,
    column_weight: Floats,
) -> Floats:
    """Blur the full image and reduce it to a pyramid level."""
    rows = _rows(len(row_source), width)
    _filter_rows(image, width, row_source, row_weight, rows)
    return _filter_columns(rows, width, column_source, column_weight)


@njit
def enlarge(
    flow: Floats,
    width: int,
    row_source: Indices,
    row_weight: Floats,
    column_source: Indices,
    column_weight: Floats,
) -> Floats:
    """Carry the flow of a coarser level over to the next finer one."""
    _, height, pitch = flow.shape
    both = flow.reshape((2 * height, pitch))
    wide = _filter_columns(both, width, column_source, column_weight)
    new_height, new_width = len(row_source), len(column_source)
    enlarged = _rows(2 * new_height, new_width).reshape((2, new_height, wide.shape[1]))
    _filter_rows(wide[:height], new_width, row_source, row_weight, enlarged[0])
    _filter_rows(wide[height:], new_width, row_source, row_weight, enlarged[1])
    return enlarged


@njit
def expand(
    image: Floats, width: int, taps: Any, ig11: float, ig55: float, coefficients: Floats
) -> None:
    """Fit a quadratic polynomial to the neighbourhood of each pixel.

    ``taps`` is a tuple of tuples, see `plan.poly_taps`: their length is then part of the
    type and LLVM unrolls the loops over them, which is 1.6 times as fast.
    """
    height, line = image.shape
    stride = coefficients.shape[2]
    smooth, slope, curve = taps
    slope_factor, cross_factor = simd.splat(np.float32(ig11)), simd.splat(np.float32(ig55))
    n = len(smooth) - 1
    margin = row_pitch(n)
    pitch = margin + line + margin
    moments = simd.aligned(3 * pitch)
    rows = np.empty((2, n + 1), np.int64)
    for y in range(height):
        for k in range(n + 1):
            rows[0, k] = max(y - k, 0) * line
            rows[1, k] = min(y + k, height - 1) * line
        for x in range(0, width, LANES):
            centre = simd.load(image, rows[0, 0] + x)
            m0 = centre * simd.splat(smooth[0])
            m1 = centre * simd.splat(slope[0])
            m2 = centre * simd.splat(curve[0])
            for k in range(1, n + 1):
                above = simd.load(image, rows[0, k] + x)
                below = simd.load(image, rows[1, k] + x)
                m0 = simd.muladd(above + below, simd.splat(smooth[k]), m0)
                m1 = simd.muladd(below - above, simd.splat(slope[k]), m1)
                m2 = simd.muladd(above + below, simd.splat(curve[k]), m2)
            simd.store(moments, margin + x, m0)
            simd.store(moments, margin + pitch + x, m1)
            simd.store(moments, margin + 2 * pitch + x, m2)
        _repeat_ends(moments, 3, pitch, margin, width, n)
        for x in range(0, width, LANES):
            at = margin + x
            m0, m1 = simd.load(moments, at), simd.load(moments, at + pitch)
            m2 = simd.load(moments, at + 2 * pitch)
            c0, c1 = m1 * simd.splat(smooth[0]), m0 * simd.splat(slope[0])
            c2, c3 = m2 * simd.splat(smooth[0]), m0 * simd.splat(curve[0])
            c4 = m1 * simd.splat(slope[0])
            for k in range(1, n + 1):
                left, right = simd.load(moments, at - k), simd.load(moments, at + k)
                c1 = simd.muladd(right - left, simd.splat(slope[k]), c1)
                c3 = simd.muladd(right + left, simd.splat(curve[k]), c3)
                left = simd.load(moments, at + pitch - k)
                right = simd.load(moments, at + pitch + k)
                c0 = simd.muladd(right + left, simd.splat(smooth[k]), c0)
                c4 = simd.muladd(right - left, simd.splat(slope[k]), c4)
                left = simd.load(moments, at + 2 * pitch - k)
                right = simd.load(moments, at + 2 * pitch + k)
                c2 = simd.muladd(right + left, simd.splat(smooth[k]), c2)
            out = y * 5 * stride + PAD + x
            simd.store(coefficients, out, c0 * slope_factor)
            simd.store(coefficients, out + stride, c1 * slope_factor)
            simd.store(coefficients, out + 2 * stride, c2)
            simd.store(coefficients, out + 3 * stride, c3)
            simd.store(coefficients, out + 4 * stride, c4 * cross_factor)
        coefficients[y, :, :PAD] = 0
        coefficients[y, :, PAD + width :] = 0


@njit
def _repeat_ends(rows: Floats, count: int, pitch: int, start: int, width: int, reach: int) -> None:
    """Repeat the first and last pixel of each row outwards, ``reach`` pixels or more.

    The margin before a row is of whole vectors; what a row's end writes beyond its pitch, the
    next row's beginning overwrites.
    """
    for i in range(count):
        begin = i * pitch + start
        end = begin + width
        first, last = simd.splat(rows[begin]), simd.splat(rows[end - 1])
        for k in range(0, reach, LANES):
            simd.store(rows, end + k, last)
            simd.store(rows, begin - LANES - k, first)


@njit(forceinline=True)
def _shares(position: Any, whole: Any, first: Any) -> Any:
    """Return the linear weights of three neighbours, of which the first lies at ``first``.

    ``whole`` is the integer part of the position, the place of the first or the second. The
    weights are those of the two neighbours alone to the last bit, whichever they are.
    """
    zero, one = simd.splat(np.float32(0)), simd.splat(np.float32(1))
    near = one - (position - whole)
    far = one - near
    begins = whole <= first
    second = simd.select(begins, far, near)
    return simd.select(begins, near, zero), second, simd.select(begins, zero, far)


@njit(forceinline=True)
def _add_row(second: Any, stride: int, at: int, w0: Any, w1: Any, w2: Any, sums: Any) -> Any:
    """Add three weighted neighbours of one row to the five sums."""
    s0, s1, s2, s3, s4 = sums
    s0 = simd.muladd(simd.load(second, at), w0, s0)
    s0 = simd.muladd(simd.load(second, at + 1), w1, s0)
    s0 = simd.muladd(simd.load(second, at + 2), w2, s0)
    at += stride
    s1 = simd.muladd(simd.load(second, at), w0, s1)
    s1 = simd.muladd(simd.load(second, at + 1), w1, s1)
    s1 = simd.muladd(simd.load(second, at + 2), w2, s1)
    at += stride
    s2 = simd.muladd(simd.load(second, at), w0, s2)
    s2 = simd.muladd(simd.load(second, at + 1), w1, s2)
    s2 = simd.muladd(simd.load(second, at + 2), w2, s2)
    at += stride
    s3 = simd.muladd(simd.load(second, at), w0, s3)
    s3 = simd.muladd(simd.load(second, at + 1), w1, s3)
    s3 = simd.muladd(simd.load(second, at + 2), w2, s3)
    at += stride
    s4 = simd.muladd(simd.load(second, at), w0, s4)
    s4 = simd.muladd(simd.load(second, at + 1), w1, s4)
    s4 = simd.muladd(simd.load(second, at + 2), w2, s4)
    return s0, s1, s2, s3, s4


@njit(forceinline=True)
def _sample_alike(
    second: Any,
    stride: int,
    height: int,
    fy: Any,
    fx: Any,
    top: Any,
    left: Any,
    inside: Any,
    y: int,
    x: int,
) -> Any:
    """Interpolate at positions of which each begins at (y, x), one further on, or outside.

    ``top`` and ``left`` are the integer parts of the positions; x is that of the first lane, each
    lane's is one more than the lane's before. The samples then share their neighbours, three by
    three, each with its own weights, and every load is of 16 consecutive numbers.
    """
    zero = simd.splat(np.float32(0))
    w0, w1, w2 = _shares(fx, left, simd.ramp() + simd.splat(np.float32(x)))
    v0, v1, v2 = _shares(fy, top, simd.splat(np.float32(y)))
    v0, v1 = simd.select(inside, v0, zero), simd.select(inside, v1, zero)
    v2 = simd.select(inside, v2, zero)
    sums = zero, zero, zero, zero, zero
    at, pitch = PAD + x, 5 * stride
    # Mostly two rows of the three are needed. A row outside the image has no weight.
    if simd.any_lane(zero < v0):
        row = min(max(y, 0), height - 1)
        sums = _add_row(second, stride, row * pitch + at, w0 * v0, w1 * v0, w2 * v0, sums)
    row = min(max(y + 1, 0), height - 1)
    sums = _add_row(second, stride, row * pitch + at, w0 * v1, w1 * v1, w2 * v1, sums)
    if simd.any_lane(zero < v2):
        row = min(max(y + 2, 0), height - 1)
        sums = _add_row(second, stride, row * pitch + at, w0 * v2, w1 * v2, w2 * v2, sums)
    return sums


@njit(forceinline=True)
def _sample_each(
    second: Any,
    stride: int,
    fy: Any,
    fx: Any,
    top: Any,
    left: Any,
    inside: Any,
    scratch: Any,
) -> Any:
    """Interpolate at positions that have nothing in common, fetched one by one.

    A pixel is interpolated to the same bits as by `_sample_alike`: what its neighbours do shall
    not show.
    """
    zero, one = simd.splat(np.float32(0)), simd.splat(np.float32(1))
    nowhere = simd.splat(np.float32(-1))
    simd.store(scratch, 0, simd.select(inside, top, nowhere))
    simd.store(scratch, LANES, left)
    for lane in range(LANES):
        if scratch[lane] >= 0:
            at = int(scratch[lane]) * 5 * stride + PAD + int(scratch[LANES + lane])
            for c in range(2, 22, 4):
                scratch[c * LANES + lane] = second[at]
                scratch[(c + 1) * LANES + lane] = second[at + 1]
                scratch[(c + 2) * LANES + lane] = second[at + 5 * stride]
                scratch[(c + 3) * LANES + lane] = second[at + 5 * stride + 1]
                at += stride
        else:
            for c in range(2, 22):
                scratch[c * LANES + lane] = np.float32(0)
    u0 = one - simd.select(inside, fx - left, zero)
    v0 = one - simd.select(inside, fy - top, zero)
    u1, v1 = one - u0, one - v0
    weights = u0 * v0, u1 * v0, u0 * v1, u1 * v1
    return (
        _weighted(scratch, 2 * LANES, weights),
        _weighted(scratch, 6 * LANES, weights),
        _weighted(scratch, 10 * LANES, weights),
        _weighted(scratch, 14 * LANES, weights),
        _weighted(scratch, 18 * LANES, weights),
    )


@njit(forceinline=True)
def _weighted(corners: Any, at: int, weights: Any) -> Any:
    """Return the weighted sum of the four corners, in the order of `_sample_alike`."""
    w00, w01, w10, w11 = weights
    total = simd.load(corners, at) * w00
    total = simd.muladd(simd.load(corners, at + LANES), w01, total)
    total = simd.muladd(simd.load(corners, at + 2 * LANES), w10, total)
    return simd.muladd(simd.load(corners, at + 3 * LANES), w11, total)


@njit(forceinline=True)
def _alike(offset: Any, first: int) -> Any:
    """Tell which whole offsets are ``first`` or one more."""
    return (simd.splat(np.float32(first)) <= offset) & (offset <= simd.splat(np.float32(first + 1)))


@njit
def observe(
    first: Floats,
    second: Floats,
    flow: Floats,
    y: int,
    width: int,
    border: Floats,
    border_rows: Indices,
    out: Floats,
    start: int,
    pitch: int,
    scratch: Floats,
) -> None:
    """Compare a row's polynomials with the second frame's where the flow points to.

    ``out`` takes the observations of pixel x at ``start + x`` and each ``pitch`` further on.
    """
    height, _, stride = first.shape
    line = flow.shape[2]
    sources, spare = simd.pointer(second), simd.pointer(scratch)
    zero, half = simd.splat(np.float32(0)), simd.splat(np.float32(0.5))
    one = simd.splat(np.float32(1))
    right, bottom = simd.splat(np.float32(width - 1)), simd.splat(np.float32(height - 1))
    far = simd.splat(np.float32(1 << 24))
    row = simd.splat(np.float32(y))
    weights = border_rows[y] * border.shape[1]
    i0, j0 = 0, 0
    for x in range(0, width, LANES):
        column = simd.ramp() + simd.splat(np.float32(x))
        dx = simd.load(flow, y * line + x)
        dy = simd.load(flow, (height + y) * line + x)
        fx, fy = column + dx, row + dy
        inside = (zero <= fx) & (fx < right) & (zero <= fy) & (fy < bottom) & (column <= right)
        sums = zero, zero, zero, zero, zero
        if simd.any_lane(inside):
            # Neighbours mostly move alike: try the place of the block before.
            top, left = simd.floor(fy), simd.floor(fx)
            j, i = top - row, left - column
            if not simd.all_lanes(_alike(j, j0) & _alike(i, i0) | ~inside):
                i0 = int(simd.lowest(simd.select(inside, i, far)))
                j0 = int(simd.lowest(simd.select(inside, j, far)))
            if simd.all_lanes(_alike(j, j0) & _alike(i, i0) | ~inside):
                sums = _sample_alike(
                    sources, stride, height, fy, fx, top, left, inside, y + j0, x + i0
                )
            else:
                sums = _sample_each(sources, stride, fy, fx, top, left, inside, spare)
        s0, s1, s2, s3, s4 = sums
        at = 5 * y * stride + PAD + x
        for c in range(5):  # 10% of the time when the frame was prepared long ago
            simd.prefetch(first, at + (5 * _AHEAD + c) * stride)
            simd.prefetch(second, at + (5 * _AHEAD + c) * stride)
        share = simd.select(inside, half, one)
        b0 = (simd.load(first, at) - s0) * half
        b1 = (simd.load(first, at + stride) - s1) * half
        a00 = (simd.load(first, at + 2 * stride) + s2) * share
        a11 = (simd.load(first, at + 3 * stride) + s3) * share
        a01 = (simd.load(first, at + 4 * stride) + s4) * (share * half)
        weight = simd.load(border, weights + x)
        b0 = (b0 + simd.muladd(a00, dy, a01 * dx)) * weight
        b1 = (b1 + simd.muladd(a01, dy, a11 * dx)) * weight
        a00, a11, a01 = a00 * weight, a11 * weight, a01 * weight
        to = start + x
        simd.store(out, to, simd.muladd(a00, a00, a01 * a01))
        simd.store(out, to + pitch, (a00 + a11) * a01)
        simd.store(out, to + 2 * pitch, simd.muladd(a11, a11, a01 * a01))
        simd.store(out, to + 3 * pitch, simd.muladd(a00, b0, a01 * b1))
        simd.store(out, to + 4 * pitch, simd.muladd(a01, b0, a11 * b1))


@njit(forceinline=True)
def _determinant(a: Any, b: Any, c: Any, d: Any) -> Any:
    """Return a d - b c; where the CPU fuses `muladd`, with the rounding error of b c."""
    product = b * c
    error = simd.muladd(-b, c, product)
    return simd.muladd(a, d, -product) + error


@njit(forceinline=True)
def _solve(g11: Any, g12: Any, g22: Any, h1: Any, h2: Any, ridge: Any) -> Any:
    """Solve 16 regularised 2x2 systems."""
    one = simd.splat(np.float32(1))
    inverse = one / (_determinant(g11, g12, g12, g22) + ridge)
    return _determinant(g11, g12, h1, h2) * inverse, _determinant(h1, g12, h2, g22) * inverse


@njit
def _slide(
    ring: Floats,
    entering: int,
    leaving: int,
    sums: Doubles,
    columns: Floats,
    pitch: int,
    start: int,
    width: int,
) -> None:
    """Move the vertical window by one row, as OpenCV does: the change is rounded to float32.

    The sums themselves are float64, or what has left the window would leave its mark.
    """
    for plane in range(start, start + 5 * pitch, pitch):
        for x in range(plane, plane + width, LANES):
            change = simd.load(ring, entering + x) - simd.load(ring, leaving + x)
            total = simd.load(sums, x) + simd.widen(change)
            simd.store(sums, x, total)
            simd.store(columns, x, simd.narrow(total))


@njit
def _finish_box(
    columns: Floats,
    pitch: int,
    start: int,
    triples: Floats,
    side: int,
    ridge: float,
    flow: Floats,
    y: int,
    width: int,
) -> None:
    """Sum along a row, by sums of three columns, and solve for the flow.

    The window of pixel x begins at column ``start + x``. OpenCV's running sums never lose
    the first pixel when the window is 1 px wide.
    """
    _, height, line = flow.shape
    here = simd.load(columns, 0)
    for x in range(0, 5 * pitch, LANES):
        next_ = simd.load(columns, x + LANES)
        total = here + simd.shift(here, next_, 1) + simd.shift(here, next_, 2)
        simd.store(triples, x, total)
        here = next_
    keep = np.float32(1 if side == 1 else 0)
    kept = (
        simd.splat(columns[start] * keep),
        simd.splat(columns[start + pitch] * keep),
        simd.splat(columns[start + 2 * pitch] * keep),
        simd.splat(columns[start + 3 * pitch] * keep),
        simd.splat(columns[start + 4 * pitch] * keep),
    )
    whole = side - side % 3
    for x in range(0, width, LANES):
        at = start + x
        g11, g12, g22, h1, h2 = kept
        for i in range(at, at + whole, 3):
            g11 = g11 + simd.load(triples, i)
            g12 = g12 + simd.load(triples, i + pitch)
            g22 = g22 + simd.load(triples, i + 2 * pitch)
            h1 = h1 + simd.load(triples, i + 3 * pitch)
            h2 = h2 + simd.load(triples, i + 4 * pitch)
        for i in range(at + whole, at + side):
            g11 = g11 + simd.load(columns, i)
            g12 = g12 + simd.load(columns, i + pitch)
            g22 = g22 + simd.load(columns, i + 2 * pitch)
            h1 = h1 + simd.load(columns, i + 3 * pitch)
            h2 = h2 + simd.load(columns, i + 4 * pitch)
        dx, dy = _solve(g11, g12, g22, h1, h2, simd.splat(np.float32(ridge)))
        simd.store(flow, y * line + x, dx)
        simd.store(flow, (height + y) * line + x, dy)


@njit
def refine_box(
    first: Floats,
    second: Floats,
    flow: Floats,
    width: int,
    border: Floats,
    border_rows: Indices,
    winsize: int,
    iterations: int,
) -> None:
    """Improve the flow of one level in place, with a box as averaging window.

    Row y of the new flow follows when row ``y + reach`` of the old one has been observed, so
    one sweep over the rows is one iteration.
    """
    height = flow.shape[1]
    reach = winsize // 2
    side = reach + 1 + reach
    slots = side + 1  # the row that enters and the one that leaves have one each
    start = row_pitch(reach)
    pitch = row_pitch(start + width + reach)
    size = 5 * pitch
    ring = simd.aligned(slots * size)
    sums = np.empty(size, np.float64)
    columns = simd.aligned(size + row_pitch(reach) + LANES)  # the last vectors reach over
    triples = simd.aligned(size + row_pitch(side) + LANES)
    scratch = simd.aligned(22 * LANES)
    ridge = RIDGE * winsize**4  # since the sums are not divided by winsize²
    for _ in range(iterations):
        for y in range(height + reach):
            last = min(y, height - 1)
            entering = last % slots * size
            leaving = max(y - side, 0) % slots * size
            if y == last:
                out = entering + start
                observe(
                    first, second, flow, y, width, border, border_rows, ring, out, pitch, scratch
                )
            if y == 0:
                # The first row stands for those above the image as well.
                copies = np.float64(side if side > 1 else 2)
                for x in range(size):
                    sums[x] = copies * np.float64(ring[x])
            _slide(ring, entering, leaving, sums, columns, pitch, start, width)
            if y >= reach:
                _repeat_ends(columns, 5, pitch, start, width, reach)
                _finish_box(
                    columns, pitch, start - reach, triples, side, ridge, flow, y - reach, width
                )


@njit
def _average_rows(
    ring: Floats,
    slots: int,
    window: Floats,
    y: int,
    height: int,
    columns: Floats,
    size: int,
    rows: Indices,
) -> None:
    """Average the observations around rows y to y + 3, which share most of what they read.

    ``window`` has 3 zeros on each side, ``rows`` is scratch.
    """
    length = len(window) - 3
    first = y - (length - 4) // 2
    for i in range(length):
        rows[i] = min(max(first + i, 0), height - 1) % slots * size
    for x in range(0, size, LANES):
        a0 = a1 = a2 = a3 = simd.splat(np.float32(0))
        for i in range(length):
            value = simd.load(ring, rows[i] + x)
            a0 = simd.muladd(value, simd.splat(window[i + 3]), a0)
            a1 = simd.muladd(value, simd.splat(window[i + 2]), a1)
            a2 = simd.muladd(value, simd.splat(window[i + 1]), a2)
            a3 = simd.muladd(value, simd.splat(window[i]), a3)
        simd.store(columns, x, a0)
        simd.store(columns, size + x, a1)
        simd.store(columns, 2 * size + x, a2)
        simd.store(columns, 3 * size + x, a3)


@njit
def _finish_gaussian(
    columns: Floats,
    pitch: int,
    start: int,
    window: Floats,
    flow: Floats,
    y: int,
    width: int,
) -> None:
    """Average along a row and solve for the flow."""
    _, height, line = flow.shape
    m = len(window) // 2
    for x in range(0, width, LANES):
        at = start + x
        w = simd.splat(window[m])
        g11, g12 = simd.load(columns, at) * w, simd.load(columns, at + pitch) * w
        g22, h1 = simd.load(columns, at + 2 * pitch) * w, simd.load(columns, at + 3 * pitch) * w
        h2 = simd.load(columns, at + 4 * pitch) * w
        for k in range(1, m + 1):
            w, i, j = simd.splat(window[m + k]), at - k, at + k
            g11 = simd.muladd(simd.load(columns, i) + simd.load(columns, j), w, g11)
            i, j = i + pitch, j + pitch
            g12 = simd.muladd(simd.load(columns, i) + simd.load(columns, j), w, g12)
            i, j = i + pitch, j + pitch
            g22 = simd.muladd(simd.load(columns, i) + simd.load(columns, j), w, g22)
            i, j = i + pitch, j + pitch
            h1 = simd.muladd(simd.load(columns, i) + simd.load(columns, j), w, h1)
            i, j = i + pitch, j + pitch
            h2 = simd.muladd(simd.load(columns, i) + simd.load(columns, j), w, h2)
        dx, dy = _solve(g11, g12, g22, h1, h2, simd.splat(np.float32(RIDGE)))
        simd.store(flow, y * line + x, dx)
        simd.store(flow, (height + y) * line + x, dy)


@njit
def refine_gaussian(
    first: Floats,
    second: Floats,
    flow: Floats,
    width: int,
    border: Floats,
    border_rows: Indices,
    window: Floats,
    iterations: int,
) -> None:
    """Improve the flow of one level in place, with a Gaussian as averaging window.

    As `refine_box`, but four rows of flow follow together.
    """
    height = flow.shape[1]
    m = len(window) // 2
    slots = m + 4 + m
    start = row_pitch(m)
    pitch = row_pitch(start + width + m)
    size = 5 * pitch
    ring = simd.aligned(slots * size)
    columns = simd.aligned(4 * size + start + LANES)  # the last vectors reach over
    scratch = simd.aligned(22 * LANES)
    rows = np.empty(slots, np.int64)
    padded = np.zeros(len(window) + 6, np.float32)
    padded[3:-3] = window
    for _ in range(iterations):
        for y in range(height + m + 3):
            if y < height:
                out = y % slots * size + start
                observe(
                    first, second, flow, y, width, border, border_rows, ring, out, pitch, scratch
                )
            top = y - m - 3
            if top >= 0 and top % 4 == 0:
                _average_rows(ring, slots, padded, top, height, columns, size, rows)
                _repeat_ends(columns, 20, pitch, start, width, m)
                for i in range(min(4, height - top)):
                    row = i * size + start
                    _finish_gaussian(columns, pitch, row, window, flow, top + i, width)


@njit
def interleave(flow: Floats, width: int) -> Floats:
    """Return the flow as (H, W, 2) without padding."""
    height = flow.shape[1]
    out = np.empty((height, width, 2), np.float32)
    for y in range(height):
        u, v, row = flow[0, y], flow[1, y], out[y]
        for x in range(width):
            row[x, 0] = u[x]
            row[x, 1] = v[x]
    return out
