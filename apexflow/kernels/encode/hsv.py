"""The HSV map: direction as hue, length as value."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.kernels._validate import check_array, check_flow, check_integer
from apexflow.kernels.compiled import njit
from apexflow.kernels.encode.scaling import check_least
from apexflow.kernels.gpu import cuda_device, is_device_array
from apexflow.kernels.simd import (
    LANES,
    absolute,
    all_lanes,
    even_lanes,
    floor,
    highest,
    load,
    lowest,
    maximum,
    minimum,
    muladd,
    nearest,
    odd_lanes,
    pointer,
    select,
    splat,
    sqrt,
    store,
    truncate,
)

_F = np.float32
# OpenCV's fastAtan2: an odd polynomial of degree 7 on [0, 1] for degrees, in float32. Hue is
# the angle halved; a power of two scales the whole evaluation exactly.
_ATAN = tuple(
    _F(_F(c) * _F(180 / np.pi) * _F(0.5))
    for c in (0.9997878412794807, -0.3258083974640975, 0.1555786518463281, -0.04432655554792128)
)
_A1, _A3, _A5, _A7 = _ATAN
_TINY = _F(2.220446049250313e-16)  # keeps 0 / 0 out of the angle of a zero vector
_DBL_EPSILON = 2.220446049250313e-16
_SECTORS_PER_HUE = _F(6 / 180)
_INV_255 = _F(1 / 255)


def encode_hsv(
    flow: NDArray[np.float32],
    size: tuple[int, int] | None = (28, 28),
    *,
    least: float = 0.0,
) -> NDArray[np.uint8]:
    """Return the HSV map of a flow as RGB bytes.

    Hue is the direction (degrees / 2), saturation is full, value is the length stretched over
    0..255 from the shortest to the longest vector of this flow; all truncated to bytes. The
    bytes equal those of OpenCV's `cartToPolar`, `normalize` (NORM_MINMAX), `cvtColor`
    (COLOR_HSV2RGB) and `resize` (INTER_AREA), except in the last columns of a full-size map
    whose width is not a multiple of OpenCV's vector (32 pixels with AVX2): `cvtColor` rounds
    there and truncates elsewhere, this function always truncates.

    Parameters
    ----------
    flow : (H, W, 2) or (N, H, W, 2) float32
        Displacement (x, y) in pixels. Each flow of a batch is stretched by itself.
    size : (height, width) or None, default (28, 28)
        Size of the map; None keeps the flow's.
    least : float
        The shortest range of lengths, in pixels, that is stretched over 0..255, so that a map
        without motion does not show its noise at full scale; 0 stretches everything, as OpenCV.

    Returns
    -------
    (height, width, 3) or (N, height, width, 3) uint8
        RGB. A flow whose vectors are all equally long, zero included, gives a black map.

    Raises
    ------
    ValueError
        When the flow has another shape or dtype, is empty, or holds a vector that is not
        finite or whose squared length overflows float32; when the size is not two positive
        integers.

    Notes
    -----
    When height and width divide exactly, one pass colours the pixels and sums the cells, and
    no full-size image exists. Otherwise the full-size map goes through `cv2.resize`.

    Examples
    --------
    >>> import numpy as np
    >>> encode_hsv(np.zeros((224, 224, 2), np.float32)).max()
    np.uint8(0)
    """
    flow = check_array("flow", flow, dtypes=("float32",), ndim=(3, 4), finite=False)
    if flow.shape[-1] != 2:
        check_flow("flow", flow)
    height, width = flow.shape[-3:-1]
    h, w = (height, width) if size is None else _check_size(size)
    least = check_least(least)
    if is_device_array(flow):
        return _encode_on_gpu(flow, (h, w), least)
    fused = height % h == 0 and width % w == 0
    flows = flow if flow.flags.carray else np.require(flow, requirements=["C", "W", "A"])
    rows, columns = (h, w) if fused else (height, width)
    maps = np.empty((flow.size // (2 * height * width), rows, columns, 3), np.uint8)
    flows, drawn = flows.reshape(-1, height, 2 * width), maps.reshape(-1, rows, 3 * columns)
    finite = _encode(flows, drawn, least)
    if not finite:
        check_flow("flow", flow)
        raise ValueError("flow must be small enough for its squared length to be finite.")
    if not fused:
        resized = [cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA) for image in maps]
        maps = np.stack(resized)
    return maps if flow.ndim == 4 else maps[0]


def _encode_on_gpu(flow: Any, size: tuple[int, int], least: float) -> Any:
    from apexflow.kernels.encode import gpu

    flows = flow.reshape(-1, *flow.shape[-3:])
    maps = gpu.encode_hsv(flows, size, least, device=cuda_device())
    return maps if flow.ndim == 4 else maps[0]


def _check_size(size: object) -> tuple[int, int]:
    if not isinstance(size, tuple | list) or len(size) != 2:
        raise ValueError(f"size must be (height, width) or None. Got {size!r}.")
    height, width = size
    if type(height) is int and type(width) is int and height > 0 and width > 0:
        return height, width  # the shared checks take 3% of a map's whole time
    return check_integer("size", height, minimum=1), check_integer("size", width, minimum=1)


@njit
def _encode(flows, maps, least):  # type: ignore[no-untyped-def]
    """Fill ``maps`` (N, h, 3 w) from ``flows`` (N, h k, 2 w l); False if not finite."""
    count, height, double_width = flows.shape
    width = double_width // 2
    rows, columns = maps.shape[1], maps.shape[2] // 3
    cell_height, cell_width = height // rows, width // columns
    # Vectors at the end of a channel may read and write two vectors beyond it.
    sums = np.zeros((3, width + 3 * LANES), np.float32)
    edge = np.zeros((cell_height, 2 * LANES), np.float32)
    for n in range(count):
        flow = flows[n]
        enough = flow if flow.size >= 2 * LANES else _repeated(flow)
        shortest, longest, finite = _extent(enough)
        if not finite:
            return False
        scale, shift, wraps = _stretch(shortest, longest, least)
        for row in range(rows):
            cell = flow[row * cell_height : (row + 1) * cell_height]
            # Two loops of one, by a constant: 6% faster than to wrap every value.
            if wraps:
                _sum_columns(cell, scale, shift, True, edge, sums)
            else:
                _sum_columns(cell, scale, shift, False, edge, sums)
            _average(sums, cell_width, cell_height, maps[n, row])
    return True


@njit
def _repeated(flow):  # type: ignore[no-untyped-def]
    """Fill 16 vectors with those of a smaller flow, again and again."""
    few, many = flow.ravel(), np.empty((1, 2 * LANES), np.float32)
    for i in range(many.size):
        many[0, i] = few[i % few.size]
    return many


@njit
def _extent(flow):  # type: ignore[no-untyped-def]
    """Least and greatest squared length of 16 vectors or more, and whether all are finite."""
    count = flow.size // 2
    vectors = pointer(flow)
    least, greatest = splat(_F(np.inf)), splat(_F(0))
    finite = greatest < least
    for i in range(0, count, LANES):
        at = 2 * min(i, count - LANES)  # the last vector may overlap the one before
        near, far = load(vectors, at), load(vectors, at + LANES)
        u, v = even_lanes(near, far), odd_lanes(near, far)
        squared = muladd(u, u, v * v)
        least, greatest = minimum(least, squared), maximum(greatest, squared)
        finite = finite & (squared < splat(_F(np.inf)))
    return lowest(least), highest(greatest), all_lanes(finite)


@njit
def _stretch(shortest, longest, least):  # type: ignore[no-untyped-def]
    """Scale and shift of cv2.normalize, and whether a value can leave 0..255.

    Scale and shift are 0 when all lengths are equal and ``least`` is 0. Values
    leave the bytes only when lengths differ by hardly more than the shift's rounding.
    """
    low, high = np.float64(np.sqrt(shortest)), np.float64(np.sqrt(longest))
    spread = max(high - low, least)
    scale = _F(255 * (1 / spread)) if spread > _DBL_EPSILON else _F(0)
    shift = _F(-low * np.float64(scale))
    wraps = low * scale + shift < -0.9 or high * scale + shift > 255.9
    return scale, shift, wraps


@njit
def _sum_columns(cell, scale, shift, wraps, edge, sums):  # type: ignore[no-untyped-def]
    """Sum the colours of each column of ``cell`` (k, 2 w) into ``sums`` (3, w or more)."""
    rows, double_width = cell.shape
    pitch = sums.shape[1]
    target = pointer(sums)
    for x in range(0, double_width // 2, LANES):
        source, at, stride = pointer(cell), 2 * x, double_width
        if at + 2 * LANES > double_width:
            # A whole vector would read beyond the last row: what is left goes through a copy.
            for y in range(rows):
                for i in range(double_width - at):
                    edge[y, i] = cell[y, at + i]
            source, at, stride = pointer(edge), 0, 2 * LANES
        red, green, blue = _sum_colours(source, at, stride, rows, scale, shift, wraps)
        store(target, x, red)
        store(target, pitch + x, green)
        store(target, 2 * pitch + x, blue)


@njit
def _sum_colours(flow, at, stride, rows, scale, shift, wraps):  # type: ignore[no-untyped-def]
    """Sum red, green and blue of 16 neighbours over rows, in whole numbers of 0 to 255."""
    red = green = blue = splat(_F(0))
    for y in range(rows):
        near, far = load(flow, at + y * stride), load(flow, at + y * stride + LANES)
        r, g, b = _colours(even_lanes(near, far), odd_lanes(near, far), scale, shift, wraps)
        red, green, blue = red + r, green + g, blue + b
    return red, green, blue


@njit
def _colours(u, v, scale, shift, wraps):  # type: ignore[no-untyped-def]
    """Red, green and blue of 16 vectors.

    Full saturation leaves one ramp up and one ramp down a channel, over the hue's six
    sectors. Where a clamp stands for OpenCV's choice by sector, both round alike: checked
    for all 181 hues and 256 values.
    """
    one, two, four, six = splat(_F(1)), splat(_F(2)), splat(_F(4)), splat(_F(6))
    length = sqrt(muladd(u, u, v * v))
    byte = truncate(muladd(length, splat(scale), splat(shift)))
    if wraps:  # as in NumPy's cast to bytes, which keeps the low one
        byte = byte - splat(_F(256)) * floor(byte * splat(_F(1 / 256)))
    value = byte * splat(_INV_255)
    hue = floor(_half_angle(u, v)) * splat(_SECTORS_PER_HUE)
    return (
        _channel(value, maximum(two - hue, hue - four)),
        _channel(value, minimum(four - hue, one - (one - hue))),
        _channel(value, minimum(six - hue, hue - two)),
    )


@njit
def _channel(value, share):  # type: ignore[no-untyped-def]
    part = minimum(value * maximum(share, splat(_F(0))), value)
    return floor(part * splat(_F(255)))


@njit
def _half_angle(u, v):  # type: ignore[no-untyped-def]
    """Half of cv2.fastAtan2, in degrees."""
    across, along, zero = absolute(u), absolute(v), splat(_F(0))
    c = minimum(across, along) / (maximum(across, along) + splat(_TINY))
    cc = c * c
    angle = muladd(splat(_A7), cc, splat(_A5))
    angle = muladd(muladd(angle, cc, splat(_A3)), cc, splat(_A1)) * c
    angle = select(across < along, splat(_F(45)) - angle, angle)
    angle = select(u < zero, splat(_F(90)) - angle, angle)
    return select(v < zero, splat(_F(180)) - angle, angle)


@njit
def _average(sums, cell_width, cell_height, row):  # type: ignore[no-untyped-def]
    """Turn sums of columns into one row of RGB bytes, rounded as cv2.INTER_AREA does."""
    inverse = _F(1) / _F(cell_width * cell_height)
    half_up = cell_width == 2 and cell_height == 2
    columns = row.size // 3
    pitch = sums.shape[1]
    cells = pointer(sums)
    for channel in range(0, 3 * pitch, pitch):
        _sum_runs(cells, channel, columns * cell_width, cell_width)
        for x in range(channel, channel + columns, LANES):
            mean = load(cells, x) * splat(inverse)
            store(cells, x, floor(mean + splat(_F(0.5))) if half_up else nearest(mean))
    for x in range(columns):
        row[3 * x] = cells[x]
        row[3 * x + 1] = cells[pitch + x]
        row[3 * x + 2] = cells[2 * pitch + x]


@njit
def _sum_runs(values, start, length, run):  # type: ignore[no-untyped-def]
    """Sum each ``run`` neighbours in place: by pairs as long as they divide, then one by one."""
    while run % 2 == 0:
        length //= 2
        run //= 2
        for i in range(0, length, LANES):
            near, far = load(values, start + 2 * i), load(values, start + 2 * i + LANES)
            store(values, start + i, even_lanes(near, far) + odd_lanes(near, far))
    for i in range(length // run if run > 1 else 0):
        total = _F(0)
        for j in range(run):
            total += values[start + run * i + j]
        values[start + i] = total
