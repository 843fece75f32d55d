"""Loaded by each local worker: what the first clip will need, imported while Dask connects."""

from __future__ import annotations

import importlib
import threading
from typing import Any

_SLOW = ("facenet_pytorch", "apexflow.engine.task")


def dask_setup(_worker: Any) -> None:
    """Begin to import; Dask calls this when it loads the module."""
    threading.Thread(target=_load, daemon=True).start()


def _load() -> None:
    for name in _SLOW:
        importlib.import_module(name)
