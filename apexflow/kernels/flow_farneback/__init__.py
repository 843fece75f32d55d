"""Dense optical flow by polynomial expansion (Farnebäck 2003), as OpenCV computes it.

`levels` holds what depends on size and parameters alone, `arguments` the checks, `cpu` the compiled
steps; `gpu` and ``farneback.cu`` are the same steps for batches on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels import gpu as devices
from apexflow.kernels import simd
from apexflow.kernels._validate import check_pairs
from apexflow.kernels.flow_farneback import cpu
from apexflow.kernels.flow_farneback.arguments import (
    OPTFLOW_FARNEBACK_GAUSSIAN,
    Averaging,
    Expansion,
    FarnebackFrame,
    check_averaging,
    check_expansion,
    check_frames,
    check_image,
)
from apexflow.kernels.flow_farneback.levels import Floats, Level, poly_taps, pyramid

__all__ = ["OPTFLOW_FARNEBACK_GAUSSIAN", "FarnebackFrame", "farneback", "prepare_farneback"]


def prepare_farneback(
    image: NDArray[Any],
    *,
    pyr_scale: float = 0.5,
    levels: int = 3,
    poly_n: int = 5,
    poly_sigma: float = 1.2,
) -> FarnebackFrame:
    """Compute the part of `farneback` that one frame needs, once for all its pairs.

    Parameters
    ----------
    image : ndarray
        (H, W) uint8 or float32, finite; NumPy or CuPy.
    pyr_scale, levels, poly_n, poly_sigma
        As in `farneback`.

    Returns
    -------
    FarnebackFrame
        To be given to `farneback` in the place of ``prev`` or ``next``; the flow is the same,
        to the last bit.

    Raises
    ------
    ValueError
        If an argument has a wrong shape, dtype or value.
    """
    image = check_image(image)
    expansion = check_expansion(pyr_scale, levels, poly_n, poly_sigma)
    if devices.on_device(image=image):
        from apexflow.kernels.flow_farneback.gpu import prepare as on_gpu

        return on_gpu(image, expansion, device=devices.cuda_device())
    return _prepare(image, expansion)


def farneback(
    prev: NDArray[Any] | FarnebackFrame,
    next: NDArray[Any] | FarnebackFrame,  # noqa: A002 - OpenCV's name
    *,
    pyr_scale: float = 0.5,
    levels: int = 3,
    winsize: int = 15,
    iterations: int = 3,
    poly_n: int = 5,
    poly_sigma: float = 1.2,
    flags: int = 0,
) -> Floats:
    """Compute the displacement of each pixel from one frame to another.

    Each neighbourhood is approximated by a quadratic polynomial; how the polynomial changed
    gives two linear equations for the displacement, which are averaged over a window and
    solved, coarse to fine [1]_. The result is that of ``cv2.calcOpticalFlowFarneback``
    within 1e-3 px (1e-2 px with the Gaussian window).

    Parameters
    ----------
    prev, next : ndarray or FarnebackFrame
        (H, W) uint8 or float32, finite, of one size. Either may have a leading batch axis,
        (N, H, W); the other is then a batch of the same length, or one frame for all. A frame
        from `prepare_farneback` stands for its image. float32 values may be of any scale up
        to 1e9; like OpenCV's, the regularisation is made for gray levels of 0..255. CuPy arrays
        are answered in kind, a batch at once.
    pyr_scale : float
        Size of a pyramid level relative to the next finer one, between 0 and 1.
    levels : int
        Number of reduced levels; levels with a side below 32 px are left out.
    winsize : int
        Side of the averaging window in px; the window spans ``winsize // 2`` px to each side.
    iterations : int
        Iterations at each level; 0 gives zero flow.
    poly_n : int
        The polynomial is fitted to ``2 * poly_n + 1`` px squared. (OpenCV's documentation
        calls it the size of the neighbourhood; its code, like this, takes it as the radius.)
    poly_sigma : float
        Standard deviation in px of the fit's Gaussian weights; ``0.3 * poly_n`` when 0.
    flags : int
        0 for a box window, `OPTFLOW_FARNEBACK_GAUSSIAN` (256) for a Gaussian one.

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
        If one of ``prev`` and ``next`` is NumPy's and the other CuPy's.

    Notes
    -----
    OpenCV treats what the flow moves beyond the border differently from what stays inside, and
    a pixel of the border does either by the sign of its flow. Where nothing moves this is the
    sign of a rounding error; such pixels, and what the window carries on from them, differ
    from OpenCV as OpenCV's flow differs after a change of 1e-4 gray levels. The same is true
    of patterns without a second direction, such as slanted stripes.

    References
    ----------
    .. [1] G. Farnebäck, "Two-frame motion estimation based on polynomial expansion",
       SCIA 2003. https://doi.org/10.1007/3-540-45103-X_50

    Examples
    --------
    >>> import numpy as np
    >>> from apexflow.kernels import farneback
    >>> y, x = np.mgrid[:64, :64].astype(np.float32)
    >>> wave = lambda x: 100 + 50 * np.sin(x / 4) * np.cos(y / 5)
    >>> flow = farneback(wave(x), wave(x - 0.5))
    >>> flow.shape, bool(abs(flow[16:-16, 16:-16] - (0.5, 0)).max() < 0.05)
    ((64, 64, 2), True)
    """
    expansion = check_expansion(pyr_scale, levels, poly_n, poly_sigma)
    averaging = check_averaging(winsize, iterations, flags)
    prev, next_ = check_frames("prev", prev, expansion), check_frames("next", next, expansion)
    count = check_pairs(prev, next_)
    if devices.on_device(prev=_array(prev), next=_array(next_)):
        from apexflow.kernels.flow_farneback.gpu import farneback as on_gpu

        return on_gpu(prev, next_, expansion, averaging, device=devices.cuda_device())
    built = pyramid(*prev.shape[-2:], expansion.pyr_scale, expansion.levels)
    pairs = islice(zip(*_expanded([prev, next_], expansion, built), strict=False), count or 1)
    flows = [_flow(built, first, second, averaging) for first, second in pairs]
    return np.stack(flows) if count else flows[0]


def _array(frames: NDArray[Any] | FarnebackFrame) -> Any:
    """Return the array that tells where frames are."""
    return frames.coefficients[0] if isinstance(frames, FarnebackFrame) else frames


def _flow(
    levels: tuple[Level, ...],
    first: Iterable[Floats],
    second: Iterable[Floats],
    averaging: Averaging,
) -> Floats:
    """Refine the flow from level to level, given both frames' coefficients of each."""
    window, iterations = averaging.window, averaging.iterations
    flow, width = np.zeros((2, levels[0].height, levels[0].pitch), np.float32), 0
    for level, a, b in zip(levels, first, second, strict=True):
        if width:
            flow = cpu.enlarge(flow, width, *level.flow_rows, *level.flow_columns)
        width = level.width
        border = level.border, level.border_rows
        if len(window):
            cpu.refine_gaussian(a, b, flow, width, *border, window, iterations)
        else:
            cpu.refine_box(a, b, flow, width, *border, averaging.winsize, iterations)
    return cpu.interleave(flow, width)


def _expanded(
    inputs: Sequence[FarnebackFrame | NDArray[Any]], expansion: Expansion, levels: tuple[Level, ...]
) -> list[Iterator[Iterable[Floats]]]:
    """For each input, iterate over its frames' coefficients; a single frame is repeated.

    A frame that is used once is expanded level by level in one place. The places are one
    allocation: several of a megabyte each would go back to the system after each call, and
    getting them again costs as much as the flow itself.
    """
    size = levels[-1].storage
    storage = simd.aligned(len(inputs) * size)
    places = (storage[i * size : (i + 1) * size] for i in range(len(inputs)))
    once = all(len(frames.shape) == 2 for frames in inputs)
    return [_frames(*pair, expansion, levels, once) for pair in zip(inputs, places, strict=True)]


def _frames(
    frames: FarnebackFrame | NDArray[Any],
    place: Floats,
    expansion: Expansion,
    levels: tuple[Level, ...],
    once: bool,
) -> Iterator[Iterable[Floats]]:
    if isinstance(frames, FarnebackFrame):
        return repeat(frames.coefficients)
    if frames.ndim == 2 and not once:
        return repeat(_prepare(frames, expansion).coefficients)
    images = frames.reshape(-1, *frames.shape[-2:])
    return (_expand(image, expansion, levels, repeat(place)) for image in images)


def _prepare(image: NDArray[Any], expansion: Expansion) -> FarnebackFrame:
    levels = pyramid(*image.shape, expansion.pyr_scale, expansion.levels)
    places = (simd.aligned(level.storage) for level in levels)
    coefficients = tuple(_expand(image, expansion, levels, places))
    return FarnebackFrame(image.shape, expansion, coefficients)


def _expand(
    image: NDArray[Any],
    expansion: Expansion,
    levels: tuple[Level, ...],
    places: Iterator[Floats],
) -> Iterator[Floats]:
    """Yield the coefficients of each level, coarsest first, each in the next place."""
    taps = poly_taps(expansion.poly_n, expansion.poly_sigma)
    pixels = simd.aligned(levels[-1].height * levels[-1].pitch).reshape(len(image), -1)
    pixels[:, : image.shape[1]] = image
    for level in levels:
        if level is levels[-1]:
            reduced = cpu.blur(pixels, level.width)
        else:
            reduced = cpu.reduce(pixels, image.shape[1], *level.rows, *level.columns)
        coefficients = level.coefficients(next(places))
        cpu.expand(reduced, level.width, *taps, coefficients)
        yield coefficients
