"""Magnification by flow: the motion is measured, and each frame warped by alpha times it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.kernels._validate import check_integer, check_number, check_numbers
from apexflow.kernels.compiled import njit
from apexflow.kernels.flow_clg import clg, prepare_clg
from apexflow.kernels.magnification.arguments import (
    Floats,
    Frames,
    Image,
    check_clip,
    finished,
    longest,
    read_frame,
    room_for,
    without_light,
)
from apexflow.kernels.magnification.band import Band
from apexflow.kernels.spline import read, spline

_STEPS = 50
_CLOSE = 0.01  # px: how well the warp is inverted
_BORDER = 4  # px around an image: what a spline reads beyond its edge is the edge


@dataclass(frozen=True, slots=True)
class FlowMagnified:
    """A magnified clip.

    Attributes
    ----------
    frames : ndarray
        Of shape and dtype of the clip.
    alpha : float
    motion : float
        The longest motion that was measured, in px, by the 99.9th percentile of the frame in which
        it is longest.
    folded : float
        The largest part of a frame, 0 to 1, in which the enlarged motion would fold the picture:
        pixels pass one another, and what is seen there is arbitrary.
    """

    frames: Image
    alpha: float
    motion: float
    folded: float


def magnify_flow(
    frames: Frames,
    alpha: float,
    *,
    rate: float | None = None,
    low: float = 0.0,
    high: float = 10.0,
    reference: int = 0,
    numbers: Sequence[int] | NDArray[np.integer[Any]] | None = None,
    out: Image | None = None,
) -> FlowMagnified:
    """Magnify the motion of a clip by measuring it and warping each frame by alpha times it.

    The flow f from the reference frame (`clg`, of images from `normalize_light`) says that the
    pixel x of the reference is found at x + f(x) in a frame. In the magnified frame it is at
    x + (1 + alpha) f(x). For each pixel y of that the x with x + (1 + alpha) f(x) = y is found
    by iteration, and the frame itself is read at y - alpha f(x), by cubic splines [1]_: each
    frame is sampled once, and keeps its light, its noise and what moves in no flow.

    There is no bound on wavelengths as there is for `magnify_eulerian`; what limits it is the
    flow's error, which grows 1 + alpha times with the motion, and that the picture must not fold.

    Parameters
    ----------
    frames : sequence of (H, W) or (H, W, 3) ndarray
        As in `magnify_eulerian`. Without a rate one at a time is in memory, however long the clip.
    alpha : float
        Motion becomes 1 + alpha times as large; 0 changes nothing.
    rate : float, optional
        Frames a second. The motion is then measured within the band, where the frames' noise is
        mostly gone; without it between the frames as they are.
    low, high, numbers
        The band, as in `magnify_eulerian`; of no effect without a rate.
    reference : int
        The index of the frame that stays as it is: the onset.
    out : ndarray, optional
        Where the magnified frames are written, such as an array that is mapped to disk.

    Returns
    -------
    FlowMagnified

    Raises
    ------
    ValueError
        If an argument has a wrong shape, dtype or value.

    References
    ----------
    .. [1] M. Unser, "Splines: a perfect fit for signal and image processing", IEEE Signal
       Processing Magazine 16(6), 1999. https://doi.org/10.1109/79.799930

    Examples
    --------
    >>> import numpy as np
    >>> from apexflow.kernels import magnify_flow
    >>> y, x = np.mgrid[:64, :64].astype(np.float32)
    >>> face = lambda shift: 100 + 50 * np.sin((x - shift) / 4) * np.cos(y / 5)
    >>> magnified = magnify_flow(np.stack([face(0), face(0.2)]), 4)
    >>> bool(abs(magnified.frames[1] - face(1.0))[8:-8, 8:-8].max() < 3), magnified.folded
    (True, 0.0)
    """
    count, first = check_clip(frames)
    alpha = check_number("alpha", alpha, minimum=0)
    reference = check_integer("reference", reference, minimum=0, maximum=count - 1)
    taken = check_numbers(numbers, count)
    result = room_for(count, first, out)
    seen: Callable[[int], Image] = partial(read_frame, frames)
    if rate is not None:
        rate = check_number("rate", rate, above=0)
        low = check_number("low", low, minimum=0)
        high = check_number("high", high, above=low)
        seen = Band(frames, taken, rate, low, high).frame
    start = prepare_clg(without_light(seen(reference)))
    motion = folded = 0.0
    for number in range(count):
        frame = read_frame(frames, number)
        if number == reference or not alpha:
            result[number] = frame
            continue
        flow = clg(start, without_light(seen(number)))
        motion = max(motion, longest(flow))
        folded = max(folded, folded_part(flow, 1 + alpha))
        moved = _carried(flow, 1 + alpha)
        result[number] = finished(_read_at(frame, np.float32(-alpha) * moved), first.dtype)
    return FlowMagnified(result, alpha, motion, folded)


def folded_part(flow: Floats, times: float) -> float:
    """Return in which part of an image the map x + times f(x) turns neighbours around."""
    (u_y, u_x), (v_y, v_x) = (np.gradient(times * flow[..., i]) for i in range(2))
    return float(((1 + u_x) * (1 + v_y) - u_y * v_x <= 0).mean())


def _carried(flow: Floats, times: float) -> Floats:
    """Return the flow f(x) at each pixel y that x + times f(x) leads to: (H, W, 2)."""
    height, width = flow.shape[:2]
    grid = np.stack(np.meshgrid(*(np.arange(n, dtype=np.float32) for n in (width, height))), -1)
    found = flow
    for _ in range(_STEPS):
        places = grid - np.float32(times) * found
        better = cv2.remap(flow, places, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        change = np.float32(times) * float(abs(better - found).max())
        found = better
        if change < _CLOSE:
            break
    return found


def _read_at(image: Image, shifts: Floats) -> Floats:
    """Return an image (H, W[, 3]) read at each pixel's place plus its shift (H, W, 2)."""
    border = (_BORDER,) * 4
    planes = np.atleast_3d(image)
    read_planes = [
        _sample(
            spline(
                cv2.copyMakeBorder(planes[..., c].astype(np.float32), *border, cv2.BORDER_REPLICATE)
            ),
            shifts,
        )
        for c in range(planes.shape[2])
    ]
    return np.stack(read_planes, axis=-1).reshape(image.shape)


@njit
def _sample(coefficients, shifts):  # type: ignore[no-untyped-def]
    """Read a spline with a border at each pixel's place plus its shift."""
    height, width, _ = shifts.shape
    values = np.empty((height, width), np.float32)
    for y in range(height):
        for x in range(width):
            values[y, x] = read(
                coefficients, x + _BORDER + shifts[y, x, 0], y + _BORDER + shifts[y, x, 1]
            )
    return values
