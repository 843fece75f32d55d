"""Vector operations from the CPU's estimates."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.extending import intrinsic

from apexflow.kernels.simd import _LLVM, _SUFFIX, _constant


@intrinsic
def reciprocal(typing: Any, a: Any) -> Any:
    """Return 1 / a within some units in the last place: the CPU's estimate and a Newton step."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fdiv(_constant(a, [1.0] * 16), args[0], flags=("fast",))

    return a(a), build


@intrinsic
def inverse_sqrt(typing: Any, a: Any) -> Any:
    """Return 1 / sqrt(a) of positive numbers, as `reciprocal`."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        name = "llvm.sqrt." + _SUFFIX[a]
        function = builder.module.globals.get(name) or ir.Function(
            builder.module, ir.FunctionType(_LLVM[a], [_LLVM[a]]), name
        )
        root = builder.call(function, args, fastmath=("fast",))
        return builder.fdiv(_constant(a, [1.0] * 16), root, flags=("fast",))

    return a(a), build
