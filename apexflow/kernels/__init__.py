"""The compiled mathematics: arrays in, arrays out.

Each operation has its own folder, the CPU form and the GPU form side by side, and one public
function. Needs NumPy, Numba and OpenCV alone; an operation loads, and compiles or reads its
compiled form from the cache, on first use. No kernel holds the GIL and each runs in one
thread: parallelism belongs to the caller.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# No folder has the name of a function: importing it would hide the function.
_NAMES = {
    "Match": "template",
    "Matches": "template",
    "TemplateMatcher": "template",
    "match_template": "template",
    "Placement": "register",
    "Placements": "register",
    "Registration": "register",
    "expected_error": "confidence",
    "farneback": "flow_farneback",
    "prepare_farneback": "flow_farneback",
    "CLGFrame": "flow_clg",
    "CLGSequence": "flow_clg",
    "clg": "flow_clg",
    "clg_sequence": "flow_clg",
    "prepare_clg": "flow_clg",
    "interpolate_frames": "tim",
    "EulerianMagnified": "magnification",
    "FlowMagnified": "magnification",
    "magnify_eulerian": "magnification",
    "magnify_flow": "magnification",
    "normalize_light": "light",
    "tvl1": "flow_tvl1",
    "prepare_tvl1": "flow_tvl1",
    "encode_hsv": "encode",
    "encode_hsv_absolute": "encode",
    "encode_magnitude_angle": "encode",
    "encode_uv": "encode",
    "encode_uv_strain": "encode",
    "magnitude_angle": "encode",
    "make_maps": "encode",
    "mask_region": "encode",
    "measure_noise": "encode",
    "noise_of_confidence": "encode",
    "optical_strain": "encode",
    "remove_head_motion": "encode",
    "suppress_noise": "encode",
}

if TYPE_CHECKING:
    from apexflow.kernels.confidence import expected_error as expected_error
    from apexflow.kernels.encode import encode_hsv as encode_hsv
    from apexflow.kernels.encode import encode_hsv_absolute as encode_hsv_absolute
    from apexflow.kernels.encode import encode_magnitude_angle as encode_magnitude_angle
    from apexflow.kernels.encode import encode_uv as encode_uv
    from apexflow.kernels.encode import encode_uv_strain as encode_uv_strain
    from apexflow.kernels.encode import magnitude_angle as magnitude_angle
    from apexflow.kernels.encode import make_maps as make_maps
    from apexflow.kernels.encode import mask_region as mask_region
    from apexflow.kernels.encode import measure_noise as measure_noise
    from apexflow.kernels.encode import noise_of_confidence as noise_of_confidence
    from apexflow.kernels.encode import optical_strain as optical_strain
    from apexflow.kernels.encode import remove_head_motion as remove_head_motion
    from apexflow.kernels.encode import suppress_noise as suppress_noise
    from apexflow.kernels.flow_clg import CLGFrame as CLGFrame
    from apexflow.kernels.flow_clg import CLGSequence as CLGSequence
    from apexflow.kernels.flow_clg import clg as clg
    from apexflow.kernels.flow_clg import clg_sequence as clg_sequence
    from apexflow.kernels.flow_clg import prepare_clg as prepare_clg
    from apexflow.kernels.flow_farneback import farneback as farneback
    from apexflow.kernels.flow_farneback import prepare_farneback as prepare_farneback
    from apexflow.kernels.flow_tvl1 import prepare_tvl1 as prepare_tvl1
    from apexflow.kernels.flow_tvl1 import tvl1 as tvl1
    from apexflow.kernels.light import normalize_light as normalize_light
    from apexflow.kernels.magnification import EulerianMagnified as EulerianMagnified
    from apexflow.kernels.magnification import FlowMagnified as FlowMagnified
    from apexflow.kernels.magnification import magnify_eulerian as magnify_eulerian
    from apexflow.kernels.magnification import magnify_flow as magnify_flow
    from apexflow.kernels.register import Placement as Placement
    from apexflow.kernels.register import Placements as Placements
    from apexflow.kernels.register import Registration as Registration
    from apexflow.kernels.template import Match as Match
    from apexflow.kernels.template import Matches as Matches
    from apexflow.kernels.template import TemplateMatcher as TemplateMatcher
    from apexflow.kernels.template import match_template as match_template
    from apexflow.kernels.tim import interpolate_frames as interpolate_frames


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        module = importlib.import_module(f"apexflow.kernels.{_NAMES[name]}")
        value = globals()[name] = getattr(module, name)
        return value
    raise AttributeError(f"module 'apexflow.kernels' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_NAMES)
