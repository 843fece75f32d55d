"""Argument checks that all kernels share.

Each check returns the checked value or raises a `ValueError` that names the argument, the
rule and the value, as in ``region must be uint8. Got int64.``
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels.gpu import is_device_array


def check_array(
    name: str,
    value: Any,
    *,
    dtypes: Collection[str],
    ndim: Collection[int],
    finite: bool = True,
) -> NDArray[Any]:
    """Return ``value`` if it is a non-empty array of one of the dtypes and dimensions.

    float64 is taken where float32 is, and returned as that.

    Parameters
    ----------
    name : str
        What the caller calls the argument.
    value : array
        The argument; anything but a NumPy or CuPy array is refused.
    dtypes : collection of str
        Names of the dtypes allowed, such as ``("uint8", "float32")``.
    ndim : collection of int
        Numbers of dimensions allowed.
    finite : bool, default True
        Whether a floating array may hold only finite values. Of an array on a GPU the answer
        comes down, which waits for the GPU.

    Raises
    ------
    ValueError
        Naming the argument, the rule and the value that breaks it.
    """
    if not isinstance(value, np.ndarray) and not is_device_array(value):
        raise ValueError(f"{name} must be a NumPy array. Got {type(value).__name__}.")
    if _is_rounded(value.dtype, dtypes):
        # What NumPy makes of Python's numbers: rounded to 7 digits, beyond what any pixel has.
        with np.errstate(over="ignore"):  # too large a number is refused as not finite
            value = value.astype(np.float32)
    if _dtype_name(value.dtype) not in dtypes or not value.dtype.isnative:
        raise ValueError(f"{name} must be {' or '.join(dtypes)}. Got {value.dtype}.")
    if value.ndim not in ndim:
        wanted = " or ".join(str(n) for n in ndim)
        raise ValueError(f"{name} must have {wanted} dimensions. Got shape {value.shape}.")
    if value.size == 0:
        raise ValueError(f"{name} must not be empty. Got shape {value.shape}.")
    if finite and value.dtype.kind == "f" and not np.isfinite(value).all():
        bad = value[~np.isfinite(value)].ravel()[0]
        raise ValueError(f"{name} must be finite. Got {bad}.")
    return value


def check_image(
    name: str,
    value: object,
    *,
    dtypes: Collection[str] = ("uint8", "float32"),
    channels: Collection[int] = (1, 3),
    minimum_size: int = 1,
) -> NDArray[Any]:
    """Return ``value`` if it is an (H, W) or (H, W, C) image, finite and large enough."""
    image = check_array(name, value, dtypes=dtypes, ndim=(2, 3))
    if image.ndim == 3 and image.shape[2] not in channels:
        wanted = " or ".join(str(c) for c in channels)
        raise ValueError(f"{name} must have {wanted} channels. Got shape {image.shape}.")
    _check_size(name, image.shape, image.shape[:2], minimum_size)
    return image


def check_gray(
    name: str,
    value: object,
    *,
    dtypes: Collection[str] = ("uint8", "float32"),
    minimum_size: int = 1,
) -> NDArray[Any]:
    """Return ``value`` if it is an (H, W) image or an (N, H, W) batch of them, and finite."""
    images = check_array(name, value, dtypes=dtypes, ndim=(2, 3))
    _check_size(name, images.shape, images.shape[-2:], minimum_size)
    return images


def check_flow(name: str, value: object, *, dtypes: Collection[str] = ("float32",)) -> NDArray[Any]:
    """Return ``value`` if it is an (H, W, 2) flow or an (N, H, W, 2) batch of them, and finite."""
    flow = check_array(name, value, dtypes=dtypes, ndim=(3, 4))
    if flow.shape[-1] != 2:
        raise ValueError(
            f"{name} must hold (x, y) in its last dimension, of length 2. Got shape {flow.shape}."
        )
    return flow


def check_same_shape(name: str, value: NDArray[Any], other: str, reference: NDArray[Any]) -> None:
    """Refuse two arrays whose shapes differ."""
    if value.shape != reference.shape:
        raise ValueError(
            f"{name} must have the shape of {other}, {reference.shape}. Got {value.shape}."
        )


def check_pairs(prev: Any, next_: Any) -> int | None:
    """Return the length of the batch, None for a single pair.

    ``prev`` and ``next_`` are images, batches or prepared frames: what has the shape of one.
    """
    if prev.shape[-2:] != next_.shape[-2:]:
        raise ValueError(
            f"next must have the height and width of prev, {prev.shape[-2:]}. "
            f"Got {next_.shape[-2:]}."
        )
    counts = {frames.shape[0] for frames in (prev, next_) if len(frames.shape) == 3}
    if len(counts) > 1:
        raise ValueError(
            f"next must have as many frames as prev, {prev.shape[0]}. Got {next_.shape[0]}."
        )
    return counts.pop() if counts else None


def check_numbers(
    numbers: Sequence[int] | NDArray[np.integer[Any]] | None, count: int
) -> NDArray[np.int64]:
    """Return the numbers of a stack's frames, rising; 0, 1, … unless given."""
    if numbers is None:
        return np.arange(count, dtype=np.int64)
    taken = np.asarray(numbers)
    if taken.shape != (count,) or taken.dtype.kind not in "iu":
        raise ValueError(
            f"numbers must be {count} integers, one a frame. Got {taken.dtype} {taken.shape}."
        )
    if (taken[1:] <= taken[:-1]).any():
        raise ValueError("numbers must rise from frame to frame.")
    return taken.astype(np.int64)


def check_integer(
    name: str, value: object, *, minimum: int | None = None, maximum: int | None = None
) -> int:
    """Return ``value`` as an int if it is an integer within [minimum, maximum]."""
    if isinstance(value, bool | np.bool) or not isinstance(value, Integral):
        raise ValueError(f"{name} must be an integer. Got {value!r}.")
    _check_limits(name, value, minimum, maximum)
    return int(value)


def check_number(
    name: str,
    value: object,
    *,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> float:
    """Return ``value`` as a float if it is a finite number within the limits.

    ``minimum`` and ``maximum`` are part of the range, ``above`` and ``below`` are not.
    """
    if (
        isinstance(value, bool | np.bool)
        or not isinstance(value, Real)
        or not math.isfinite(number := float(value))
    ):
        raise ValueError(f"{name} must be a finite number. Got {value!r}.")
    _check_limits(name, value, minimum, maximum)
    if above is not None and number <= above:
        raise ValueError(f"{name} must be above {above}. Got {value!r}.")
    if below is not None and number >= below:
        raise ValueError(f"{name} must be below {below}. Got {value!r}.")
    return number


def check_choice(name: str, value: str, options: Collection[str]) -> str:
    """Return ``value`` if it is one of the options."""
    if value not in options:
        raise ValueError(f"{name} must be one of {sorted(options)}. Got {value!r}.")
    return value


@functools.cache
def _dtype_name(dtype: np.dtype[Any]) -> str:
    # NumPy builds the name again each time: 1.6 us, as much as all other checks together.
    return dtype.name


def _is_rounded(dtype: np.dtype[Any], dtypes: Collection[str]) -> bool:
    name = _dtype_name(dtype)
    return name == "float64" and name not in dtypes and "float32" in dtypes and dtype.isnative


def _check_limits(name: str, value: Any, minimum: float | None, maximum: float | None) -> None:
    if minimum is not None and value < minimum:
        raise ValueError(f"{name} must be at least {minimum}. Got {value!r}.")
    if maximum is not None and value > maximum:
        raise ValueError(f"{name} must be at most {maximum}. Got {value!r}.")


def _check_size(
    name: str, shape: tuple[int, ...], size: tuple[int, ...], minimum_size: int
) -> None:
    if min(size) < minimum_size:
        raise ValueError(
            f"{name} must be at least {minimum_size}x{minimum_size} pixels. Got shape {shape}."
        )
