"""Dense optical flow by the combined local-global method (Bruhn et al. 2005).

This file holds the public functions of a pair, `pair` the coarse-to-fine pyramid, `cpu` the
compiled steps of one level; `sequence` draws one flow from many frames with the compiled steps
in `stack`. `gpu` and ``clg.cu`` do the same for batches on a GPU; `arguments` is shared.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice, repeat
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels import gpu as devices
from apexflow.kernels._validate import check_pairs
from apexflow.kernels.flow_clg import cpu
from apexflow.kernels.flow_clg.arguments import (
    CLGFrame,
    CLGSequence,
    Frames,
    check_frames,
    check_image,
    check_levels,
    check_solver,
)
from apexflow.kernels.flow_clg.pair import (
    confidence_of_pair,
    flow_of_pair,
    interleaved,
    prepare,
)
from apexflow.kernels.flow_clg.sequence import clg_sequence
from apexflow.kernels.light.gaussian import Floats

__all__ = ["CLGFrame", "CLGSequence", "clg", "clg_sequence", "prepare_clg"]


def prepare_clg(image: NDArray[Any], *, levels: int = 3) -> CLGFrame:
    """Compute the part of `clg` that one frame needs, once for all its pairs.

    Parameters
    ----------
    image : ndarray
        (H, W) uint8 or float32 within +-1e6, finite; NumPy or CuPy.
    levels
        As in `clg`.

    Returns
    -------
    CLGFrame
        To be given to `clg` in the place of ``prev`` or ``next``; the flow is the same, to the
        last bit.

    Raises
    ------
    ValueError
        If an argument has a wrong shape, dtype or value.
    """
    image, levels = check_image(image), check_levels(levels)
    if devices.on_device(image=image):
        from apexflow.kernels.flow_clg import gpu

        return gpu.prepare(image, levels, device=devices.cuda_device())
    return prepare(image, levels)


@overload
def clg(
    prev: NDArray[Any] | CLGFrame,
    next: NDArray[Any] | CLGFrame,
    *,
    alpha: float = ...,
    rho: float = ...,
    levels: int = ...,
    warps: int = ...,
    max_iterations: int = ...,
    tolerance: float = ...,
    confidence: Literal[False] = ...,
) -> Floats: ...


@overload
def clg(
    prev: NDArray[Any] | CLGFrame,
    next: NDArray[Any] | CLGFrame,
    *,
    alpha: float = ...,
    rho: float = ...,
    levels: int = ...,
    warps: int = ...,
    max_iterations: int = ...,
    tolerance: float = ...,
    confidence: Literal[True],
) -> tuple[Floats, Floats]: ...


@overload
def clg(
    prev: NDArray[Any] | CLGFrame,
    next: NDArray[Any] | CLGFrame,
    *,
    alpha: float = ...,
    rho: float = ...,
    levels: int = ...,
    warps: int = ...,
    max_iterations: int = ...,
    tolerance: float = ...,
    confidence: bool = ...,
) -> Floats | tuple[Floats, Floats]: ...


def clg(
    prev: NDArray[Any] | CLGFrame,
    next: NDArray[Any] | CLGFrame,  # noqa: A002 - OpenCV's name
    *,
    alpha: float = 100.0,
    rho: float = 8.0,
    levels: int = 3,
    warps: int = 2,
    max_iterations: int = 40,
    tolerance: float = 1e-3,
    confidence: bool = False,
) -> Floats | tuple[Floats, Floats]:
    """Compute the displacement of each pixel from one frame to another.

    The combined local-global method [1]_: the equations of Lucas and Kanade, averaged over a
    Gaussian neighbourhood, under the smoothness term of Horn and Schunck, coarse to fine. With
    A the first and W the second image warped by the present flow f, g the slopes of (A + W) / 2
    and G the Gaussian, each warp solves

        (J - alpha Laplacian) f' = J f - b,   J = G * (g gᵀ),   b = G * (g (W - A))

    for the new flow f'. The averaging makes it stand noise; all terms being quadratic, it is
    linear and stable: a change of 2.5e-4 gray levels moves the flow by less than 1e-4 px. It
    takes brightness as constant: give it images from `normalize_light`, whose contrast the
    defaults are made for.

    Parameters
    ----------
    prev, next : ndarray or CLGFrame
        (H, W) uint8, or float32 within +-1e6, finite, of one size. Either may have a leading
        batch axis, (N, H, W); the other is then a batch of the same length, or one frame for
        all. A frame from `prepare_clg` stands for its image. CuPy arrays are answered in kind,
        a batch at once.
    alpha : float
        Weight of smoothness, in squared gray levels, at least .001: larger is smoother.
    rho : float
        Standard deviation in px of the Gaussian, cut off at 4 rho; at each coarser level half
        of the one before. Beyond the image it sees what lies inside, mirrored.
    levels : int
        Number of pyramid levels, each half the size of the one before (means of 2 x 2 pixels);
        levels with a side below 16 px are left out.
    warps : int
        How often a level warps the second frame and solves, by Catmull and Rom's cubic [2]_.
        Beyond the image its edge is repeated.
    max_iterations : int
        Steps of conjugate gradients that a solution takes at most.
    tolerance : float
        It takes fewer when the residual is at most this part of the right side. On faces
        224 px high the defaults stop within .001 px of the exact solution in the mean, within
        .02 px everywhere.
    confidence : bool
        Whether to return the confidence as well.

    Returns
    -------
    flow : ndarray
        (H, W, 2), or (N, H, W, 2) for a batch, float32: displacement (x, y) in px, such that
        ``prev[y, x]`` is found at ``next[y + flow[y, x, 1], x + flow[y, x, 0]]``.
    confidence : ndarray
        Only if asked for: (H, W) or (N, H, W) float32, 1 / (1 + (e / .05)²) with e the error that
        is to be expected of the flow, in px: `expected_error` gives it back. It comes from the
        energy that is left at the pixel [3]_,

            e² = .72 / rho (G * (W - A)² + alpha |grad f|²) / (s + alpha) + .05² alpha / (1000 s)

        with s the smaller eigenvalue of J: what the images did not come to agree on, how much
        the flow bends, and how little there is to see. 0 where the images say nothing about the
        flow in at least one direction, so that it was filled in from around.

    Raises
    ------
    ValueError
        If an argument has a wrong shape, dtype or value, or if a prepared frame was prepared
        with other parameters.
    TypeError
        If one of ``prev`` and ``next`` is NumPy's and the other CuPy's.

    References
    ----------
    .. [1] A. Bruhn, J. Weickert, C. Schnörr, "Lucas/Kanade meets Horn/Schunck: combining local
       and global optic flow methods", IJCV 61, 2005.
       https://doi.org/10.1023/B:VISI.0000045324.43199.43
    .. [2] R. Keys, "Cubic convolution interpolation for digital image processing", IEEE
       Transactions on Acoustics, Speech, and Signal Processing 29, 1981.
       https://doi.org/10.1109/TASSP.1981.1163711
    .. [3] A. Bruhn, J. Weickert, "A confidence measure for variational optic flow methods", in
       Geometric Properties for Incomplete Data, 2006.
       https://doi.org/10.1007/1-4020-3858-8_15

    Examples
    --------
    >>> import numpy as np
    >>> from apexflow.kernels import clg
    >>> y, x = np.mgrid[:64, :64].astype(np.float32)
    >>> wave = lambda x: 100 + 50 * np.sin(x / 4) * np.cos(y / 5)
    >>> flow = clg(wave(x), wave(x - 0.5))
    >>> flow.shape, bool(abs(flow - (0.5, 0)).max() < 0.1)
    ((64, 64, 2), True)
    """
    solver = check_solver(
        alpha=alpha, rho=rho, warps=warps, max_iterations=max_iterations, tolerance=tolerance
    )
    levels = check_levels(levels)
    prev, next_ = check_frames("prev", prev, levels), check_frames("next", next, levels)
    count = check_pairs(prev, next_)
    if devices.on_device(prev=_array(prev), next=_array(next_)):
        from apexflow.kernels.flow_clg import gpu

        device = devices.cuda_device()
        results = gpu.clg(prev, next_, count, levels, solver, confidence, device=device)
        return results if confidence else results[0]
    room = cpu.workspace(*prev.shape[-2:])
    flows, sures = [], []
    pairs = zip(_prepared(prev, levels), _prepared(next_, levels), strict=False)
    for first, second in islice(pairs, count or 1):
        found = flow_of_pair(first, second, solver, room)
        flows.append(interleaved(found))
        if confidence:
            sures.append(confidence_of_pair(first, second, found, solver, room))
    flow = np.stack(flows) if count else flows[0]
    if not confidence:
        return flow
    return flow, np.stack(sures) if count else sures[0]


def _array(frames: Frames) -> Any:
    return frames.images[0] if isinstance(frames, CLGFrame) else frames


def _prepared(frames: Frames, levels: int) -> Iterator[CLGFrame]:
    """Yield the prepared frames of a batch one by one, a single frame for ever."""
    if isinstance(frames, CLGFrame):
        return repeat(frames)
    if frames.ndim == 2:
        return repeat(prepare(frames, levels))
    return (prepare(frame, levels) for frame in frames)
