"""Handcrafted features of clips, from aligned frames or from stored flow.

Each method is a function of arrays and a frozen dataclass of its options, one file a method;
`extract` applies one to every clip of a store. Everything loads on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_NAMES = {
    "METHODS": "methods",
    "FeatureSummary": "run",
    "LbpTop": "lbp",
    "Parts": "parts",
    "extract": "run",
    "lbp_top": "lbp",
}

if TYPE_CHECKING:
    from apexflow.features.lbp import LbpTop, lbp_top
    from apexflow.features.methods import METHODS
    from apexflow.features.parts import Parts
    from apexflow.features.run import FeatureSummary, extract

__all__ = ["METHODS", "FeatureSummary", "LbpTop", "Parts", "extract", "lbp_top"]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"apexflow.features.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'apexflow.features' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_NAMES)
