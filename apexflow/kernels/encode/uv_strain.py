"""The two components of a flow and its optical strain as three channels."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels._validate import check_choice
from apexflow.kernels.encode.dispatch import encoded
from apexflow.kernels.encode.scaling import (
    SHEAR_WEIGHT,
    STRAIN_LENGTH,
    Floats,
    Size,
    check_least,
    check_limit,
    check_normalize,
    check_size,
    resized,
    stretched_bytes,
    unsigned_bytes,
)
from apexflow.kernels.encode.strain import optical_strain
from apexflow.kernels.encode.uv import component_bytes


def encode_uv_strain(
    flow: NDArray[np.float32],
    size: tuple[int, int] | None = (28, 28),
    *,
    convention: Literal["half", "quarter"] = "half",
    normalize: Literal["fixed", "minmax"] = "minmax",
    max_displacement: float = 2.0,
    max_strain: float = 0.1,
    least: float = 0.0,
) -> NDArray[np.uint8]:
    """Return a flow's components and its optical strain as bytes: the input of STSTNet [1]_.

    Strain is computed at the flow's own size; the three channels are then brought to ``size``
    and become bytes.

    Parameters
    ----------
    flow : (H, W, 2) or (N, H, W, 2) float32
        Displacement (x, y) in pixels; at least 2x2.
    size : (height, width) or None, default (28, 28)
        Size of the map; None keeps the flow's.
    convention : {"half", "quarter"}, default "half"
        The weight of the shear, see `optical_strain`.
    normalize : {"minmax", "fixed"}, default "minmax"
        "minmax" stretches each channel of each map over 0..255, as published; "fixed" maps
        -max_displacement..max_displacement to 1..255 and 0..max_strain to 0..255, so that
        maps of different clips can be compared.
    max_displacement, max_strain : float
        In pixels, and without unit; for "fixed". What lies beyond saturates.
    least : float
        As in `encode_uv`; the strain's is that of a flow which changes so much over 8 pixels.

    Returns
    -------
    (height, width, 3) or (N, height, width, 3) uint8
        x, y, strain.

    Raises
    ------
    ValueError
        When an argument has another shape, dtype or value.

    References
    ----------
    .. [1] S.-T. Liong et al., "Shallow Triple Stream Three-dimensional CNN (STSTNet) for
       Micro-expression Recognition", FG 2019. DOI 10.1109/FG.2019.8756567

    Examples
    --------
    >>> import numpy as np
    >>> still = np.zeros((8, 8, 2), np.float32)
    >>> encode_uv_strain(still, (1, 1), normalize="fixed")[0, 0].tolist()
    [128, 128, 0]
    """
    check_normalize(normalize)
    limits = (
        check_limit("max_displacement", max_displacement),
        check_limit("max_strain", max_strain),
    )
    check_choice("convention", convention, SHEAR_WEIGHT)
    target = check_size(size)
    args = target, convention, normalize, limits, check_least(least)
    return encoded(flow, _encode, "encode_uv_strain", *args)


def _encode(
    flow: Floats,
    size: Size,
    convention: Literal["half", "quarter"],
    normalize: str,
    limits: tuple[float, float],
    least: float,
) -> NDArray[np.uint8]:
    strain = resized(optical_strain(flow, convention=convention), size)
    flow = resized(flow, size)
    minmax = normalize == "minmax"
    third = (
        stretched_bytes(strain, least / STRAIN_LENGTH)
        if minmax
        else unsigned_bytes(strain, limits[1])
    )
    channels = [component_bytes(flow[..., i], normalize, limits[0], least) for i in range(2)]
    return np.stack([*channels, third], axis=-1)
