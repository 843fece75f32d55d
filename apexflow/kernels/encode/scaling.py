"""What the encodings share: one size for all channels, and bytes from numbers."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.kernels._validate import check_choice, check_flow, check_integer, check_number

Floats = NDArray[np.float32]
Size = tuple[int, int] | None
NORMALIZATIONS = ("fixed", "minmax")
# px over which a flow has to change by its least range for the least range of the strain: the
# neighbourhood that flow is averaged over. In clips without motion the largest strain is a ninth
# to a twelfth of the longest vector's px, in clips with an expression a 15th to a 25th.
STRAIN_LENGTH = 8.0
# The weight of (du/dy + dv/dx)^2 under the root of the strain, by convention.
SHEAR_WEIGHT: Mapping[str, np.float32] = MappingProxyType(
    {"half": np.float32(0.5), "quarter": np.float32(0.25)}
)


def flow_batch(flow: object) -> Floats:
    """Return a checked flow as a batch (N, H, W, 2)."""
    checked = check_flow("flow", flow)
    return checked if checked.ndim == 4 else checked[np.newaxis]


def check_size(size: object) -> Size:
    """Return ``size`` if it is (height, width) or None."""
    if size is None:
        return None
    if not isinstance(size, tuple | list) or len(size) != 2:
        raise ValueError(f"size must be (height, width) or None. Got {size!r}.")
    height, width = (check_integer("size", side, minimum=1) for side in size)
    return height, width


def check_normalize(normalize: str) -> str:
    """Return ``normalize`` if it names a normalisation."""
    return check_choice("normalize", normalize, NORMALIZATIONS)


def check_least(value: object) -> float:
    """Return the shortest range that is stretched over all bytes."""
    return check_number("least", value, minimum=0)


def check_limit(name: str, value: object) -> float:
    """Return the value that becomes the brightest byte, if it is positive."""
    return check_number(name, value, above=0)


def resized(image: NDArray[Any], size: Size) -> NDArray[Any]:
    """Return an image (H, W) or (H, W, C) at another size; None keeps its own.

    Area averaging when it shrinks, as the published workflows do; linear when it grows.
    """
    if size is None or image.shape[:2] == size:
        return image
    shrinks = size[0] <= image.shape[0] and size[1] <= image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(np.ascontiguousarray(image), size[::-1], interpolation=method))


def signed_bytes(values: Floats, limit: float) -> NDArray[np.uint8]:
    """Map -limit..limit to 1..255, so that 0 is 128 exactly; beyond the limit it saturates."""
    return np.rint(np.clip(values / np.float32(limit), -1, 1) * 127 + 128).astype(np.uint8)


def unsigned_bytes(values: Floats, limit: float) -> NDArray[np.uint8]:
    """Map 0..limit to 0..255; beyond the limit it saturates."""
    return np.rint(np.clip(values / np.float32(limit), 0, 1) * 255).astype(np.uint8)


def stretched_bytes(values: Floats, least: float = 0.0) -> NDArray[np.uint8]:
    """Map lowest..highest, or a range of ``least`` from the lowest, to 0..255.

    Equal values become 0.
    """
    low = values.min()
    spread = max(values.max() - low, np.float32(least))
    if spread == 0:
        return np.zeros(values.shape, np.uint8)
    return np.rint((values - low) * (np.float32(255) / spread)).astype(np.uint8)
