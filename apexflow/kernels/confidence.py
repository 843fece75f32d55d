"""How sure a flow is, pixel by pixel: a number from 0 to 1, and the error that it stands for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels._validate import check_array

HALF_SURE = 0.05
"""The expected error, in px, of which the confidence is one half."""

ERROR_OF_ENERGY = 0.72
"""The mean square error in parts of the energy over the stiffness, times rho.

Measured where nothing moves, in noise of 2 and of 5 gray levels and light from the side: at rho 8
about .09, for two frames and for many; at rho 4 and 16, for two frames, .15 and .035.
"""

ROUNDING = 5e-7
"""What float32 may make of an eigenvalue that is 0, in parts of the sum of both."""

UNSEEN = 1e-3
"""How little of the smoothness the images may say before the error grows without bound."""


def expected_error(confidence: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """Return the error that the confidence of `clg` or `clg_sequence` stands for.

    Parameters
    ----------
    confidence : ndarray
        float32 or float16, from 0 to 1, of any shape; NumPy or CuPy.

    Returns
    -------
    ndarray
        float32, of the same shape: the root of the mean square length of the flow's error, in
        px; infinite where the confidence is 0.

    Raises
    ------
    ValueError
        When the confidence has another dtype, or lies outside 0 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from apexflow.kernels import expected_error
    >>> expected_error(np.float32([1, 0.5, 0.2])).round(3).tolist()
    [0.0, 0.05, 0.1]
    """
    sure = check_array("confidence", confidence, dtypes=("float32", "float16"), ndim=range(33))
    if sure.size and not (sure.min() >= 0 and sure.max() <= 1):
        raise ValueError(
            f"confidence must lie within 0 and 1. Got {float(sure.min())} to {float(sure.max())}."
        )
    with np.errstate(divide="ignore"):
        ratio = np.float32(1) / sure.astype(np.float32) - np.float32(1)
    error: NDArray[np.float32] = np.float32(HALF_SURE) * np.sqrt(ratio)
    return error
