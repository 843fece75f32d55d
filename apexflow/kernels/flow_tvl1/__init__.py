"""Dense optical flow by TV-L1 (Zach et al. 2007), as OpenCV computes it.

This file holds the public functions and the coarse-to-fine pyramid, `cpu` the compiled steps
of one level. `gpu` and ``tvl1.cu`` do both for batches on a GPU; `arguments` is shared.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, repeat
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from apexflow.kernels import gpu as devices
from apexflow.kernels._validate import check_pairs
from apexflow.kernels.flow_tvl1 import cpu
from apexflow.kernels.flow_tvl1.arguments import (
    Frames,
    Pyramid,
    Solver,
    TVL1Frame,
    check_frames,
    check_image,
    check_initial_flow,
    check_pyramid,
    check_solver,
)
from apexflow.kernels.flow_tvl1.cpu import Floats

__all__ = ["TVL1Frame", "prepare_tvl1", "tvl1"]


def prepare_tvl1(image: NDArray[Any], *, nscales: int = 5, scale_step: float = 0.8) -> TVL1Frame:
    """Compute the part of `tvl1` that one frame needs, once for all its pairs.

    Parameters
    ----------
    image : ndarray
        (H, W) uint8 or float32, finite, at least 16x16; NumPy or CuPy.
    nscales, scale_step
        As in `tvl1`.

    Returns
    -------
    TVL1Frame
        To be given to `tvl1` in the place of ``prev`` or ``next``; the flow is the same, to
        the last bit.

    Raises
    ------
    ValueError
        If an argument has a wrong shape, dtype or value.
    """
    image = check_image(image)
    pyramid = check_pyramid(nscales, scale_step)
    if devices.on_device(image=image):
        from apexflow.kernels.flow_tvl1.gpu import prepare as on_gpu

        return on_gpu(image, pyramid, device=devices.cuda_device())
    return _prepare(image, pyramid)


def tvl1(
    prev: NDArray[Any] | TVL1Frame,
    next: NDArray[Any] | TVL1Frame,  # noqa: A002 - OpenCV's name
    *,
    tau: float = 0.25,
    lambda_: float = 0.15,
    theta: float = 0.3,
    nscales: int = 5,
    warps: int = 5,
    epsilon: float = 0.01,
    inner_iterations: int = 30,
    outer_iterations: int = 10,
    scale_step: float = 0.8,
    gamma: float = 0.0,
    median_filtering: int = 5,
    cubic: float = -0.75,
    initial_flow: Floats | None = None,
) -> Floats:
    """Compute the displacement of each pixel from one frame to another.

    The flow minimises the total variation of itself plus the L1 norm of the difference between
    the first and the warped second frame, by a dual method, coarse to fine [1]_ [2]_. Method,
    parameters and defaults are those of ``cv2.optflow.DualTVL1OpticalFlow``. At one scale and
    one warp the flows agree within 1e-4 px. Over all scales the iteration is chaotic:
    differences of rounding grow to hundredths of a pixel at single pixels, as they do between
    two runs of OpenCV on images that differ by 2.5e-4 gray levels. The error against the true
    motion is then the same in the mean.

    Parameters
    ----------
    prev, next : ndarray or TVL1Frame
        (H, W) uint8, or float32 where 1 is white (OpenCV multiplies float images by 255);
        finite, of one size, at least 16x16. Either may have a leading batch axis, (N, H, W);
        the other is then a batch of the same length, or one frame for all. A frame from
        `prepare_tvl1` stands for its image. CuPy arrays are answered in kind, a batch at once.
    tau : float
        Time step of the dual method.
    lambda_ : float
        Weight of the data term: smaller is smoother.
    theta : float
        Tightness of the coupling between the two terms.
    nscales : int
        Number of pyramid levels; levels with a side below 16 px are left out.
    warps : int
        How often a level warps the second frame again.
    epsilon : float
        A warp ends when the flow's mean squared change in an iteration is at most epsilon².
    inner_iterations, outer_iterations : int
        The most iterations between two medians, and the most medians, in a warp.
    scale_step : float
        Size of a pyramid level relative to the next finer one, between 0 and 1.
    gamma : float
        OpenCV's weight of changing illumination: only 0, its default, is computed.
    median_filtering : int
        Side of the median filter of the flow: 3 or 5 px; 1 for none.
    cubic : float
        Parameter A of the cubic interpolation that warps the second frame [3]_, from -1 to 0.
        -.75 is OpenCV's: it does not reproduce a ramp, so that a shift of .10 px is measured
        .026 px short, one of .25 px .043 px. -.5 does: at most .004 px short.
    initial_flow : ndarray, optional
        (H, W, 2) or (N, H, W, 2) float32: the flow to start from, in place of OpenCV's
        ``useInitialFlow``. Not written to.

    Returns
    -------
    ndarray
        (H, W, 2), or (N, H, W, 2) for a batch, float32: displacement (x, y) in px, such that
        ``prev[y, x]`` is found at ``next[y + flow[y, x, 1], x + flow[y, x, 0]]``.

    Raises
    ------
    ValueError
        If an argument has a wrong shape, dtype or value, or if a prepared frame was prepared
        with other parameters.
    TypeError
        If some of ``prev``, ``next`` and ``initial_flow`` are NumPy's and some CuPy's.

    References
    ----------
    .. [1] C. Zach, T. Pock, H. Bischof, "A duality based approach for realtime TV-L1 optical
       flow", DAGM 2007. https://doi.org/10.1007/978-3-540-74936-3_22
    .. [2] J. Sánchez Pérez, E. Meinhardt-Llopis, G. Facciolo, "TV-L1 optical flow
       estimation", Image Processing On Line 3, 2013. https://doi.org/10.5201/ipol.2013.26
    .. [3] R. Keys, "Cubic convolution interpolation for digital image processing", IEEE
       Transactions on Acoustics, Speech, and Signal Processing 29, 1981.
       https://doi.org/10.1109/TASSP.1981.1163711

    Examples
    --------
    >>> import numpy as np
    >>> from apexflow.kernels import tvl1
    >>> y, x = np.mgrid[:64, :64].astype(np.float32)
    >>> wave = lambda x: 0.5 + 0.2 * np.sin(x / 4) * np.cos(y / 5)
    >>> flow = tvl1(wave(x), wave(x - 0.5))
    >>> flow.shape, bool(abs(flow[16:-16, 16:-16] - (0.5, 0)).max() < 0.1)
    ((64, 64, 2), True)
    """
    solver = check_solver(
        tau=tau,
        lambda_=lambda_,
        theta=theta,
        warps=warps,
        epsilon=epsilon,
        inner_iterations=inner_iterations,
        outer_iterations=outer_iterations,
        gamma=gamma,
        median_filtering=median_filtering,
        cubic=cubic,
    )
    pyramid = check_pyramid(nscales, scale_step)
    prev, next_ = check_frames("prev", prev, pyramid), check_frames("next", next, pyramid)
    count = check_pairs(prev, next_)
    start = check_initial_flow(initial_flow, count, prev.shape[-2:])
    if devices.on_device(prev=_array(prev), next=_array(next_), initial_flow=start):
        from apexflow.kernels.flow_tvl1.gpu import tvl1 as on_gpu

        return on_gpu(prev, next_, start, count, pyramid, solver, device=devices.cuda_device())
    workspace = cpu.workspace(*prev.shape[-2:])
    starts = repeat(None) if start is None else start
    flows = [
        _flow(first, second, first_flow, solver, workspace)
        for first, second, first_flow in islice(
            zip(_prepared(prev, pyramid), _prepared(next_, pyramid), starts, strict=False),
            count or 1,
        )
    ]
    return np.stack(flows) if count else flows[0]


def _flow(
    first: TVL1Frame, second: TVL1Frame, start: Floats | None, solver: Solver, workspace: Floats
) -> Floats:
    step = first.pyramid.scale_step
    flow = _coarsest(start, first, step)
    coarsest = first.levels[-1]
    for previous, following in zip(reversed(first.levels), reversed(second.levels), strict=True):
        if previous is not coarsest:
            flow = _enlarged(flow, previous.shape, step)
        cpu.refine(
            previous,
            following,
            flow,
            workspace,
            solver.tau,
            solver.lambda_,
            solver.theta,
            solver.warps,
            solver.epsilon,
            solver.inner_iterations,
            solver.outer_iterations,
            solver.median_filtering,
            solver.cubic,
        )
    return np.ascontiguousarray(np.moveaxis(flow, 0, -1))


def _coarsest(start: Floats | None, frame: TVL1Frame, step: float) -> Floats:
    """Return the (2, H, W) flow that the coarsest level starts from."""
    if start is None:
        return np.zeros((2, *frame.levels[-1].shape), np.float32)
    flow = np.moveaxis(start, -1, 0).copy()
    for _ in frame.levels[1:]:
        flow = np.stack([_reduced(plane, step) for plane in flow]) * np.float32(step)
    return flow


def _reduced(image: Floats, step: float) -> Floats:
    """Return the next coarser level; the step, not the ratio of the sizes, spaces the samples."""
    return np.asarray(cv2.resize(image, None, fx=step, fy=step, interpolation=cv2.INTER_LINEAR))


def _enlarged(flow: Floats, size: tuple[int, ...], step: float) -> Floats:
    """Return the flow of a level for the next finer one, of this size."""
    planes = [cv2.resize(plane, size[::-1], interpolation=cv2.INTER_LINEAR) for plane in flow]
    return np.stack(planes) * np.float32(1 / step)


def _array(frames: Frames) -> Any:
    return frames.levels[0] if isinstance(frames, TVL1Frame) else frames


def _prepare(image: NDArray[Any], pyramid: Pyramid) -> TVL1Frame:
    white = np.float32(1 if image.dtype == np.uint8 else 255)
    images = [image.astype(np.float32, order="C") * white]
    for _ in pyramid.sizes(image.shape)[1:]:
        images.append(_reduced(images[-1], pyramid.scale_step))
    return TVL1Frame(image.shape, pyramid, tuple(images))


def _prepared(frames: TVL1Frame | NDArray[Any], pyramid: Pyramid) -> Iterator[TVL1Frame]:
    """Yield the prepared frames of a batch one by one, a single frame for ever."""
    if isinstance(frames, TVL1Frame):
        return repeat(frames)
    if frames.ndim == 2:
        return repeat(_prepare(frames, pyramid))
    return (_prepare(frame, pyramid) for frame in frames)
