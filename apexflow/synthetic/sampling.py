"""Taking frames: exact inversion of the motion, spline sampling, sensor noise.

A face in its neutral pose is a continuous function, a cubic spline. A point ``p`` of it moves
to ``q = p + sum of bumps``, the expression, and on to ``q + w(q) (M q - q)``, where ``M`` is the
head's pose and ``w`` fades from 1 on the head to 0 on the background. A frame is that function
read at the exact inverse of its pixels: no resampled picture is ever resampled, so the known
motion holds to the accuracy of the arithmetic.

Bumps are the rows of an array (N, 6): centre x, y; radius x, y; displacement x, y.

Eyelids are the rows of an array (N, 6): centre x, y of the eye; half width and half height of its
opening; height of the lid above it; how far the lid is closed, 0 to 1. The lid's lower edge falls
from the opening's upper rim to its lower one, and what lies on the lid is stretched between its
upper end, which stays, and its edge, as after the expression and before the head moves. What it
has come to lie over is not seen.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels.compiled import njit
from apexflow.kernels.spline import read

Image = NDArray[np.float32]
Points = NDArray[np.float64]
Line = NDArray[np.float64]
Pose = tuple[float, float, float, float, float, float, float, float]
"""Centre x, y; inner and outer radius; r cos and r sin of the matrix M; its dx, dy."""

MARGIN = 32
"""Pixels by which a painted face is larger than its frame, on each side."""

STEEPEST = 0.7
"""Pixels per pixel. Below 1 nothing folds; up to here an inverse is reached quickly, too."""

_TOLERANCE = 1e-5  # pixels; the last step of an inverse, whose error is a fraction of it
_MAX_STEPS = 60  # 0.7 ** 60 is 5e-10, see `STEEPEST`
_PIECE = 2048
_PROBES = 96  # a side; an eyelid's bump spans over 10 of them


NO_LIDS = np.empty((0, 6))


@njit
def forward(points: Points, pose: Pose, bumps: Points, lids: Points) -> Points:
    """Move material points (N, 2) to where they are seen; NaN where a lid covers them."""
    x, y = points[:, 0].copy(), points[:, 1].copy()
    dx, dy = np.empty_like(x), np.empty_like(y)
    _bend(x, y, bumps, dx, dy)
    x, y = x + dx, y + dy
    _cover(x, y, lids)
    _carry(x, y, pose, dx, dy)
    return np.stack((x + dx, y + dy), axis=1)


def head_steepness(pose: Pose) -> float:
    """Return a bound for how much the pose's displacement changes per pixel."""
    _, _, inner, outer, cosine, sine, dx, dy = pose
    turn = float(np.hypot(cosine - 1.0, sine))
    fade = 1.875 * 2.0 * outer / (outer**2 - inner**2)  # 1.875: of the smooth step, in its middle
    return turn + fade * (turn * outer + float(np.hypot(dx, dy)))


def face_steepness(bumps: Points) -> float:
    """Return how much the expression's displacement changes per pixel, at most."""
    x0, y0, x1, y1 = _bounds(bumps)
    x, y = np.linspace(x0, x1, _PROBES), np.linspace(y0, y1, _PROBES)
    u, v = np.meshgrid(x, y)
    dx, dy = np.empty(u.size), np.empty(u.size)
    _bend(u.ravel(), v.ravel(), bumps, dx, dy)
    slopes = [np.gradient(d.reshape(u.shape), y, x) for d in (dx, dy)]
    return float(np.sqrt(np.sum(np.square(slopes), axis=(0, 1)).max()))


@njit
def inverse(points: Points, pose: Pose, bumps: Points, lids: Points) -> Points:
    """Find the material points (N, 2) that are seen at given points."""
    x, y = points[:, 0].copy(), points[:, 1].copy()
    dx, dy = np.empty_like(x), np.empty_like(y)
    # In pieces, so that one slow point does not make all of them iterate.
    for start in range(0, len(x), _PIECE):
        piece = slice(start, start + _PIECE)
        _trace(x[piece], y[piece], pose, bumps, lids, dx[piece], dy[piece])
    return np.stack((x, y), axis=1)


@njit
def expose(
    coefficients: Image, pose: Pose, bumps: Points, lids: Points, height: int, width: int
) -> Image:
    """Take one frame (channels, height, width) of a painted face."""
    out = np.empty((coefficients.shape[0], height, width), np.float32)
    x, y, dx, dy = np.empty(width), np.empty(width), np.empty(width), np.empty(width)
    for i in range(height):
        for j in range(width):
            x[j], y[j] = j, i
        _trace(x, y, pose, bumps, lids, dx, dy)
        for c in range(coefficients.shape[0]):
            plane, line = coefficients[c], out[c, i]
            for j in range(width):
                line[j] = read(plane, x[j] + MARGIN, y[j] + MARGIN)
    return out


@njit
def develop(
    light: Image, gain: float, offset: float, sigma: float, key: np.uint64
) -> NDArray[np.uint8]:
    """Turn light (channels, H, W) into uint8 (H, W, channels): gain, offset, noise, rounding.

    The noise of a pixel is a hash of its index and ``key`` (SplitMix64 [1]_), whose four
    16-bit parts are added up: variance ``sigma ** 2`` exactly, nearly Gaussian, white, and the
    same whatever thread takes the frame. NumPy's generator takes 3.5 times as long for the normal
    numbers alone.

    References
    ----------
    .. [1] G. Steele, D. Lea, C. Flood, "Fast splittable pseudorandom number generators",
       OOPSLA 2014. DOI 10.1145/2714064.2660195
    """
    channels, height, width = light.shape
    out = np.empty((height, width, channels), np.uint8)
    scale = np.float32(sigma / np.sqrt(4 * (65536.0**2 - 1) / 12))
    gain32, offset32 = np.float32(gain), np.float32(offset)
    low = np.uint64(0xFFFF)
    state = key
    for i in range(height):
        for j in range(width):
            for c in range(channels):
                state += np.uint64(0x9E3779B97F4A7C15)
                z = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
                z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
                z = z ^ (z >> np.uint64(31))
                total = (z & low) + (z >> np.uint64(16) & low)
                total += (z >> np.uint64(32) & low) + (z >> np.uint64(48))
                noise = scale * np.float32(np.int64(total) - 131070)
                level = gain32 * light[c, i, j] + offset32 + noise + np.float32(0.5)
                out[i, j, c] = np.uint8(min(max(level, np.float32(0)), np.float32(255)))
    return out


@njit
def _trace(x: Line, y: Line, pose: Pose, bumps: Points, lids: Points, dx: Line, dy: Line) -> None:
    """Replace points by the material points seen there.

    Fixed-point iteration of all points at once, whose plain loops the compiler turns into
    vector code: a third of the time of an iteration point by point. ``dx, dy`` are scratch.
    """
    seen_x, seen_y = x.copy(), y.copy()
    for _ in range(_MAX_STEPS):
        _carry(x, y, pose, dx, dy)
        if _step(x, y, seen_x, seen_y, dx, dy) == 0:
            break
    _uncover(x, y, lids)
    x0, y0, x1, y1 = _bounds(bumps)
    # A bump maps its own ellipse onto itself: there is nothing to undo outside of them.
    inside = 0
    for n in range(len(x)):
        inside += x0 < x[n] < x1 and y0 < y[n] < y1
    if inside == 0:
        return
    seen_x[:], seen_y[:] = x, y
    for _ in range(_MAX_STEPS):
        _bend(x, y, bumps, dx, dy)
        if _step(x, y, seen_x, seen_y, dx, dy) == 0:
            break


@njit
def _step(x: Line, y: Line, seen_x: Line, seen_y: Line, dx: Line, dy: Line) -> int:
    """Set x, y to what moves to the seen points by dx, dy; return how many changed."""
    changed = 0
    for n in range(len(x)):
        new_x, new_y = seen_x[n] - dx[n], seen_y[n] - dy[n]
        changed += abs(new_x - x[n]) + abs(new_y - y[n]) > _TOLERANCE
        x[n], y[n] = new_x, new_y
    return changed


@njit
def _bend(x: Line, y: Line, bumps: Points, dx: Line, dy: Line) -> None:
    """Displacement by the expression: bumps (1 - r²)³, zero outside their ellipses."""
    dx[:] = 0.0
    dy[:] = 0.0
    for k in range(len(bumps)):
        cx, cy, fx, fy = bumps[k, 0], bumps[k, 1], 1.0 / bumps[k, 2], 1.0 / bumps[k, 3]
        mx, my = bumps[k, 4], bumps[k, 5]
        for n in range(len(x)):
            u, v = (x[n] - cx) * fx, (y[n] - cy) * fy
            rest = max(1.0 - u * u - v * v, 0.0)
            height = rest * rest * rest
            dx[n] += height * mx
            dy[n] += height * my


@njit
def _carry(x: Line, y: Line, pose: Pose, dx: Line, dy: Line) -> None:
    """Displacement by the head's pose, fading out beyond the head."""
    cx, cy, inner, outer, cosine, sine, tx, ty = pose
    start, rate = inner * inner, 1.0 / (outer * outer - inner * inner)
    for n in range(len(x)):
        u, v = x[n] - cx, y[n] - cy
        t = min(max((u * u + v * v - start) * rate, 0.0), 1.0)
        weight = 1.0 - t * t * t * (10.0 - 15.0 * t + 6.0 * t * t)
        dx[n] = weight * (cosine * u - sine * v - u + tx)
        dy[n] = weight * (sine * u + cosine * v - v + ty)


@njit
def _lid_at(lid: Line, x: float) -> tuple[float, float, float]:
    """Return where a lid ends at x: its upper end, the rim it began at, the edge it fell to."""
    u = (x - lid[0]) / lid[2]
    opening = lid[3] * max(1.0 - u * u, 0.0)
    rim = lid[1] - opening
    return rim - lid[4], rim, rim + 2.0 * lid[5] * opening


@njit
def _cover(x: Line, y: Line, lids: Points) -> None:
    """Stretch what lies on the lids, and lose what they cover."""
    for k in range(len(lids)):
        for n in range(len(x)):
            top, rim, edge = _lid_at(lids[k], x[n])
            if edge > rim and top < y[n] <= rim:
                y[n] = top + (y[n] - top) * (edge - top) / (rim - top)
            elif rim < y[n] < edge:
                x[n] = y[n] = np.nan


@njit
def _uncover(x: Line, y: Line, lids: Points) -> None:
    """Replace places by those on the open eye that are seen there."""
    for k in range(len(lids)):
        for n in range(len(x)):
            top, rim, edge = _lid_at(lids[k], x[n])
            if edge > rim and top < y[n] < edge:
                y[n] = top + (y[n] - top) * (rim - top) / (edge - top)


@njit
def _bounds(bumps: Points) -> tuple[float, float, float, float]:
    """Bounds x0, y0, x1, y1 of all bumps."""
    x0 = y0 = np.inf
    x1 = y1 = -np.inf
    for k in range(len(bumps)):
        x0 = min(x0, bumps[k, 0] - bumps[k, 2])
        x1 = max(x1, bumps[k, 0] + bumps[k, 2])
        y0 = min(y0, bumps[k, 1] - bumps[k, 3])
        y1 = max(y1, bumps[k, 1] + bumps[k, 3])
    return x0, y0, x1, y1
