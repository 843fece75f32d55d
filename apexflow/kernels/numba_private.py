"""What is taken of Numba's private modules, and why; nobody else imports them.

A vector type of our own (`simd`, `simd_bytes`) is told to Numba's public extension API, whose
`register_model` wants a data model; the one for a type that is a single LLVM value has no public
name. Operators on such a type are typed by ``infer_global``, which the documentation of that API
uses and which is exported nowhere else.
"""

from __future__ import annotations

from numba.core import types
from numba.core.datamodel import PrimitiveModel
from numba.core.typing.templates import ConcreteTemplate, infer_global, signature

__all__ = ["ConcreteTemplate", "PrimitiveModel", "infer_global", "signature", "types"]
