"""The arguments of `clg` and `clg_sequence`, checked: what the CPU and the GPU share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels import _validate as validate
from apexflow.kernels.light.arguments import check_gray_levels

# A pyramid level with a side below this is left out.
MIN_SIDE = 16

Array = Any
"""A NumPy array, or a CuPy one."""

Doubles = NDArray[np.float64]

LEAST_ALPHA = 1e-3
_LARGEST_RHO = 1000.0

# Constants of `clg_sequence`, as they were measured on clips with known motion.
MEAN_REACH = 2  # the first flow is drawn between means over this many frames on each side
FIRST_SMOOTHNESS = 2.0  # and, having fewer of them, twice as smooth
FITS = 2  # Gauss-Newton steps for the amplitudes
PRIOR = 1000.0  # an amplitude keeps to 0 or 1 as if that were known within 1 / sqrt(PRIOR)
DEVIATION = 2.2  # the square of 1.4826: a variance is this many squared medians
HOLD = (0.7, 1.5)  # the flow is not scaled further in one go
STILL = 0.35  # frames up to this amplitude make up the reference
MOVED = 0.6  # frames from this amplitude on tell what is left to move
SAMPLING = 2  # the median of the residual is that of every second pixel of every second row
OUTLIER_RHO = 3.0  # where a frame differs from the others, after blurring its difference so,
OUTLIER_LEVELS = 10.0  # by about this much, it loses its say: a blink, not the expression


@dataclass(frozen=True, slots=True, eq=False)
class CLGFrame:
    """A frame whose pyramid is built, see `prepare_clg`.

    Attributes
    ----------
    shape : tuple of int
        (H, W) of the image.
    levels : int
        The parameter; `clg` must be called with the same.
    images : tuple of array
        The image at each level, finest first, float32; where the image was.
    """

    shape: tuple[int, int]
    levels: int
    images: tuple[Array, ...]


class CLGSequence(NamedTuple):
    """What `clg_sequence` returns.

    Attributes
    ----------
    flow : (H, W, 2) float32
        Displacement (x, y) in px from the onset to the apex frame.
    amplitudes : (n,) float32
        Amplitude of the expression in each frame, 0 at the onset and 1 at the apex, before the
        last correction of the flow; NaN where a frame was out of reach.
    confidence : (H, W) float32 or None
        As `clg` returns it; None unless asked for.
    """

    flow: Any
    amplitudes: Any
    confidence: Any = None


Frames = Array | CLGFrame


@dataclass(frozen=True, slots=True)
class Solver:
    """The parameters that apply to a pair."""

    alpha: float
    rho: float
    warps: int
    max_iterations: int
    tolerance: float

    def smoother(self, factor: float) -> Solver:
        """Return the parameters with ``factor`` times the smoothness."""
        return replace(self, alpha=factor * self.alpha)


def level_sizes(shape: Sequence[int], levels: int) -> list[tuple[int, int]]:
    """Return the sizes of the levels of an (..., H, W) image, finest first."""
    height, width = shape[-2:]
    sizes = [(height, width)]
    while len(sizes) < levels:
        height, width = (height + 1) // 2, (width + 1) // 2
        if min(height, width) < MIN_SIDE:
            break
        sizes.append((height, width))
    return sizes


def check_levels(levels: int) -> int:
    """Return the parameter of a frame."""
    return validate.check_integer("levels", levels, minimum=1)


def check_solver(
    *, alpha: float, rho: float, warps: int, max_iterations: int, tolerance: float
) -> Solver:
    """Return the parameters of a pair."""
    return Solver(
        alpha=validate.check_number("alpha", alpha, minimum=LEAST_ALPHA),
        rho=validate.check_number("rho", rho, above=0, maximum=_LARGEST_RHO),
        warps=validate.check_integer("warps", warps, minimum=1),
        max_iterations=validate.check_integer("max_iterations", max_iterations, minimum=1),
        tolerance=validate.check_number("tolerance", tolerance, minimum=0, below=1),
    )


def check_stack(frames: Array) -> Array:
    """Return the frames of a clip, (n, H, W)."""
    frames = check_gray_levels("frames", frames)
    if frames.ndim != 3:
        raise ValueError(f"frames must have 3 dimensions. Got shape {frames.shape}.")
    return frames


def check_image(image: Array) -> Array:
    """Return a single image."""
    image = check_gray_levels("image", image)
    if image.ndim != 2:
        raise ValueError(f"image must have 2 dimensions. Got shape {image.shape}.")
    return image


def check_frames(name: str, frames: Frames, levels: int) -> Frames:
    """Return an image, a batch, or a frame that was prepared with the same parameters."""
    if not isinstance(frames, CLGFrame):
        return check_gray_levels(name, frames)
    if frames.levels != levels:
        raise ValueError(
            f"{name} must be prepared with the levels of the call, {levels}. Got {frames.levels}."
        )
    return frames
