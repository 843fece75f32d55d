"""The arguments of `farneback`, checked: what the CPU's and the GPU's form share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels import _validate as validate
from apexflow.kernels.flow_farneback.levels import Floats, gaussian_window

OPTFLOW_FARNEBACK_GAUSSIAN = 256


@dataclass(frozen=True, slots=True)
class Expansion:
    """The parameters of `farneback` that a single frame depends on."""

    pyr_scale: float
    levels: int
    poly_n: int
    poly_sigma: float


@dataclass(frozen=True, slots=True, eq=False)
class Averaging:
    """The parameters of `farneback` that a pair depends on.

    Attributes
    ----------
    winsize, iterations : int
        As in `farneback`.
    window : ndarray
        The weights of the Gaussian window, empty for the box.
    """

    winsize: int
    iterations: int
    window: Floats = field(default_factory=lambda: np.zeros(0, np.float32))


@dataclass(frozen=True, slots=True, eq=False)
class FarnebackFrame:
    """A frame whose polynomials are computed, see `prepare_farneback`.

    Attributes
    ----------
    shape : tuple of int
        (H, W) of the image.
    expansion : Expansion
        The parameters; `farneback` must be called with the same.
    coefficients : tuple of arrays
        For each pyramid level, coarsest first, the local polynomials' factors of y, x, y², x²,
        xy, float32. On the CPU (h, 5, padded w), laid out as `cpu` says; on a GPU (1, 5, h, w).
    """

    shape: tuple[int, int]
    expansion: Expansion
    coefficients: tuple[Any, ...]


Frames = NDArray[Any] | FarnebackFrame


def check_expansion(pyr_scale: float, levels: int, poly_n: int, poly_sigma: float) -> Expansion:
    """Return the checked parameters of a frame."""
    return Expansion(
        pyr_scale=validate.check_number("pyr_scale", pyr_scale, above=0, below=1),
        levels=validate.check_integer("levels", levels, minimum=0),
        poly_n=validate.check_integer("poly_n", poly_n, minimum=1),
        poly_sigma=validate.check_number("poly_sigma", poly_sigma, minimum=0),
    )


def check_averaging(winsize: int, iterations: int, flags: int) -> Averaging:
    """Return the checked parameters of a pair."""
    winsize = validate.check_integer("winsize", winsize, minimum=1)
    iterations = validate.check_integer("iterations", iterations, minimum=0)
    if flags not in (0, OPTFLOW_FARNEBACK_GAUSSIAN):
        raise ValueError(
            f"flags must be 0 or OPTFLOW_FARNEBACK_GAUSSIAN ({OPTFLOW_FARNEBACK_GAUSSIAN}). "
            f"Got {flags!r}."
        )
    if flags:
        return Averaging(winsize, iterations, gaussian_window(winsize))
    return Averaging(winsize, iterations)


def check_image(image: NDArray[Any]) -> NDArray[Any]:
    """Return the one image that `prepare_farneback` takes."""
    return validate.check_array("image", image, dtypes=("uint8", "float32"), ndim=(2,))


def check_frames(name: str, frames: Frames, expansion: Expansion) -> Frames:
    """Return images, or a frame that was prepared with the same parameters."""
    if not isinstance(frames, FarnebackFrame):
        return validate.check_gray(name, frames)
    if frames.expansion != expansion:
        raise ValueError(
            f"{name} must be prepared with the parameters of the call, {expansion}. "
            f"Got {frames.expansion}."
        )
    return frames
