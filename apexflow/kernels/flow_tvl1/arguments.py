"""The arguments of `tvl1`, checked: what the CPU's and the GPU's form share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from apexflow.kernels import _validate as validate

# OpenCV builds no pyramid level with a side below this.
MIN_SIDE = 16

Array = Any
"""A NumPy array, or a CuPy one."""


@dataclass(frozen=True, slots=True)
class Pyramid:
    """The parameters of `tvl1` that a single frame depends on."""

    nscales: int
    scale_step: float

    def sizes(self, shape: Sequence[int]) -> list[tuple[int, int]]:
        """Return the sizes of the levels of an (..., H, W) image, finest first."""
        height, width = shape[-2:]
        sizes = [(height, width)]
        while len(sizes) < self.nscales:
            # Python's round and OpenCV's cvRound both take halves to the even number.
            height, width = round(height * self.scale_step), round(width * self.scale_step)
            if min(height, width) < MIN_SIDE:
                break
            sizes.append((height, width))
        return sizes


@dataclass(frozen=True, slots=True)
class Solver:
    """The parameters of `tvl1` that apply to a pair."""

    tau: float
    lambda_: float
    theta: float
    warps: int
    epsilon: float
    inner_iterations: int
    outer_iterations: int
    median_filtering: int
    cubic: float


@dataclass(frozen=True, slots=True, eq=False)
class TVL1Frame:
    """A frame whose pyramid is built, see `prepare_tvl1`.

    Attributes
    ----------
    shape : tuple of int
        (H, W) of the image.
    pyramid : Pyramid
        The parameters; `tvl1` must be called with the same.
    levels : tuple of array
        The image at each level, finest first, float32 of 0 to 255; where the image was.
    """

    shape: tuple[int, int]
    pyramid: Pyramid
    levels: tuple[Array, ...]


Frames = Array | TVL1Frame


def check_pyramid(nscales: int, scale_step: float) -> Pyramid:
    """Return the parameters of a frame."""
    return Pyramid(
        nscales=validate.check_integer("nscales", nscales, minimum=1),
        scale_step=validate.check_number("scale_step", scale_step, above=0, below=1),
    )


def check_solver(
    *,
    tau: float,
    lambda_: float,
    theta: float,
    warps: int,
    epsilon: float,
    inner_iterations: int,
    outer_iterations: int,
    gamma: float,
    median_filtering: int,
    cubic: float,
) -> Solver:
    """Return the parameters of a pair."""
    if validate.check_number("gamma", gamma) != 0:
        raise ValueError(f"gamma must be 0: the illumination term is not computed. Got {gamma!r}.")
    solver = Solver(
        tau=validate.check_number("tau", tau, above=0),
        lambda_=validate.check_number("lambda_", lambda_, above=0),
        theta=validate.check_number("theta", theta, above=0),
        warps=validate.check_integer("warps", warps, minimum=1),
        epsilon=validate.check_number("epsilon", epsilon, minimum=0),
        inner_iterations=validate.check_integer("inner_iterations", inner_iterations, minimum=1),
        outer_iterations=validate.check_integer("outer_iterations", outer_iterations, minimum=1),
        median_filtering=validate.check_integer("median_filtering", median_filtering, minimum=1),
        cubic=validate.check_number("cubic", cubic, minimum=-1, maximum=0),
    )
    if solver.median_filtering not in (1, 3, 5):
        raise ValueError(f"median_filtering must be 1, 3 or 5. Got {median_filtering!r}.")
    return solver


def check_image(image: Array) -> Array:
    """Return a single image."""
    image = validate.check_gray("image", image, minimum_size=MIN_SIDE)
    if image.ndim != 2:
        raise ValueError(f"image must have 2 dimensions. Got shape {image.shape}.")
    return image


def check_frames(name: str, frames: Frames, pyramid: Pyramid) -> Frames:
    """Return an image, a batch, or a frame that was prepared with the same parameters."""
    if not isinstance(frames, TVL1Frame):
        return validate.check_gray(name, frames, minimum_size=MIN_SIDE)
    if frames.pyramid != pyramid:
        raise ValueError(
            f"{name} must be prepared with the parameters of the call, {pyramid}. "
            f"Got {frames.pyramid}."
        )
    return frames


def check_initial_flow(
    flow: Array | None, count: int | None, size: tuple[int, ...]
) -> Array | None:
    """Return the flow to start from as (N, H, W, 2), if there is one."""
    if flow is None:
        return None
    flow = validate.check_flow("initial_flow", flow)
    shape = (*size, 2) if count is None else (count, *size, 2)
    if flow.shape != shape:
        raise ValueError(f"initial_flow must have shape {shape}. Got {flow.shape}.")
    return flow[None] if count is None else flow
