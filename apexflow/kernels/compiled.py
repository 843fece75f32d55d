"""Whether a kernel has been compiled on this machine before: Numba keeps what it compiles."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any


def is_compiled(function: Any) -> bool:
    """Whether Numba's cache holds a function, compiled since its source last changed.

    Parameters
    ----------
    function : callable
        Decorated with ``njit(cache=True)``.
    """
    changed = Path(inspect.getfile(function.py_func)).stat().st_mtime
    kept = Path(function.stats.cache_path).glob(f"*.{function.__name__}-*.nbi")
    return any(index.stat().st_mtime >= changed for index in kept)
