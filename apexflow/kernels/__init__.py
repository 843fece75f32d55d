"""The compiled mathematics: arrays in, arrays out.

Each operation has its own folder, the CPU form and the GPU form side by side, and one public
function. Needs NumPy, Numba and OpenCV alone; an operation loads, and compiles or reads its
compiled form from the cache, on first use. No kernel holds the GIL and each runs in one
thread: parallelism belongs to the caller.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

_NAMES = {
    "Match": "template",
    "TemplateMatcher": "template",
    "match_template": "template",
    "Placement": "register",
    "Registration": "register",
    "farneback": "farneback",
    "prepare_farneback": "farneback",
    "tvl1": "tvl1",
    "prepare_tvl1": "tvl1",
    "encode_hsv": "encode",
    "encode_hsv_absolute": "encode",
    "encode_magnitude_angle": "encode",
    "encode_uv": "encode",
    "encode_uv_strain": "encode",
    "magnitude_angle": "encode",
    "make_maps": "encode",
    "mask_region": "encode",
    "optical_strain": "encode",
    "remove_head_motion": "encode",
}

if TYPE_CHECKING:
    from apexflow.kernels.encode import encode_hsv as encode_hsv
    from apexflow.kernels.encode import encode_hsv_absolute as encode_hsv_absolute
    from apexflow.kernels.encode import encode_magnitude_angle as encode_magnitude_angle
    from apexflow.kernels.encode import encode_uv as encode_uv
    from apexflow.kernels.encode import encode_uv_strain as encode_uv_strain
    from apexflow.kernels.encode import magnitude_angle as magnitude_angle
    from apexflow.kernels.encode import make_maps as make_maps
    from apexflow.kernels.encode import mask_region as mask_region
    from apexflow.kernels.encode import optical_strain as optical_strain
    from apexflow.kernels.encode import remove_head_motion as remove_head_motion
    from apexflow.kernels.farneback import farneback as farneback
    from apexflow.kernels.farneback import prepare_farneback as prepare_farneback
    from apexflow.kernels.register import Placement as Placement
    from apexflow.kernels.register import Registration as Registration
    from apexflow.kernels.template import Match as Match
    from apexflow.kernels.template import TemplateMatcher as TemplateMatcher
    from apexflow.kernels.template import match_template as match_template
    from apexflow.kernels.tvl1 import prepare_tvl1 as prepare_tvl1
    from apexflow.kernels.tvl1 import tvl1 as tvl1


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        module = importlib.import_module(f"apexflow.kernels.{_NAMES[name]}")
        value = globals()[name] = getattr(module, name)
        return value
    raise AttributeError(f"module 'apexflow.kernels' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_NAMES)


class _Kernels(ModuleType):
    """Keeps the functions `farneback` and `tvl1` from being hidden by their submodules.

    Importing a submodule sets it as an attribute of its package, even after the function of
    the same name has been looked up, or before.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _NAMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Kernels
