"""The encodings of a batch of flows on a GPU.

Each function takes checked flows (N, H, W, 2) in float32 and does what its namesake on the CPU
does for one flow; the results stay on the GPU. A map costs little beside its flow: the HSV map
of a 224 x 224 flow reads 0.8 MB, 16 GB/s at 20,000 maps/s, so the kernels are kept plain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from apexflow.kernels._validate import check_flow
from apexflow.kernels.encode.scaling import (
    SHEAR_WEIGHT,
    STRAIN_LENGTH,
    Size,
    signed_bytes,
    unsigned_bytes,
)
from apexflow.kernels.gpu import Device, in_batches

_THREADS = 256
_AREA, _LINEAR, _LINEAR_OF_AREA = (np.int32(method) for method in range(3))  # as in resize.cu


def optical_strain(flows: Any, convention: str, *, device: Device) -> Any:
    """Return the strain (N, H, W); one answer comes down: whether it is finite."""

    def deform(part: Any) -> Any:
        count, height, width = part.shape[:3]
        strain = device.xp.empty((count, height, width), np.float32)
        args = part, np.int32(height), np.int32(width), SHEAR_WEIGHT[convention], strain
        _each(device, "encode/strain.cu", "optical_strain", count, height * width, args)
        if not np.isfinite(strain).all():
            raise ValueError("flow must be small enough for its strain to be finite in float32.")
        return strain

    return _in_parts(deform, flows, device)


def magnitude_angle(flows: Any, *, device: Device) -> tuple[Any, Any]:
    """Return the length in pixels and the direction in degrees, each (N, H, W)."""
    flows = device.xp.ascontiguousarray(flows)
    magnitude, angle = (device.xp.empty(flows.shape[:3], np.float32) for _ in range(2))
    args = flows, np.int64(magnitude.size), magnitude, angle
    _each(device, "encode/polar.cu", "magnitude_angle", 1, magnitude.size, args)
    return magnitude, angle


def encode_hsv(flows: Any, size: Size, least: float, *, device: Device) -> Any:
    """Return the HSV maps, stretched; one answer comes down: whether all lengths are finite."""

    def encode(part: Any) -> Any:
        scales = device.xp.empty((len(part), 2), np.float32)
        pixels = np.int32(part.shape[1] * part.shape[2])
        stretch = device.kernel("encode/hsv.cu", "stretch")
        stretch((len(part),), (_THREADS,), (part, pixels, np.float64(least), scales))
        maps = _hsv_maps(part, scales, 0.0, size, _LINEAR_OF_AREA, device)
        if not np.isfinite(scales).all():
            check_flow("flow", part)
            raise ValueError("flow must be small enough for its squared length to be finite.")
        return maps

    return _in_parts(encode, flows, device)


def encode_hsv_absolute(flows: Any, size: Size, limit: float, *, device: Device) -> Any:
    """Return the HSV maps whose value is the length in parts of ``limit``."""

    def encode(part: Any) -> Any:
        scales = device.xp.zeros((len(part), 2), np.float32)
        return _hsv_maps(part, scales, limit, size, _LINEAR, device)

    return _in_parts(encode, flows, device)


def encode_uv(
    flows: Any, size: Size, normalize: str, limit: float, least: float, *, device: Device
) -> Any:
    """Return maps of the two components."""

    def encode(part: Any) -> Any:
        shown = resized(part, size, device=device)
        components = _component_bytes(shown, normalize, limit, least)
        return _with_third(components, 0, device)

    return _in_parts(encode, flows, device)


def encode_uv_strain(
    flows: Any,
    size: Size,
    convention: str,
    normalize: str,
    limits: tuple[float, float],
    least: float,
    *,
    device: Device,
) -> Any:
    """Return maps of the two components and of the strain."""

    def encode(part: Any) -> Any:
        strain = optical_strain(part, convention, device=device)
        shown = resized(part, size, device=device)
        components = _component_bytes(shown, normalize, limits[0], least)
        strain = resized(strain[..., np.newaxis], size, device=device)[..., 0]
        minmax = normalize == "minmax"
        third = (
            _stretched_bytes(strain, least / STRAIN_LENGTH)
            if minmax
            else unsigned_bytes(strain, limits[1])
        )
        return _with_third(components, third, device)

    return _in_parts(encode, flows, device)


def encode_magnitude_angle(
    flows: Any, size: Size, normalize: str, limit: float, least: float, *, device: Device
) -> Any:
    """Return maps of length and direction."""

    def encode(part: Any) -> Any:
        magnitude, angle = magnitude_angle(resized(part, size, device=device), device=device)
        minmax = normalize == "minmax"
        length = _stretched_bytes(magnitude, least) if minmax else unsigned_bytes(magnitude, limit)
        channels = device.xp.stack([length, unsigned_bytes(angle, 360)], axis=-1)
        return _with_third(channels, 0, device)

    return _in_parts(encode, flows, device)


def resized(images: Any, size: Size, *, device: Device) -> Any:
    """Return images (N, H, W, C) in float32 at another size, see `scaling.resized`."""
    if size is None or images.shape[1:3] == size:
        return images
    shrinks = size[0] <= images.shape[1] and size[1] <= images.shape[2]
    return _resize(images, size, _AREA if shrinks else _LINEAR, device)


def _resize(images: Any, size: tuple[int, int], method: np.int32, device: Device) -> Any:
    images = device.xp.ascontiguousarray(images)
    count, height, width, channels = images.shape
    rows, columns = size
    result = device.xp.empty((count, rows, columns, channels), images.dtype)
    sizes = (np.int32(side) for side in (height, width, rows, columns, channels))
    name = "resize_bytes" if images.dtype == np.uint8 else "resize_floats"
    args = images, *sizes, method, result
    _each(device, "encode/resize.cu", name, count, rows * columns * channels, args)
    return result


def _hsv_maps(
    flows: Any, scales: Any, limit: float, size: Size, enlarging: np.int32, device: Device
) -> Any:
    count, height, width = flows.shape[:3]
    rows, columns = target = (height, width) if size is None else size
    fused = height % rows == 0 and width % columns == 0
    if not fused:
        rows, columns = height, width
    maps = device.xp.empty((count, rows, columns, 3), np.uint8)
    sizes = (np.int32(n) for n in (rows, columns, height // rows, width // columns))
    args = flows, scales, np.float32(limit), *sizes, maps
    _each(device, "encode/hsv.cu", "hsv_cells", count, rows * columns, args)
    if fused:
        return maps
    shrinks = target[0] <= height and target[1] <= width
    return _resize(maps, target, _AREA if shrinks else enlarging, device)


def _each(
    device: Device, source: str, name: str, count: int, items: int, args: tuple[Any, ...]
) -> None:
    """Start a kernel with a row of blocks for each of ``count``, a thread for each item."""
    device.kernel(source, name)((-(-items // _THREADS), count), (_THREADS,), args)


def _in_parts(encode: Callable[[Any], Any], flows: Any, device: Device) -> Any:
    """Return the maps of flows, of as many at a time as memory allows."""
    flows = device.xp.ascontiguousarray(flows)
    # Strain, resized flow, map and their bytes together take less than twice the flow.
    bytes_each = 2 * flows.nbytes // len(flows)
    parts = in_batches(lambda part: encode(flows[part]), len(flows), bytes_each, device)
    return parts[0] if len(parts) == 1 else device.xp.concatenate(parts)


def _component_bytes(flows: Any, normalize: str, limit: float, least: float) -> Any:
    return _stretched_bytes(flows, least) if normalize == "minmax" else signed_bytes(flows, limit)


def _stretched_bytes(values: Any, least: float) -> Any:
    """Map lowest..highest of each map (N, H, W) or channel (N, H, W, C) to 0..255."""
    low = values.min(axis=(1, 2), keepdims=True)
    spread = np.maximum(values.max(axis=(1, 2), keepdims=True) - low, np.float32(least))
    scale = np.float32(255) / (spread + (spread == 0))  # equal values become 0
    return np.rint((values - low) * scale).astype(np.uint8)


def _with_third(channels: Any, third: Any, device: Device) -> Any:
    maps = device.xp.empty((*channels.shape[:-1], 3), np.uint8)
    maps[..., :2] = channels
    maps[..., 2] = third
    return maps
