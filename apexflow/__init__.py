"""apexflow: from raw micro-expression data sets to training-ready optical flow.

Everything here loads on first use, so that ``import apexflow`` is instant and
``apexflow.kernels`` runs where only NumPy, Numba and OpenCV are installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_MODULES = ("catalog", "engine", "errors", "kernels", "protocols", "storage", "training")
_NAMES = {
    "Catalog": "apexflow.catalog",
    "Clip": "apexflow.catalog",
    "ApexflowError": "apexflow.errors",
    "ClipError": "apexflow.errors",
    "read_4dme": "apexflow.engine.readers",
    "read_casme2": "apexflow.engine.readers",
    "read_casme3": "apexflow.engine.readers",
    "read_casme_sq": "apexflow.engine.readers",
    "read_mmew": "apexflow.engine.readers",
    "read_samm": "apexflow.engine.readers",
    "read_smic": "apexflow.engine.readers",
    "read_table": "apexflow.engine.readers",
    "Recipe": "apexflow.engine.recipe",
    "RunSummary": "apexflow.engine.run",
    "process": "apexflow.engine.run",
    "process_clip": "apexflow.engine.process",
    "ClipDataset": "apexflow.storage.dataset",
    "loso": "apexflow.training.folds",
}

if TYPE_CHECKING:
    from apexflow import catalog, engine, errors, kernels, protocols, storage, training
    from apexflow.catalog import Catalog, Clip
    from apexflow.engine.process import process_clip
    from apexflow.engine.readers import (
        read_4dme,
        read_casme2,
        read_casme3,
        read_casme_sq,
        read_mmew,
        read_samm,
        read_smic,
        read_table,
    )
    from apexflow.engine.recipe import Recipe
    from apexflow.engine.run import RunSummary, process
    from apexflow.errors import ApexflowError, ClipError
    from apexflow.storage.dataset import ClipDataset
    from apexflow.training.folds import loso


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"apexflow.{name}")
    raise AttributeError(f"module 'apexflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_MODULES, *_NAMES, "__version__"])
