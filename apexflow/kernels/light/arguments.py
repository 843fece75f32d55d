"""The images that light is taken out of and that `clg` compares, checked."""

from __future__ import annotations

from typing import Any

from apexflow.kernels import _validate as validate

# Gray levels of 16 bits fit; beyond, the products of squares leave float32.
LARGEST = 1e6


def check_gray_levels(name: str, value: object) -> Any:
    """Return an image (H, W) or a batch (N, H, W) of uint8, or of float32 within +-1e6."""
    images: Any = validate.check_gray(name, value)
    if images.dtype.kind == "f":
        largest = max(float(images.max()), -float(images.min()))
        if largest > LARGEST:
            raise ValueError(f"{name} must lie within +-{LARGEST:g}. Got {largest:g}.")
    return images
