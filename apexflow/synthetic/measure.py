"""How far an estimate is from the truth: three numbers."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def endpoint_error(flow: ArrayLike, truth: ArrayLike, mask: ArrayLike | None = None) -> float:
    """Return the mean end-point error of a flow (H, W, 2) against the truth, in its pixels.

    Over the whole image, or where a boolean mask (H, W) is true.
    """
    estimate, true = _flows(flow, truth)
    error = np.hypot(estimate[..., 0] - true[..., 0], estimate[..., 1] - true[..., 1])
    return float(np.mean(_chosen(error, mask)))


def false_motion(flow: ArrayLike, still: ArrayLike) -> float:
    """Return the median magnitude of a flow (H, W, 2) where nothing moved, in its pixels."""
    estimate = np.asarray(flow, np.float64)
    return float(np.median(_chosen(np.hypot(estimate[..., 0], estimate[..., 1]), still)))


def shift_error(shifts: ArrayLike, truth: ArrayLike) -> float:
    """Return the 2-D root mean square error of shifts (N, 2) against the truth, in pixels."""
    estimate, true = _flows(shifts, truth)
    return float(np.sqrt(np.mean(np.sum((estimate - true) ** 2, axis=-1))))


def _flows(estimate: ArrayLike, truth: ArrayLike) -> tuple[NDArray[np.float64], ...]:
    """Return both as float64 after checking that they have one shape (…, 2)."""
    first, second = np.asarray(estimate, np.float64), np.asarray(truth, np.float64)
    if first.shape != second.shape or first.shape[-1:] != (2,):
        raise ValueError(
            f"estimate and truth must have one shape (…, 2), got {first.shape} and {second.shape}"
        )
    return first, second


def _chosen(values: NDArray[np.float64], mask: ArrayLike | None) -> NDArray[np.float64]:
    """Return the values where the mask is true; at least one."""
    if mask is None:
        return values
    chosen = np.asarray(mask, bool)
    if chosen.shape != values.shape or not chosen.any():
        raise ValueError(
            f"mask must have shape {values.shape} and be true somewhere, got shape "
            f"{chosen.shape}, {int(chosen.sum())} true"
        )
    return values[chosen]
