"""How the kernels are compiled, and what Numba keeps of that from one process to the next."""

from __future__ import annotations

import functools
import hashlib
import inspect
from pathlib import Path
from typing import Any

import numba

from apexflow.kernels.numba_private import add_to_stamp


def njit(function: Any = None, /, **options: Any) -> Any:
    """Compile a function with ``numba.njit``: without the GIL, and kept on disk.

    A division by zero gives what NumPy gives, which takes less time to compile, and to run.

    Numba compiles again what was kept when the function's own file changes, but not when another
    one does whose functions or constants it has built in: after an upgrade, half of a kernel
    would be of the version before. Here a change in any file of the kernels counts.

    Parameters
    ----------
    function : callable
        Left out where there are options: ``@njit(inline="always")``.
    **options
        Those of ``numba.njit``.
    """
    if function is None:
        return functools.partial(njit, **options)
    dispatcher = numba.njit(nogil=True, cache=True, error_model="numpy", **options)(function)
    add_to_stamp(dispatcher, _digest())
    return dispatcher


@functools.cache
def _digest() -> str:
    """Return a digest of all files of the kernels."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_compiled(function: Any) -> bool:
    """Whether Numba's cache holds a function, compiled since its source last changed.

    Parameters
    ----------
    function : callable
        Decorated with `njit`.
    """
    changed = Path(inspect.getfile(function.py_func)).stat().st_mtime
    kept = Path(function.stats.cache_path).glob(f"*.{function.__name__}-*.nbi")
    return any(index.stat().st_mtime >= changed for index in kept)
