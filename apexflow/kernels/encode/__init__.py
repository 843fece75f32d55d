"""Maps made from optical flow: one file an encoding.

`ENCODINGS` is the one place that names them: each entry takes a flow (or a batch of flows),
a size and its own options, and gives uint8 maps of three channels. `make_maps` is the way from
flow as a store holds it to maps. `optical_strain` and `magnitude_angle` are the measures in
float32 that encodings are built from. What is given CuPy arrays computes on their GPU, a batch
at once, and answers with CuPy arrays.
"""

from __future__ import annotations

from apexflow.kernels.encode.head import (
    mask_region,
    measure_noise,
    noise_of_confidence,
    remove_head_motion,
    suppress_noise,
)
from apexflow.kernels.encode.hsv import encode_hsv
from apexflow.kernels.encode.hsv_absolute import encode_hsv_absolute
from apexflow.kernels.encode.magnitude_angle import encode_magnitude_angle
from apexflow.kernels.encode.polar import magnitude_angle
from apexflow.kernels.encode.strain import optical_strain
from apexflow.kernels.encode.table import ENCODINGS, check_options, make_maps
from apexflow.kernels.encode.uv import encode_uv
from apexflow.kernels.encode.uv_strain import encode_uv_strain
from apexflow.kernels.encode.wheel import colour_wheel, flow_colours

__all__ = [
    "ENCODINGS",
    "check_options",
    "colour_wheel",
    "encode_hsv",
    "encode_hsv_absolute",
    "encode_magnitude_angle",
    "encode_uv",
    "encode_uv_strain",
    "flow_colours",
    "magnitude_angle",
    "make_maps",
    "mask_region",
    "measure_noise",
    "noise_of_confidence",
    "optical_strain",
    "remove_head_motion",
    "suppress_noise",
]
