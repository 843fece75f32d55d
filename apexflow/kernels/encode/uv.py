"""The two components of a flow as two channels."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels.encode.dispatch import encoded
from apexflow.kernels.encode.scaling import (
    Floats,
    Size,
    check_least,
    check_limit,
    check_normalize,
    check_size,
    resized,
    signed_bytes,
    stretched_bytes,
)


def encode_uv(
    flow: NDArray[np.float32],
    size: tuple[int, int] | None = (28, 28),
    *,
    normalize: Literal["fixed", "minmax"] = "fixed",
    max_displacement: float = 2.0,
    least: float = 0.0,
) -> NDArray[np.uint8]:
    """Return a flow's horizontal and vertical component as bytes: the input of OFF-ApexNet.

    The flow is brought to ``size`` first, then each component becomes bytes [1]_.

    Parameters
    ----------
    flow : (H, W, 2) or (N, H, W, 2) float32
        Displacement (x, y) in pixels.
    size : (height, width) or None, default (28, 28)
        Size of the map; None keeps the flow's.
    normalize : {"fixed", "minmax"}, default "fixed"
        "fixed" maps -max_displacement..max_displacement to 1..255, so that 128 is no motion;
        "minmax" stretches each component of each map over 0..255, as published code does,
        which loses where zero is.
    max_displacement : float, default 2.0
        In pixels, for "fixed"; longer components saturate.
    least : float
        For "minmax": the shortest range, in pixels, that is stretched over 0..255, so that a map
        without motion does not show its noise at full scale; 0 stretches everything, as published.

    Returns
    -------
    (height, width, 3) or (N, height, width, 3) uint8
        x, y and an empty channel of zeros.

    Raises
    ------
    ValueError
        When an argument has another shape, dtype or value.

    References
    ----------
    .. [1] Y. S. Gan et al., "OFF-ApexNet on micro-expression recognition system", Signal
       Processing: Image Communication 74, 2019. DOI 10.1016/j.image.2019.02.005

    Examples
    --------
    >>> import numpy as np
    >>> encode_uv(np.zeros((8, 8, 2), np.float32), (1, 1))[0, 0].tolist()
    [128, 128, 0]
    """
    check_normalize(normalize)
    target, least = check_size(size), check_least(least)
    limit = check_limit("max_displacement", max_displacement)
    return encoded(flow, _encode, "encode_uv", target, normalize, limit, least)


def component_bytes(
    values: Floats, normalize: str, limit: float, least: float
) -> NDArray[np.uint8]:
    """Return one component of a flow as bytes, see `encode_uv`."""
    return stretched_bytes(values, least) if normalize == "minmax" else signed_bytes(values, limit)


def _encode(
    flow: Floats, size: Size, normalize: str, limit: float, least: float
) -> NDArray[np.uint8]:
    flow = resized(flow, size)
    channels = [component_bytes(flow[..., i], normalize, limit, least) for i in range(2)]
    return np.stack([*channels, np.zeros(flow.shape[:2], np.uint8)], axis=-1)
