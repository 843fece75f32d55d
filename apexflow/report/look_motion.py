"""What moves in a clip, and when: the curves and candidates of the page that `look` writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.engine.regions import RegionBox

Curve = NDArray[np.float64]
Crops = NDArray[np.uint8]

HEAD = "whole face"
STEP_SECONDS = 0.2  # what moves within this time is compared: a micro-expression rises so fast
MOST_CANDIDATES = 5
_SIDE = 112  # px of the crops that flow is computed at
_STRIKING = 4.0  # robust standard deviations above the median
_LEAST = 0.15  # px of the crop that a candidate moves more than the clip usually does


@dataclass(frozen=True, slots=True)
class Candidate:
    """An interval in which a region moves more than it usually does.

    Attributes
    ----------
    onset, apex, offset : int
        Rows of the crops.
    region : str
        The one that moves most.
    motion : float
        How far it moves, in px of the crop within `STEP_SECONDS`.
    head : float
        How far the whole face moves in that time.
    """

    onset: int
    apex: int
    offset: int
    region: str
    motion: float
    head: float

    @property
    def is_head(self) -> bool:
        """Whether the whole face moves more than the region does within it."""
        return self.head > self.motion


def step_of(rate: float | None, count: int) -> int:
    """Return the frames that `STEP_SECONDS` are, at least 1 and at most a third of the clip."""
    frames = round(STEP_SECONDS * (rate or 1 / (STEP_SECONDS / 2)))
    return int(np.clip(frames, 1, max(1, count // 3)))


def motion_curves(
    crops: Crops, boxes: Mapping[str, RegionBox], step: int, shown: NDArray[np.bool_]
) -> dict[str, Curve]:
    """Return how far each region moves within ``step`` frames, beside the whole face.

    Parameters
    ----------
    crops : uint8 (n, height, width)
        Aligned.
    boxes : dict of region to (x0, y0, x1, y1)
        In pixels of the crop.
    step : int
    shown : bool (n,)
        Which frames show the face.

    Returns
    -------
    dict of region, and `HEAD`, to float64 (n,)
        In pixels of the crop; NaN in the first ``step`` frames and where no face is to be seen.
    """
    count, height, width = crops.shape
    curves = {name: np.full(count, np.nan) for name in (*boxes, HEAD)}
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
    method.setFinestScale(0)
    small = [cv2.resize(crop, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA) for crop in crops]
    scale = np.array([width / _SIDE, height / _SIDE])
    for i in range(step, count):
        if not (shown[i] and shown[i - step]):
            continue
        flow = method.calc(small[i - step], small[i], None) * scale
        head = np.median(flow, axis=(0, 1))
        length = np.hypot(*np.moveaxis(flow - head, -1, 0))
        curves[HEAD][i] = np.hypot(*head)
        for name, box in boxes.items():
            x0, y0, x1, y1 = (round(v) for v in np.array(box) / np.tile(scale, 2))
            part = length[max(y0, 0) : max(y1, y0 + 2), max(x0, 0) : max(x1, x0 + 2)]
            curves[name][i] = np.percentile(part, 75)
    return curves


def find_candidates(curves: Mapping[str, Curve], step: int) -> tuple[Candidate, ...]:
    """Return the intervals in which a region moves strikingly, the largest motion first."""
    names = [name for name in curves if name != HEAD]
    stack = np.stack([_smoothed(curves[name], max(1, step // 2)) for name in names])
    seen = np.isfinite(stack).any(axis=0)
    if seen.sum() < 2 * step:
        return ()
    usual = np.nanmedian(stack, axis=1, keepdims=True)
    spread = 1.4826 * np.nanmedian(np.abs(stack - usual), axis=1, keepdims=True)
    above = (stack - usual) / np.maximum(spread * _STRIKING, _LEAST)
    strength = np.where(seen, np.nan_to_num(above, nan=-np.inf).max(axis=0), -np.inf)
    found = [
        _candidate(first, last, stack, names, curves[HEAD], strength, step)
        for first, last in _runs(strength > 0.5)
        if strength[first : last + 1].max() > 1
    ]
    return tuple(sorted(found, key=lambda one: -one.motion)[:MOST_CANDIDATES])


def _candidate(
    first: int,
    last: int,
    stack: Curve,
    names: Sequence[str],
    head: Curve,
    strength: Curve,
    step: int,
) -> Candidate:
    peak = first + int(strength[first : last + 1].argmax())
    values = np.nan_to_num(stack[:, peak])
    region = int(values.argmax())
    # What moved up to the peak of the curve has arrived there.
    onset = max(first - step, 0)
    return Candidate(
        onset, peak, last, names[region], float(values[region]), float(np.nan_to_num(head[peak]))
    )


def _runs(where: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return first and last of each run of what is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], where, [False]])))
    return [(int(a), int(b) - 1) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _smoothed(curve: Curve, width: int) -> Curve:
    """Return the mean over ``width`` frames, of those that have a value."""
    known = np.isfinite(curve)
    window = np.ones(width)
    total = np.convolve(np.where(known, curve, 0.0), window, mode="same")
    count = np.convolve(known.astype(float), window, mode="same")
    return np.where(known, total / np.maximum(count, 1.0), np.nan)
