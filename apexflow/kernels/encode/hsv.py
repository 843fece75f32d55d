"""The HSV map: direction as hue, length as value."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from apexflow.kernels._validate import check_array, check_flow, check_integer

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
_INFINITY_BITS = 0x7F800000


def encode_hsv(
    flow: NDArray[np.float32], size: tuple[int, int] | None = (28, 28)
) -> NDArray[np.uint8]:
    """Return the HSV map of a flow as RGB bytes.

    Hue is the direction (degrees / 2), saturation is full, value is the length stretched over
    0..255 from the shortest to the longest vector of this flow; all truncated to bytes. The
    bytes equal those of OpenCV's `cartToPolar`, `normalize` (NORM_MINMAX), `cvtColor`
    (COLOR_HSV2RGB) and `resize` (INTER_AREA), except in the last columns of a full-size map
    whose width is no multiple of OpenCV's vector (32 pixels with AVX2): `cvtColor` rounds
    there and truncates elsewhere, this function always truncates.

    Parameters
    ----------
    flow : (H, W, 2) or (N, H, W, 2) float32
        Displacement (x, y) in pixels. Each flow of a batch is stretched by itself.
    size : (height, width) or None, default (28, 28)
        Size of the map; None keeps the flow's.

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
    fused = height % h == 0 and width % w == 0
    flows = flow if flow.flags.carray else np.require(flow, requirements=["C", "W", "A"])
    rows, columns = (h, w) if fused else (height, width)
    maps = np.empty((flow.size // (2 * height * width), rows, columns, 3), np.uint8)
    finite = _encode(flows.reshape(-1, height, 2 * width), maps.reshape(-1, rows, 3 * columns))
    if not finite:
        check_flow("flow", flow)
        raise ValueError("flow must be small enough for its squared length to be finite.")
    if not fused:
        resized = [cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA) for image in maps]
        maps = np.stack(resized)
    return maps if flow.ndim == 4 else maps[0]


def _check_size(size: object) -> tuple[int, int]:
    if not isinstance(size, tuple | list) or len(size) != 2:
        raise ValueError(f"size must be (height, width) or None. Got {size!r}.")
    height, width = size
    if type(height) is int and type(width) is int and height > 0 and width > 0:
        return height, width  # the shared checks take 3% of a map's whole time
    return check_integer("size", height, minimum=1), check_integer("size", width, minimum=1)


@intrinsic
def _fma(_context: Any, _a: Any, _b: Any, _c: Any) -> Any:
    """Return a * b + c of scalars, rounded once where the CPU can fuse it, as in OpenCV."""
    f32 = types.float32

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        t = ir.FloatType()
        kind = ir.FunctionType(t, [t, t, t])
        function = builder.module.declare_intrinsic("llvm.fmuladd", [t], kind)
        return builder.call(function, arguments)

    return f32(f32, f32, f32), generate


@njit(nogil=True, cache=True, error_model="numpy")
def _encode(flows, maps):  # type: ignore[no-untyped-def]
    """Fill ``maps`` (N, h, 3 w) from ``flows`` (N, h k, 2 w l); False if not finite."""
    count, height, double_width = flows.shape
    width = double_width // 2
    rows, columns = maps.shape[1], maps.shape[2] // 3
    cell_height, cell_width = height // rows, width // columns
    sums = np.empty(3 * width, np.int32)
    red, green, blue = sums[:width], sums[width : 2 * width], sums[2 * width :]
    for n in range(count):
        flow = flows[n]
        shortest, longest = _extent(flow)
        if shortest < 0 or longest >= _INFINITY_BITS:
            return False
        scale, shift = _stretch(shortest, longest)
        for row in range(rows):
            sums[:] = 0
            top, bottom = row * cell_height, (row + 1) * cell_height
            if cell_height % 4 == 0:
                for y in range(top, bottom, 4):
                    _add_colours(flow, y, 4, scale, shift, red, green, blue)
            else:
                for y in range(top, bottom):
                    _add_colours(flow, y, 1, scale, shift, red, green, blue)
            _average(sums, cell_width, cell_height, maps[n, row])
    return True


@njit(nogil=True, cache=True, error_model="numpy")
def _extent(flow):  # type: ignore[no-untyped-def]
    """Least and greatest squared length, as the bits of a float32.

    Bits of non-negative floats order as integers, with NaN and infinity above all numbers
    (or below zero), so one integer minimum and maximum, which vectorise without fast-math,
    also find whatever is not finite.
    """
    height, double_width = flow.shape
    least, greatest = np.int32(0x7FFFFFFF), np.int32(-0x80000000)
    for y in range(height):
        for x in range(double_width // 2):
            u, v = flow[y, 2 * x], flow[y, 2 * x + 1]
            bits = _F(_fma(u, u, v * v)).view(np.int32)
            least, greatest = min(least, bits), max(greatest, bits)
    return least, greatest


@njit(nogil=True, cache=True, error_model="numpy")
def _stretch(shortest, longest):  # type: ignore[no-untyped-def]
    """Scale and shift of cv2.normalize: 0 and 0 when all lengths are equal."""
    low = np.float64(np.sqrt(np.int32(shortest).view(np.float32)))
    high = np.float64(np.sqrt(np.int32(longest).view(np.float32)))
    scale = _F(255 * (1 / (high - low))) if high - low > _DBL_EPSILON else _F(0)
    return scale, _F(-low * np.float64(scale))


@njit(nogil=True, cache=True, error_model="numpy")
def _half_angle(u, v):  # type: ignore[no-untyped-def]
    """Half of cv2.fastAtan2, in degrees."""
    across, along = abs(u), abs(v)
    c = min(across, along) / (max(across, along) + _TINY)
    cc = c * c
    angle = _fma(_fma(_fma(cc, _A7, _A5), cc, _A3), cc, _A1) * c
    angle = angle if across >= along else _F(45) - angle
    angle = _F(90) - angle if u < _F(0) else angle
    return _F(180) - angle if v < _F(0) else angle


@njit(nogil=True, cache=True, error_model="numpy")
def _colour(u, v, scale, shift):  # type: ignore[no-untyped-def]
    """Red, green and blue of one vector, 0..255.

    Full saturation leaves one ramp up and one ramp down a channel, over the hue's six
    sectors. Where a clamp stands for OpenCV's choice by sector, both round alike: checked
    for all 181 hues and 256 values.
    """
    stretched = _fma(np.sqrt(_fma(u, u, v * v)), scale, shift)
    # Only rounding can push a value out of 0..255; NumPy's cast to bytes keeps the low byte.
    value = _F(np.int32(stretched) & np.int32(255)) * _INV_255
    hue = np.floor(_half_angle(u, v)) * _SECTORS_PER_HUE
    red = max(_F(2) - hue, hue - _F(4), _F(0))
    green = max(min(_F(4) - hue, _F(1) - (_F(1) - hue)), _F(0))
    blue = max(min(_F(6) - hue, hue - _F(2)), _F(0))
    return (
        np.int32(min(value * red, value) * _F(255)),
        np.int32(min(value * green, value) * _F(255)),
        np.int32(min(value * blue, value) * _F(255)),
    )


@njit(nogil=True, cache=True, error_model="numpy")
def _add_colours(flow, y, rows, scale, shift, red, green, blue):  # type: ignore[no-untyped-def]
    """Add the colours of ``rows`` rows from ``y`` on to the sums of each column."""
    for x in range(flow.shape[1] // 2):
        r = g = b = np.int32(0)
        for i in range(rows):
            dr, dg, db = _colour(flow[y + i, 2 * x], flow[y + i, 2 * x + 1], scale, shift)
            r, g, b = r + dr, g + dg, b + db
        red[x] += r
        green[x] += g
        blue[x] += b


@njit(nogil=True, cache=True, error_model="numpy")
def _average(sums, cell_width, cell_height, row):  # type: ignore[no-untyped-def]
    """Turn sums of columns into one row of RGB bytes, rounded as cv2.INTER_AREA does."""
    inverse = _F(1) / _F(cell_width * cell_height)
    half_up = cell_width == 2 and cell_height == 2
    cells = sums.size // cell_width
    for i in range(cells if cell_width > 1 else 0):
        total = np.int32(0)
        for j in range(cell_width):
            total += sums[cell_width * i + j]
        sums[i] = total
    # A loop of its own, which vectorises: 10% of the whole.
    for i in range(cells):
        mean = _F(sums[i]) * inverse
        sums[i] = np.int32(np.floor(mean + _F(0.5)) if half_up else np.rint(mean))
    columns = cells // 3
    for x in range(columns):
        row[3 * x] = sums[x]
        row[3 * x + 1] = sums[columns + x]
        row[3 * x + 2] = sums[2 * columns + x]
