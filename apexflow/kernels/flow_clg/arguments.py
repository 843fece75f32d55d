"""The arguments of `clg` and `clg_sequence`, checked: what the CPU and the GPU share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from apexflow.kernels import _validate as validate
from apexflow.kernels.light.arguments import check_gray_levels

# A pyramid level with a side below this is left out.
MIN_SIDE = 16

Array = Any
"""A NumPy array, or a CuPy one."""

LEAST_ALPHA = 1e-3
_LARGEST_RHO = 1000.0


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
