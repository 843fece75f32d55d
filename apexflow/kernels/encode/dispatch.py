"""Where a map is made: on the CPU flow by flow, or on a GPU a batch at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apexflow.kernels.encode.scaling import flow_batch
from apexflow.kernels.gpu import cuda_device, is_device_array


def encoded(
    flow: object, encode: Callable[..., NDArray[np.uint8]], on_gpu: str, *args: Any
) -> NDArray[np.uint8]:
    """Return the map of a flow, or the maps of a batch, made where the flow is.

    ``encode`` makes the map of one flow on the CPU, the function ``on_gpu`` of `encode.gpu` those
    of a batch on a GPU; both take the flow and ``args``.
    """
    flows = flow_batch(flow)
    if is_device_array(flows):
        from apexflow.kernels.encode import gpu

        maps = getattr(gpu, on_gpu)(flows, *args, device=cuda_device())
    else:
        maps = np.stack([encode(one, *args) for one in flows])
    return maps if np.ndim(flow) == 4 else maps[0]  # type: ignore[arg-type]
