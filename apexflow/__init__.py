"""apexflow: from raw micro-expression data sets to training-ready optical flow.

Everything here loads on first use, so that ``import apexflow`` is instant and
``apexflow.kernels`` runs where only NumPy, Numba and OpenCV are installed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_MODULES = (
    *("bench", "catalog", "datasets", "engine", "errors", "features", "kernels", "protocols"),
    *("quality", "report", "spotting", "storage", "synthetic", "training"),
)
# name: (module, what it is called there)
_NAMES = {
    "Catalog": ("apexflow.catalog", "Catalog"),
    "Clip": ("apexflow.catalog", "Clip"),
    "ApexflowError": ("apexflow.errors", "ApexflowError"),
    "ClipError": ("apexflow.errors", "ClipError"),
    "read_4dme": ("apexflow.datasets", "read_4dme"),
    "read_casme": ("apexflow.datasets", "read_casme"),
    "read_casme2": ("apexflow.datasets", "read_casme2"),
    "read_casme3": ("apexflow.datasets", "read_casme3"),
    "read_casme_sq": ("apexflow.datasets", "read_casme_sq"),
    "read_dfme": ("apexflow.datasets", "read_dfme"),
    "read_mmew": ("apexflow.datasets", "read_mmew"),
    "read_samm": ("apexflow.datasets", "read_samm"),
    "read_smic": ("apexflow.datasets", "read_smic"),
    "read_table": ("apexflow.datasets", "read_table"),
    "audit": ("apexflow.engine.audit", "audit"),
    "Recipe": ("apexflow.engine.recipe", "Recipe"),
    "RunSummary": ("apexflow.engine.run", "RunSummary"),
    "import_maps": ("apexflow.engine.imports", "import_maps"),
    "process": ("apexflow.engine.run", "process"),
    "process_clip": ("apexflow.engine.clip", "process_clip"),
    "interpolate_frames": ("apexflow.kernels", "interpolate_frames"),
    "magnify_eulerian": ("apexflow.kernels", "magnify_eulerian"),
    "magnify_flow": ("apexflow.kernels", "magnify_flow"),
    "open": ("apexflow.storage.store", "open_store"),
    "verify": ("apexflow.storage.checks", "verify"),
    "compact": ("apexflow.storage.compact", "compact"),
    "ClipDataset": ("apexflow.storage.dataset", "ClipDataset"),
    "folds": ("apexflow.training.folds", "folds"),
    "leave_one_dataset_out": ("apexflow.training.folds", "leave_one_dataset_out"),
    "loso": ("apexflow.training.folds", "loso"),
    "subject_kfold": ("apexflow.training.folds", "subject_kfold"),
    "spot": ("apexflow.spotter", "spot"),
    "train": ("apexflow.training", "train"),
    "compare": ("apexflow.training.compare", "compare"),
    "predict": ("apexflow.new_clips", "predict"),
}

if TYPE_CHECKING:
    from apexflow import (
        bench,
        catalog,
        datasets,
        engine,
        errors,
        features,
        kernels,
        protocols,
        quality,
        report,
        spotting,
        storage,
        synthetic,
        training,
    )
    from apexflow.catalog import Catalog, Clip
    from apexflow.datasets import (
        read_4dme,
        read_casme,
        read_casme2,
        read_casme3,
        read_casme_sq,
        read_dfme,
        read_mmew,
        read_samm,
        read_smic,
        read_table,
    )
    from apexflow.engine.audit import audit
    from apexflow.engine.clip import process_clip
    from apexflow.engine.imports import import_maps
    from apexflow.engine.recipe import Recipe
    from apexflow.engine.run import RunSummary, process
    from apexflow.errors import ApexflowError, ClipError
    from apexflow.kernels import interpolate_frames, magnify_eulerian, magnify_flow
    from apexflow.new_clips import predict
    from apexflow.spotter import spot
    from apexflow.storage.checks import verify
    from apexflow.storage.compact import compact
    from apexflow.storage.dataset import ClipDataset
    from apexflow.storage.store import open_store as open  # noqa: A004 - the library's own verb
    from apexflow.training import train
    from apexflow.training.compare import compare
    from apexflow.training.folds import folds, leave_one_dataset_out, loso, subject_kfold


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        module, found = _NAMES[name]
        return getattr(importlib.import_module(module), found)
    if name in _MODULES:
        return importlib.import_module(f"apexflow.{name}")
    raise AttributeError(f"module 'apexflow' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_MODULES, *_NAMES, "__version__"])
