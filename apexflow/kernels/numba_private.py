"""What is taken of Numba's private modules, and why; nobody else imports them.

A vector type of our own (`simd`, `simd_bytes`) is told to Numba's public extension API, whose
`register_model` wants a data model; the one for a type that is a single LLVM value has no public
name. Operators on such a type are typed by ``infer_global``, which the documentation of that API
uses and which is exported nowhere else.

What Numba keeps of a compiled function is stamped with that function's file alone; `add_to_stamp`
makes the stamp depend on more.
"""

from __future__ import annotations

from typing import Any

import numba
from numba.core import types
from numba.core.datamodel import PrimitiveModel
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature

__all__ = [
    "ConcreteTemplate",
    "PrimitiveModel",
    "add_to_stamp",
    "infer_global",
    "signature",
    "types",
]


def add_to_stamp(dispatcher: Any, more: str) -> None:
    """Let what is kept of a function, compiled with ``cache=True``, hold only with this text."""
    if numba.config.DISABLE_JIT:  # there is only the Python function
        return
    kept = dispatcher._cache._cache_file
    kept._source_stamp = (kept._source_stamp, more)
