"""Maps made from optical flow: one file an encoding.

`ENCODINGS` is the one place that names them: each entry takes a flow (or a batch of flows)
and a size, and gives uint8 maps of three channels. `optical_strain` and `magnitude_angle`
are the measures in float32 that encodings are built from.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels.encode.hsv import encode_hsv
from apexflow.kernels.encode.polar import magnitude_angle
from apexflow.kernels.encode.strain import optical_strain

ENCODINGS: dict[str, Callable[..., NDArray[np.uint8]]] = {"hsv": encode_hsv}

__all__ = ["ENCODINGS", "encode_hsv", "magnitude_angle", "optical_strain"]
