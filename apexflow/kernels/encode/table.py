"""The encodings by name, and the one way from a stored flow to a map."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels._validate import check_choice
from apexflow.kernels.encode.head import (
    mask_region,
    measure_noise,
    noise_of_confidence,
    remove_head_motion,
    suppress_noise,
)
from apexflow.kernels.encode.hsv import encode_hsv
from apexflow.kernels.encode.hsv_absolute import encode_hsv_absolute
from apexflow.kernels.encode.magnitude_angle import encode_magnitude_angle
from apexflow.kernels.encode.uv import encode_uv
from apexflow.kernels.encode.uv_strain import encode_uv_strain

ENCODINGS: Mapping[str, Callable[..., NDArray[np.uint8]]] = MappingProxyType(
    {
        "hsv": encode_hsv,
        "hsv-absolute": encode_hsv_absolute,
        "uv": encode_uv,
        "uv-strain": encode_uv_strain,
        "magnitude-angle": encode_magnitude_angle,
    }
)

LEAST_IN_NOISE = 5.0
"""The shortest range that is stretched, in lengths of noise.

In clips without motion the longest vector is 2 to 3 times the measured noise, so that what is left
of it takes a quarter of the scale in a 28x28 map, at its brightest pixel.
"""


def make_maps(
    flow: NDArray[np.floating[Any]],
    encoding: str,
    *,
    size: tuple[int, int] | None = (28, 28),
    head: Sequence[float] | None = None,
    mask: Sequence[float] | None = None,
    noise: float | Literal["measured", "confidence"] = 0.0,
    confidence: NDArray[np.floating[Any]] | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> NDArray[np.uint8]:
    """Return maps of flows as a store holds them, components first.

    A run and a reader of the store both call this, with the flow as it is stored: the bytes
    are equal.

    Parameters
    ----------
    flow : (…, 2, H, W) float32 or float16
        Displacement in pixels.
    encoding : str
        A key of `ENCODINGS`.
    size : (height, width) or None, default (28, 28)
        Size of the maps; None keeps the flow's.
    head : (x0, y0, x1, y1), optional
        A region in pixels of the flow whose motion is the head's, see `remove_head_motion`.
    mask : (x0, y0, x1, y1), optional
        A region whose flow is set to zero, after the head's motion is removed.
    noise : float, "measured" or "confidence"
        Length in pixels that is taken off every vector at last, see `suppress_noise`; "measured"
        is that of each flow by `measure_noise`, before the mask, "confidence" that of each pixel
        by `noise_of_confidence`. Maps that are stretched then stretch no range shorter than five
        times that length (of pixels its median), unless the options say ``least``.
    confidence : (…, H, W) float32 or float16, optional
        That of each flow, for ``noise = "confidence"``.
    options : dict
        Further options of the encoding.

    Returns
    -------
    (…, height, width, 3) uint8

    Raises
    ------
    ValueError
        When an argument has another shape, dtype or value, or the encoding has no such option.
    """
    check_options(encoding, options)
    if isinstance(noise, str):
        check_choice("noise", noise, ("measured", "confidence"))
    lead, (height, width) = flow.shape[:-3], flow.shape[-2:]
    batch = np.moveaxis(flow.reshape(-1, 2, height, width), 1, -1).astype(np.float32, order="C")
    target = (height, width) if size is None else size
    if not len(batch):
        return np.zeros_like(flow, np.uint8, shape=(*lead, *target, 3))
    if head is not None:
        batch = remove_head_motion(batch, head)
    level = _noise_of(batch, noise, confidence)
    if mask is not None:
        batch = mask_region(batch, mask)
    if noise:
        batch = suppress_noise(batch, level)
    if np.ndim(level) == 3:
        level = np.minimum(np.median(level.reshape(len(batch), -1), axis=-1), _LONGEST)
    return _encoded(batch, encoding, size, level, options).reshape(*lead, *target, 3)


_LONGEST = np.float32(1e6)  # px; of flow in which nothing is sure


def _noise_of(
    batch: NDArray[np.float32],
    noise: float | Literal["measured", "confidence"],
    confidence: NDArray[np.floating[Any]] | None,
) -> Any:
    """Return the length of noise: of all flows, of each, or of each pixel."""
    if noise == "measured":
        return measure_noise(batch)
    if noise != "confidence":
        return noise
    if confidence is None:
        raise ValueError("noise = 'confidence' needs the confidence of the flow")
    if confidence.size != batch[..., 0].size or confidence.shape[-2:] != batch.shape[1:3]:
        raise ValueError(
            f"confidence must be that of each pixel of the flow. Got shape {confidence.shape}."
        )
    return noise_of_confidence(confidence.reshape(batch.shape[:-1]))


def _encoded(
    batch: NDArray[np.float32],
    encoding: str,
    size: tuple[int, int] | None,
    noise: float | NDArray[np.float32],
    options: Mapping[str, Any],
) -> NDArray[np.uint8]:
    """Return maps whose stretching, where the encoding has one, leaves the noise small."""
    encode = ENCODINGS[encoding]
    if "least" not in _option_names(encoding):
        return encode(batch, size, **options)
    if isinstance(noise, int | float):
        return encode(batch, size, **{"least": LEAST_IN_NOISE * noise, **options})
    each = [
        _encoded(batch[i : i + 1], encoding, size, float(n), options) for i, n in enumerate(noise)
    ]
    return np.concatenate(each)


def check_options(encoding: str, options: Mapping[str, Any]) -> None:
    """Refuse an unknown encoding, and options that it does not have or does not allow."""
    check_choice("encoding", encoding, ENCODINGS)
    allowed = _option_names(encoding)
    for name in options:
        if name not in allowed:
            raise ValueError(f"options of {encoding} must be among {allowed}. Got {name!r}.")
    if options:
        ENCODINGS[encoding](np.zeros((2, 2, 2), np.float32), (2, 2), **options)


@cache
def _option_names(encoding: str) -> list[str]:
    parameters = inspect.signature(ENCODINGS[encoding]).parameters.values()
    return [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
