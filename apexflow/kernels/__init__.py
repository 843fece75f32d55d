"""The compiled mathematics: arrays in, arrays out.

Each operation has its own folder, the CPU form and the GPU form side by side, and one public
function. Needs NumPy, Numba and OpenCV alone; an operation loads, and compiles or reads its
compiled form from the cache, on first use. No kernel holds the GIL and each runs in one
thread: parallelism belongs to the caller.
"""

from __future__ import annotations

import importlib
from typing import Any

_NAMES = {
    "Match": "template",
    "TemplateMatcher": "template",
    "match_template": "template",
    "farneback": "farneback",
    "tvl1": "tvl1",
    "encode_hsv": "encode",
    "optical_strain": "encode",
}


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        module = importlib.import_module(f"apexflow.kernels.{_NAMES[name]}")
        # The function takes the place of the submodule of the same name (farneback, tvl1).
        value = globals()[name] = getattr(module, name)
        return value
    raise AttributeError(f"module 'apexflow.kernels' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_NAMES)
