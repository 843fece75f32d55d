"""Dense optical flow by polynomial expansion (Farnebäck 2003), as OpenCV computes it.

`plan` holds what depends on size and parameters alone, `cpu` the compiled steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels import _validate as validate
from apexflow.kernels import simd
from apexflow.kernels.flow_farneback import cpu
from apexflow.kernels.flow_farneback.plan import Floats, Level, gaussian_window, poly_taps, pyramid

__all__ = ["OPTFLOW_FARNEBACK_GAUSSIAN", "FarnebackFrame", "farneback", "prepare_farneback"]

OPTFLOW_FARNEBACK_GAUSSIAN = 256


@dataclass(frozen=True, slots=True)
class Expansion:
    """The parameters of `farneback` that a single frame depends on."""

    pyr_scale: float
    levels: int
    poly_n: int
    poly_sigma: float


@dataclass(frozen=True, slots=True, eq=False)
class FarnebackFrame:
    """A frame whose polynomials are computed, see `prepare_farneback`.

    Attributes
    ----------
    shape : tuple of int
        (H, W) of the image.
    expansion : Expansion
        The parameters; `farneback` must be called with the same.
    coefficients : tuple of ndarray
        For each pyramid level, coarsest first, the local polynomials' factors of y, x, y², x²,
        xy: (h, 5, padded w) float32, laid out as `cpu` says.
    """

    shape: tuple[int, int]
    expansion: Expansion
    coefficients: tuple[Floats, ...]


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
        (H, W) uint8 or float32, finite.
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
    image = validate.check_array("image", image, dtypes=("uint8", "float32"), ndim=(2,))
    return _prepare(image, _check_expansion(pyr_scale, levels, poly_n, poly_sigma))


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
        to 1e9; like OpenCV's, the regularisation is made for gray levels of 0..255.
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
    expansion = _check_expansion(pyr_scale, levels, poly_n, poly_sigma)
    winsize = validate.check_integer("winsize", winsize, minimum=1)
    iterations = validate.check_integer("iterations", iterations, minimum=0)
    if flags not in (0, OPTFLOW_FARNEBACK_GAUSSIAN):
        raise ValueError(
            f"flags must be 0 or OPTFLOW_FARNEBACK_GAUSSIAN ({OPTFLOW_FARNEBACK_GAUSSIAN}). "
            f"Got {flags!r}."
        )
    prev, next_ = _check_frames("prev", prev, expansion), _check_frames("next", next, expansion)
    count = _check_pairs(prev, next_)
    window = gaussian_window(winsize) if flags else np.zeros(0, np.float32)
    built = pyramid(*prev.shape[-2:], expansion.pyr_scale, expansion.levels)
    pairs = islice(zip(*_expanded([prev, next_], expansion, built), strict=False), count or 1)
    flows = [_flow(built, first, second, winsize, window, iterations) for first, second in pairs]
    return np.stack(flows) if count else flows[0]


def _flow(
    levels: tuple[Level, ...],
    first: Iterable[Floats],
    second: Iterable[Floats],
    winsize: int,
    window: Floats,
    iterations: int,
) -> Floats:
    """Refine the flow from level to level, given both frames' coefficients of each."""
    flow, width = np.zeros((2, levels[0].height, levels[0].pitch), np.float32), 0
    for level, a, b in zip(levels, first, second, strict=True):
        if width:
            flow = cpu.enlarge(flow, width, *level.flow_rows, *level.flow_columns)
        width = level.width
        border = level.border, level.border_rows
        if len(window):
            cpu.refine_gaussian(a, b, flow, width, *border, window, iterations)
        else:
            cpu.refine_box(a, b, flow, width, *border, winsize, iterations)
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


def _check_expansion(pyr_scale: float, levels: int, poly_n: int, poly_sigma: float) -> Expansion:
    return Expansion(
        pyr_scale=validate.check_number("pyr_scale", pyr_scale, above=0, below=1),
        levels=validate.check_integer("levels", levels, minimum=0),
        poly_n=validate.check_integer("poly_n", poly_n, minimum=1),
        poly_sigma=validate.check_number("poly_sigma", poly_sigma, minimum=0),
    )


def _check_frames(
    name: str, frames: NDArray[Any] | FarnebackFrame, expansion: Expansion
) -> NDArray[Any] | FarnebackFrame:
    if not isinstance(frames, FarnebackFrame):
        return validate.check_gray(name, frames)
    if frames.expansion != expansion:
        raise ValueError(
            f"{name} must be prepared with the parameters of the call, {expansion}. "
            f"Got {frames.expansion}."
        )
    return frames


def _check_pairs(
    prev: NDArray[Any] | FarnebackFrame, next_: NDArray[Any] | FarnebackFrame
) -> int | None:
    """Return the length of the batch, None for a single pair."""
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
