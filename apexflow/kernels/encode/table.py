"""The encodings by name, and the one way from a stored flow to a map."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels._validate import check_choice
from apexflow.kernels.encode.head import mask_region, remove_head_motion, suppress_noise
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


def make_maps(
    flow: NDArray[np.floating[Any]],
    encoding: str,
    *,
    size: tuple[int, int] | None = (28, 28),
    head: Sequence[float] | None = None,
    mask: Sequence[float] | None = None,
    noise: float = 0.0,
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
    noise : float
        Length in pixels that is taken off every vector at last, see `suppress_noise`.
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
    lead, (height, width) = flow.shape[:-3], flow.shape[-2:]
    batch = np.moveaxis(flow.reshape(-1, 2, height, width), 1, -1).astype(np.float32, order="C")
    target = (height, width) if size is None else size
    if not len(batch):
        return np.zeros_like(flow, np.uint8, shape=(*lead, *target, 3))
    if head is not None:
        batch = remove_head_motion(batch, head)
    if mask is not None:
        batch = mask_region(batch, mask)
    if noise:
        batch = suppress_noise(batch, noise)
    maps = ENCODINGS[encoding](batch, size, **options)
    return maps.reshape(*lead, *target, 3)


def check_options(encoding: str, options: Mapping[str, Any]) -> None:
    """Refuse an unknown encoding, and options that it does not have or does not allow."""
    check_choice("encoding", encoding, ENCODINGS)
    encode = ENCODINGS[encoding]
    allowed = [
        p.name for p in inspect.signature(encode).parameters.values() if p.kind is p.KEYWORD_ONLY
    ]
    for name in options:
        if name not in allowed:
            raise ValueError(
                f"options of {encoding} must be among {allowed}. Got {name!r}."
                if allowed
                else f"{encoding} has no options. Got {name!r}."
            )
    if options:
        encode(np.zeros((2, 2, 2), np.float32), (2, 2), **options)
