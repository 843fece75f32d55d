"""Loaded by each local worker: what the first clip will need, imported while Dask connects."""

from __future__ import annotations

import importlib
import os
import threading
from typing import Any

MODULES = "APEXFLOW_MODULES"


def dask_setup(_worker: Any) -> None:
    """Begin to import; Dask calls this when it loads the module."""
    threading.Thread(target=_load, daemon=True).start()


def _load() -> None:
    for name in os.environ.get(MODULES, "").split():
        importlib.import_module(name)
