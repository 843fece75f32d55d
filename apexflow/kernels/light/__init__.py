"""Local normalisation: what changes with the light is taken out of an image.

`cpu` is the compiled form, `gpu` and ``light.cu`` the same for batches on a GPU, `gaussian` the
average over a neighbourhood that this and the flow share.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels import gpu as devices
from apexflow.kernels._validate import check_number
from apexflow.kernels.light import cpu
from apexflow.kernels.light.arguments import check_gray_levels
from apexflow.kernels.light.gaussian import gaussian_taps

__all__ = ["normalize_light"]

_LARGEST_SIGMA = 1000.0
_LEAST_EPSILON = 1e-3


def normalize_light(
    images: NDArray[Any], *, sigma: float = 8.0, epsilon: float = 4.0
) -> NDArray[np.float32]:
    """Return images whose local mean is 0 and whose local contrast is the same everywhere.

    With G the average over a Gaussian neighbourhood and D = I - G * I, the result is
    20 D / (sqrt(G * D²) + epsilon): the brightness of a neighbourhood is subtracted and what is
    left is divided by its standard deviation, as in the normalisation of local contrast of
    [1]_. Light that comes and goes, or wanders over a face, changes gray levels by far more
    than a small motion does, but hardly the result; the factor 20 gives it about the contrast
    of a face in gray levels, so that a flow's weights keep their meaning.

    Parameters
    ----------
    images : ndarray
        (H, W) uint8 or float32, or a batch (N, H, W) of them; finite; NumPy or CuPy. Gray
        levels of 0 to 255; float32 ones may reach +-1e6.
    sigma : float
        Standard deviation of the Gaussian in px, of 5 to 8 for faces 224 px high. The Gaussian
        is cut off at 4 sigma; beyond the image it sees what lies inside, mirrored at the border
        pixels.
    epsilon : float
        In gray levels: a contrast far below it is taken for noise and stays low. At
        least .001.

    Returns
    -------
    ndarray
        float32, of the shape of the images; CuPy's for CuPy's.

    Raises
    ------
    ValueError
        If an argument has a wrong shape, dtype or value.

    References
    ----------
    .. [1] K. Jarrett, K. Kavukcuoglu, M. Ranzato, Y. LeCun, "What is the best multi-stage
       architecture for object recognition?", ICCV 2009.
       https://doi.org/10.1109/ICCV.2009.5459469

    Examples
    --------
    >>> import numpy as np
    >>> from apexflow.kernels import normalize_light
    >>> y, x = np.mgrid[:64, :64]
    >>> face = (100 + 30 * np.sin(x / 3) * np.cos(y / 4)).astype(np.float32)
    >>> shade = np.linspace(0.9, 1.1, 64, dtype=np.float32)
    >>> difference = normalize_light(face) - normalize_light(face * shade)
    >>> bool((face - face * shade).std() > 5), bool(difference.std() < 1)
    (True, True)
    """
    images = check_gray_levels("images", images)
    sigma = check_number("sigma", sigma, above=0, maximum=_LARGEST_SIGMA)
    epsilon = check_number("epsilon", epsilon, minimum=_LEAST_EPSILON)
    taps, addend = gaussian_taps(sigma), np.float32(epsilon)
    if devices.on_device(images=images):
        from apexflow.kernels.light import gpu

        return gpu.normalize(images, taps, addend, device=devices.cuda_device())
    batch = images.reshape(-1, *images.shape[-2:])
    normalized = np.empty(batch.shape, np.float32)
    for image, result in zip(batch, normalized, strict=True):
        cpu.normalize(np.require(image, np.float32, ["C", "W"]), taps, addend, result)
    return normalized.reshape(images.shape)
