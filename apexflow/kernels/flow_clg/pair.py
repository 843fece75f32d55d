"""The flow of one pair on the CPU, coarse to fine."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels.confidence import ERROR_OF_ENERGY
from apexflow.kernels.flow_clg import cpu
from apexflow.kernels.flow_clg.arguments import CLGFrame, Solver, level_sizes
from apexflow.kernels.light.gaussian import Floats, gaussian_taps


def prepare(image: NDArray[Any], levels: int) -> CLGFrame:
    """Return an image (H, W) with its pyramid built."""
    images = [image.astype(np.float32, order="C")]
    for _ in level_sizes(image.shape, levels)[1:]:
        images.append(cpu.halve(images[-1]))
    return CLGFrame(image.shape, levels, tuple(images))


def flow_of_pair(first: CLGFrame, second: CLGFrame, solver: Solver, room: Floats) -> Floats:
    """Return the flow (2, H, W)."""
    flow = np.zeros((2, *first.images[-1].shape), np.float32)
    rho = solver.rho / 2 ** (len(first.images) - 1)
    for level in reversed(range(len(first.images))):
        image = first.images[level]
        if flow.shape[1:] != image.shape:
            flow, rho = cpu.double(flow, *image.shape), 2 * rho
        cpu.refine(
            image,
            second.images[level],
            flow,
            room,
            np.float32(solver.alpha),
            gaussian_taps(rho),
            solver.warps,
            solver.max_iterations,
            solver.tolerance,
        )
    return flow


def confidence_of_pair(
    first: CLGFrame, second: CLGFrame, flow: Floats, solver: Solver, room: Floats
) -> Floats:
    """Return the confidence (H, W) in the flow (2, H, W) of a pair."""
    mean, change = cpu.compare(first.images[0], second.images[0], flow, room)
    return confidence_of_fit(mean, change, np.zeros_like(flow), flow, solver, room)


def confidence_of_fit(
    mean: Floats, change: Floats, step: Floats, flow: Floats, solver: Solver, room: Floats
) -> Floats:
    """Return the confidence (H, W) in the flow (2, H, W) that has come by ``step`` from a warp."""
    taps, share = gaussian_taps(solver.rho), np.float32(ERROR_OF_ENERGY / solver.rho)
    sure: Floats = cpu.confidence(
        mean, change, step, flow, room, np.float32(solver.alpha), taps, share
    )
    return sure


def interleaved(flow: Floats) -> Floats:
    """Return a flow (2, H, W) as (H, W, 2)."""
    return np.ascontiguousarray(np.moveaxis(flow, 0, -1))
