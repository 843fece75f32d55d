"""Blocks of an image: a grid whose cells differ by one pixel at most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels._validate import check_integer

Blocks = int | tuple[int, int]


def several(name: str, value: Any, count: int, *, minimum: int, maximum: int) -> tuple[int, ...]:
    """Return ``count`` integers, one of them standing for all."""
    given = list(value) if isinstance(value, Sequence | np.ndarray) else [value] * count
    if len(given) != count:
        raise ValueError(f"{name} must be one number or {count}. Got {value!r}.")
    return tuple(check_integer(name, one, minimum=minimum, maximum=maximum) for one in given)


def check_blocks(value: Any) -> tuple[int, int]:
    """Return the rows and columns of a grid."""
    rows, columns = several("blocks", value, 2, minimum=1, maximum=64)
    return rows, columns


def check_room(blocks: tuple[int, int], height: int, width: int) -> None:
    """Refuse a grid of which a cell would be empty."""
    for name, count, size in zip(("rows", "columns"), blocks, (height, width), strict=True):
        if count > size:
            raise ValueError(
                f"blocks must have at most as many {name} as the image has pixels there, {size}. "
                f"Got {count}."
            )


def block_of(size: int, count: int) -> NDArray[np.int64]:
    """Return the block of each pixel along one axis: block i begins at pixel i * size // count."""
    starts = np.arange(count) * size // count
    return np.searchsorted(starts, np.arange(size), side="right") - 1


def normalized(histograms: NDArray[Any]) -> NDArray[np.float64]:
    """Return histograms, along the last axis, with a sum of 1; 0 throughout where all are 0."""
    sums = histograms.sum(-1, keepdims=True)
    return np.asarray(histograms / np.where(sums > 0, sums, 1))
