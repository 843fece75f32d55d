"""Which pixels of a frame a crop looks at: what the CPU and the GPU must agree on."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

Interpolation = Literal["nearest", "linear", "cubic", "area", "lanczos4"]
INTERPOLATIONS: tuple[str, ...] = get_args(Interpolation)


class Extent(NamedTuple):
    """The pixels that N crops look at: (x, y) of each one's first and last, (N, 2) float64.

    Not rounded, and not bounded by the frame.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]


def extent(matrices: NDArray[np.float64], size: tuple[int, int]) -> Extent:
    """Return what crops of ``size`` (height, width) look at, given their matrices (N, 2, 3)."""
    bottom, right = size[0] - 1, size[1] - 1
    corners = np.array([[0, right, 0, right], [0, 0, bottom, bottom], [1, 1, 1, 1]])
    places = matrices @ corners
    steps = np.abs(matrices[:, :, :2]).max(axis=(1, 2))
    beyond = np.array([reach(step) for step in steps.tolist()])[:, None]
    return Extent(places.min(axis=2) - beyond, places.max(axis=2) + beyond)


def reach(step: float) -> float:
    """Return how many pixels beyond its corners a crop looks at; its own lie ``step`` px apart.

    Lanczos reaches 4 px beyond its sample, a mean half a pixel of the crop.
    """
    return 5 + 0.5 * step


def span(seen: Extent, frame_size: tuple[int, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the first and the last whole pixel (x, y) of an extent inside a (height, width) frame.

    Both (N, 2); at least one pixel each way.
    """
    lengths = np.array(frame_size[1::-1])
    first = np.clip(np.floor(seen.low), 0, lengths - 1)
    last = np.clip(np.ceil(seen.high), first, lengths - 1)
    return first.astype(np.int64), last.astype(np.int64)


def mean_radii(matrices: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the half widths (x, y), (N, 2), of the mean that "area" takes before it samples.

    2 r + 1 pixels: odd, so that the mean stays where it is, and about as many as fall into one
    of the crop; from 1.5 pixels on three are better than one.
    """
    pixels = np.hypot(matrices[:, 0, :2], matrices[:, 1, :2])
    return np.floor((pixels + 0.5) / 2).astype(np.int64)
