"""Handcrafted features of clips, from aligned frames or from stored flow.

Each method is a function of arrays and a frozen dataclass of its options, one file a method;
`extract` applies one to every clip of a store. Everything loads on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_NAMES = {
    "METHODS": "methods",
    "BiWoof": "oriented_flow",
    "FeatureSummary": "run",
    "HogTop": "hog",
    "Hoof": "oriented_flow",
    "LbpTop": "lbp",
    "Mdmo": "main_direction",
    "Parts": "parts",
    "bi_woof": "oriented_flow",
    "extract": "run",
    "hog_top": "hog",
    "hoof": "oriented_flow",
    "lbp_top": "lbp",
    "mdmo": "main_direction",
}

if TYPE_CHECKING:
    from apexflow.features.hog import HogTop, hog_top
    from apexflow.features.lbp import LbpTop, lbp_top
    from apexflow.features.main_direction import Mdmo, mdmo
    from apexflow.features.methods import METHODS
    from apexflow.features.oriented_flow import BiWoof, Hoof, bi_woof, hoof
    from apexflow.features.parts import Parts
    from apexflow.features.run import FeatureSummary, extract

__all__ = [
    "METHODS",
    "BiWoof",
    "FeatureSummary",
    "HogTop",
    "Hoof",
    "LbpTop",
    "Mdmo",
    "Parts",
    "bi_woof",
    "extract",
    "hog_top",
    "hoof",
    "lbp_top",
    "mdmo",
]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"apexflow.features.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'apexflow.features' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_NAMES)
