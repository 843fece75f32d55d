"""Functions of time on the frames of a clip: the eigenvectors of the path graph they lie on.

Frame after frame is a path graph. The eigenvectors of its Laplacian are cosines, the basis of the
discrete cosine transform, and so are defined between the frames as well:

    f_k(p) = cos(pi k (p + 1/2) / n),   k = 1, …, n - 1,

at position p of n frames, counted from 0. `apexflow.kernels.tim` interpolates with them,
`apexflow.kernels.magnification.eulerian` separates frequencies: f_k has k / (2 n) periods a frame.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Doubles = NDArray[np.float64]


def eigenvectors(positions: ArrayLike, count: int) -> Doubles:
    """Return the n - 1 eigenvectors of n = ``count`` frames, a row a position."""
    p = np.asarray(positions, np.float64)[:, None]
    return np.cos(np.pi / count * (p + 0.5) * np.arange(1, count))
