"""Temporal interpolation: the frames of a clip as so many others, evenly spaced in time.

The temporal interpolation model (TIM) of Zhou, Zhao and Pietikäinen [1]_. The frames are the
vertices of a path graph; a linear map, found with a singular value decomposition of all pixels,
leads from its eigenvectors to the frames, and from any point on their curves to a frame between.
Since the n - 1 eigenvectors and the mean span all functions on n vertices, that map is unique, and
the whole model is one matrix of weights that no pixel enters:

    W(p, i) = 1 / n + 2 / n * sum over k of f_k(p) f_k(i)

(`apexflow.kernels.path_graph` has f_k). Nothing is decomposed, no frame has to differ from the
others, which the published equations need, and memory is that of the frames and the result.

References
----------
.. [1] Z. Zhou, G. Zhao, M. Pietikäinen, "Towards a practical lipreading system", CVPR 2011.
   https://doi.org/10.1109/CVPR.2011.5995347
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels._validate import check_array, check_integer, check_numbers
from apexflow.kernels.path_graph import Doubles, eigenvectors

_AT_A_TIME = 1 << 20  # numbers of all frames together, as float32: what a core's cache holds


def interpolated_numbers(numbers: Sequence[int] | NDArray[np.integer[Any]], n: int) -> Doubles:
    """Return the frame numbers, with fractions, of the frames that `interpolate_frames` makes.

    (n,) float64, evenly spaced from the first number to the last; of one frame the middle.
    """
    first, last = float(numbers[0]), float(numbers[-1])
    return np.linspace(first, last, n) if n > 1 else np.array([(first + last) / 2])


def interpolate_frames(
    frames: NDArray[Any],
    n: int,
    *,
    numbers: Sequence[int] | NDArray[np.integer[Any]] | None = None,
) -> NDArray[Any]:
    """Return a clip as n frames, evenly spaced from its first frame to its last.

    The temporal interpolation model [1]_, in closed form: each new frame is a weighted sum of
    all frames. Where a new frame falls on an original one it is that frame, to the bit; as many
    frames as there are give back the clip. One frame stands for n equal ones; of n = 1 the frame
    is that in the middle of the time.

    Parameters
    ----------
    frames : (m, …) ndarray
        uint8 or float32, finite: gray or colour frames, or anything else measured m times. An
        array that is mapped from disk is read a part of each frame at a time.
    n : int
        How many frames to return, more or fewer than m.
    numbers : sequence of m int, optional
        The number of each frame, rising, where frames are missing: time is counted by them. The
        path graph knows no gap, so that the curve between the two frames beside one is the same.

    Returns
    -------
    (n, …) ndarray
        Of the dtype of the frames; uint8 rounded, and held within 0 and 255. Between frames the
        curve may leave their range, as any that is smooth.

    Raises
    ------
    ValueError
        If an argument has a wrong shape, dtype or value.

    References
    ----------
    .. [1] Z. Zhou, G. Zhao, M. Pietikäinen, "Towards a practical lipreading system", CVPR 2011.
       https://doi.org/10.1109/CVPR.2011.5995347

    Examples
    --------
    >>> import numpy as np
    >>> from apexflow.kernels import interpolate_frames
    >>> frames = np.linspace(100, 180, 5, dtype=np.float32).reshape(5, 1, 1) * np.ones((1, 8, 8))
    >>> interpolate_frames(frames, 9)[:, 0, 0].round().tolist()
    [100.0, 109.0, 120.0, 131.0, 140.0, 149.0, 160.0, 171.0, 180.0]
    """
    frames = check_array("frames", frames, dtypes=("uint8", "float32"), ndim=(2, 3, 4, 5))
    n = check_integer("n", n, minimum=1)
    taken = check_numbers(numbers, len(frames))
    positions = np.interp(interpolated_numbers(taken, n), taken, np.arange(len(frames)))
    weights = interpolation_weights(positions, len(frames)).astype(np.float32)
    result = np.empty((n, *frames.shape[1:]), frames.dtype)
    pixels, made = frames.reshape(len(frames), -1), result.reshape(n, -1)
    step = max(1, _AT_A_TIME // len(frames))
    for start in range(0, pixels.shape[1], step):
        part = slice(start, start + step)
        # Not by BLAS, whose threads may round otherwise from run to run; it is no faster.
        sums = np.einsum("pi,ix->px", weights, pixels[:, part].astype(np.float32))
        made[:, part] = sums if frames.dtype != np.uint8 else sums.round().clip(0, 255)
    return result


def interpolation_weights(positions: Doubles, count: int) -> Doubles:
    """Return the weights (len(positions), count) of frames in the frames at positions from 0 on.

    Each row sums to 1. At a whole position it is that frame's alone.
    """
    whole = positions.round()
    at_frame = abs(positions - whole) < 1e-9  # frames: what is left of the rounding of times
    between = eigenvectors(positions, count), eigenvectors(np.arange(count), count)
    weights = 1 / count + 2 / count * np.einsum("pk,ik->pi", *between)
    weights[at_frame] = whole[at_frame, None] == np.arange(count)
    return weights
