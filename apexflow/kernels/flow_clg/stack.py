"""The compiled steps of a flow from many frames: amplitudes, weights, and what a flow leaves.

The frames lie bordered, as `cpu` warps them. ``planes`` holds the flow, the reference that the
frames are compared with, and its slope along the flow, each a plane as in
`apexflow.kernels.light.gaussian`; warped frames and their weights are planes, too, one after
the other.
"""

from __future__ import annotations

import numpy as np

from apexflow.kernels.compiled import njit
from apexflow.kernels.flow_clg.cpu import (
    bordered_size,
    mirror_ends,
    slopes,
    warp,
)
from apexflow.kernels.light.gaussian import (
    GAP,
    blur_across,
    blur_down,
    fill_offsets,
    pitch_of,
    plane_size,
    row_room,
)
from apexflow.kernels.simd import (
    LANES,
    absolute,
    aligned,
    keep,
    load,
    maximum,
    minimum,
    muladd,
    pointer,
    ramp,
    select,
    splat,
    store,
    widen,
)

FLOW_X, FLOW_Y, REFERENCE, SLOPE = range(4)
PLANES = 4

_F = np.float32
_FAR = _F(1e9)


@njit
def fill_plane(image, planes, number):  # type: ignore[no-untyped-def]
    """Copy an image (H, W) into a plane."""
    height, width = image.shape
    at = number * plane_size(height, width) + GAP
    for y in range(height):
        planes[at : at + width] = image[y]
        at += pitch_of(width)


@njit
def fill_slope(planes, height, width):  # type: ignore[no-untyped-def]
    """Fill the slope of the reference along the flow, and return the sum of its squares.

    Taken once for all frames: the reference is the mean of many. A frame's own slope would be
    that of its noise, too, and the derivative of an interpolated frame even pulls amplitudes to
    where the flow is half a pixel long and interpolation swallows most noise (.3 came out as
    .57 with noise of 4 gray levels).
    """
    size, pitch = plane_size(height, width), pitch_of(width)
    fields, zero, total = pointer(planes), splat(_F(0)), splat(0.0)
    mirror_ends(fields, REFERENCE * size, height, width)
    for y in range(height):
        squared = zero
        for x in range(0, width, LANES):
            slope_x, slope_y = slopes(fields, REFERENCE * size, x, y, height, pitch)
            at = GAP + y * pitch + x
            v = load(fields, at + FLOW_Y * size)
            slope = muladd(load(fields, at + FLOW_X * size), slope_x, v * slope_y)
            slope = select(ramp() < splat(_F(width - x)), slope, zero)
            store(fields, at + SLOPE * size, slope)
            squared = muladd(slope, slope, squared)
        total = total + widen(squared)
    sums = np.empty(LANES)
    store(sums, 0, total)
    return sums.sum()


@njit
def compare(image, planes, amplitude, residual):  # type: ignore[no-untyped-def]
    """Fill the residual (H, W) of a frame that is moved by the flow times its amplitude.

    Return its product with the slope.
    """
    height, width = residual.shape
    size, pitch = plane_size(height, width), pitch_of(width)
    frame, fields = pointer(image), pointer(planes)
    room, line = aligned(3 * LANES), aligned(pitch)
    positions, values, row = pointer(room), pointer(room[2 * LANES :]), pointer(line)
    scale, total = splat(amplitude), splat(0.0)
    for y in range(height):
        product = splat(_F(0))
        for x in range(0, width, LANES):
            at = GAP + y * pitch + x
            u = scale * load(fields, at + FLOW_X * size)
            v = scale * load(fields, at + FLOW_Y * size)
            value = warp(frame, u, v, x, y, height, width, positions, values)
            rest = value - load(fields, at + REFERENCE * size)
            rest = select(ramp() < splat(_F(width - x)), rest, splat(_F(0)))
            store(row, x, rest)
            product = muladd(load(fields, at + SLOPE * size), rest, product)
        total = total + widen(product)
        for x in range(width):
            residual[y, x] = row[x]
    keep(room)
    keep(line)
    sums = np.empty(LANES)
    store(sums, 0, total)
    return sums.sum()


@njit
def move(images, planes, amplitudes, height, width, warped):  # type: ignore[no-untyped-def]
    """Fill ``warped`` with the frames moved by the flow times their amplitudes."""
    size, pitch, step = plane_size(height, width), pitch_of(width), bordered_size(height, width)
    room = aligned(3 * LANES)
    positions, values = pointer(room), pointer(room[2 * LANES :])
    fields, target = pointer(planes), pointer(warped)
    for n in range(len(amplitudes)):
        image, scale = pointer(images[n * step :]), splat(amplitudes[n])
        for y in range(height):
            for x in range(0, width, LANES):
                at = GAP + y * pitch + x
                u = scale * load(fields, at + FLOW_X * size)
                v = scale * load(fields, at + FLOW_Y * size)
                value = warp(image, u, v, x, y, height, width, positions, values)
                store(target, n * size + at, value)
    keep(room)


@njit
def weigh(warped, count, height, width, taps, scale, weights):  # type: ignore[no-untyped-def]
    """Fill the weight of each pixel of each warped frame: 1 / (1 + (G * |W - median| / scale)^4).

    The median is the one over the frames, of an even number the upper one.
    """
    size, pitch = plane_size(height, width), pitch_of(width)
    radius = len(taps) - 1
    offsets = np.empty(height + 2 * radius, np.int64)
    fill_offsets(offsets, height, width, radius)
    middle = count // 2
    room, line = aligned((middle + 1) * LANES), aligned(row_room(width, radius))
    line[:] = 0  # beyond a row's end it is read, and never written
    lowest_values, row, factors = pointer(room), pointer(line), pointer(taps)
    source, target = pointer(warped), pointer(weights)
    for y in range(height):
        for x in range(0, width, LANES):
            at = GAP + y * pitch + x
            for i in range(middle + 1):
                store(lowest_values, i * LANES, splat(_FAR))
            for n in range(count):
                value = load(source, n * size + at)
                for i in range(min(n, middle) + 1):
                    other = load(lowest_values, i * LANES)
                    store(lowest_values, i * LANES, minimum(value, other))
                    value = maximum(value, other)
            median = load(lowest_values, middle * LANES)
            for n in range(count):
                store(target, n * size + at, absolute(load(source, n * size + at) - median))
    for n in range(count):
        _weigh_frame(target, n * size, offsets, height, width, factors, radius, row, scale)
    keep(room)
    keep(line)


@njit
def _weigh_frame(  # type: ignore[no-untyped-def]
    weights, start, offsets, height, width, taps, radius, row, scale
):
    pitch, one = pitch_of(width), splat(_F(1))
    blurred = aligned(plane_size(height, width))
    target = pointer(blurred)
    for y in range(height):
        blur_down(weights, start, offsets, y, width, taps, radius, row)
        for x in range(0, width, LANES):
            far = blur_across(row, x, taps, radius) * splat(_F(1) / scale)
            far = far * far
            store(target, GAP + y * pitch + x, one / muladd(far, far, one))
    for y in range(height):
        for x in range(0, width, LANES):
            at = GAP + y * pitch + x
            store(weights, start + at, load(target, at))
    keep(blurred)


@njit
def combine(  # type: ignore[no-untyped-def]
    warped, weights, still, moved, height, width, planes, mean, change
):
    """Fill the reference among the planes, and what `cpu.fit` takes.

    The reference is the mean of the warped frames, weighted with ``still`` (N,); ``change``
    (H, W) is the residual of the frames for an amplitude of 1, by least squares over those
    whose amplitude ``moved`` (N,) is not 0.
    """
    size, pitch = plane_size(height, width), pitch_of(width)
    source, factors, fields = pointer(warped), pointer(weights), pointer(planes)
    line = aligned(2 * pitch)
    first, second = pointer(line), pointer(line[pitch:])
    tiny, half = splat(_F(1e-20)), splat(_F(0.5))
    for y in range(height):
        for x in range(0, width, LANES):
            at = GAP + y * pitch + x
            total, weight = splat(_F(0)), tiny
            for n in range(len(still)):
                if still[n] != 0:
                    share = splat(still[n]) * load(factors, n * size + at)
                    total = muladd(share, load(source, n * size + at), total)
                    weight = weight + share
            reference = total / weight
            store(fields, REFERENCE * size + at, reference)
            total, weight = splat(_F(0)), tiny
            for n in range(len(moved)):
                if moved[n] != 0:
                    share = splat(moved[n]) * load(factors, n * size + at)
                    difference = load(source, n * size + at) - reference
                    total = muladd(share, difference, total)
                    weight = muladd(splat(moved[n]), share, weight)
            more = total / weight
            store(first, x, muladd(half, more, reference))
            store(second, x, more)
        for x in range(width):
            mean[y, x] = first[x]
            change[y, x] = second[x]
    keep(line)
