"""What reads the store to learn: folds, metrics, reference models.

`metrics` and `folds` are plain functions, `models` the networks, one file a family. A training is
`plan` (what is asked for), `run` (all folds), `task` and `fitting` (one of them), `run_folder` and
`pooled` (what its folder and its results are of); `results` and `figures` write them. Everything
loads on first use: scores need no torch, and the networks load torchvision only where they
are built on it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_NAMES = {
    "Scores": "metrics",
    "scores": "metrics",
    "inner_split": "folds",
    "leave_one_dataset_out": "folds",
    "loso": "folds",
    "subject_kfold": "folds",
    "read_result": "results",
    "TrainConfig": "config",
    "train": "run",
}
_MODULES = ("checkpoint", "config", "figures", "folds", "metrics", "models", "results", "run")

if TYPE_CHECKING:
    from apexflow.training import models
    from apexflow.training.config import TrainConfig
    from apexflow.training.folds import (
        inner_split,
        leave_one_dataset_out,
        loso,
        subject_kfold,
    )
    from apexflow.training.metrics import Scores, scores
    from apexflow.training.run import train

__all__ = [
    "Scores",
    "TrainConfig",
    "inner_split",
    "leave_one_dataset_out",
    "loso",
    "models",
    "scores",
    "subject_kfold",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(f"apexflow.training.{_NAMES[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"apexflow.training.{name}")
    raise AttributeError(f"module 'apexflow.training' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*_NAMES, *_MODULES})
