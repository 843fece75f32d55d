"""Explicit vectors of 16 lanes for Numba kernels.

Numba leaves vectorisation to LLVM, which gives up on loops whose arrays may overlap or whose
loads depend on data. The types here compile to LLVM's own vector operations, ``<16 x float>``
and ``<16 x double>``, which it maps to whatever the CPU has: one AVX-512 register, two of
AVX2, four of SSE or NEON. Nothing here is specific to a CPU.

Inside an ``njit`` function::

    a = load(array, i)              # 16 values of a C-contiguous float32 or float64 array
    b = splat(np.float32(2))        # one value in all lanes
    c = select(a < b, a * b, muladd(a, a, b))
    store(array, i, c)

An array that is handed from function to function costs a reference count each time, a call
that empties all vector registers. `pointer` gives a plain address instead, which `load`,
`store` and indexing take as well::

    p = pointer(array)              # an argument: the caller keeps it alive; else see `keep`
    a = load(p, i) * splat(p[0])

``+ - * /``, unary ``-`` and ``< <=`` work on two vectors of one type; comparisons give a
mask, which knows ``& | ~`` and goes into `select`, `any_lane` and `all_lanes`. ``i`` counts
elements from the start of the array, whatever its shape, and is not checked: the caller
guarantees that ``i`` to ``i + 15`` lie inside.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba.extending import intrinsic, lower_builtin, register_model

from apexflow.kernels.compiled import njit
from apexflow.kernels.numba_private import (
    ConcreteTemplate,
    PrimitiveModel,
    infer_global,
    signature,
    types,
)

LANES = 16


class Vector(types.Type):  # type: ignore[misc]
    """The Numba type of 16 numbers, or of 16 truth values (a mask)."""

    def __init__(self, dtype: types.Type) -> None:
        self.dtype = dtype
        super().__init__(name=f"Vector({dtype}, {LANES})")


F32 = Vector(types.float32)
F64 = Vector(types.float64)
MASK = Vector(types.boolean)

_ELEMENT = {F32: ir.FloatType(), F64: ir.DoubleType(), MASK: ir.IntType(1)}
_LLVM = {vector: ir.VectorType(element, LANES) for vector, element in _ELEMENT.items()}
_SUFFIX = {F32: f"v{LANES}f32", F64: f"v{LANES}f64"}
_VECTOR_OF = {types.float32: F32, types.float64: F64}


@register_model(Vector)
class _VectorModel(PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vector: Vector) -> None:
        super().__init__(manager, vector, _LLVM[vector])


def _constant(vector: Vector, values: list[float]) -> ir.Constant:
    return ir.Constant(_LLVM[vector], values)


def _call(
    builder: Any, name: str, result: Vector, args: list[Any], fastmath: tuple[str, ...] = ()
) -> Any:
    """Call the LLVM intrinsic ``name`` for vectors of this type."""
    function_type = ir.FunctionType(_LLVM[result], [arg.type for arg in args])
    function = builder.module.globals.get(f"{name}.{_SUFFIX[result]}")
    if function is None:
        function = ir.Function(builder.module, function_type, f"{name}.{_SUFFIX[result]}")
    return builder.call(function, args, fastmath=fastmath)


def _define_operator(
    symbol: Callable[..., Any],
    arity: int,
    build: Callable[..., Any],
    operands: tuple[Vector, ...],
    result: Vector | None = None,
) -> None:
    """Give a Python operator its meaning for vectors: ``build(builder, *values)``."""
    signatures = [signature(result or vector, *[vector] * arity) for vector in operands]
    infer_global(symbol)(type("VectorOperator", (ConcreteTemplate,), {"cases": signatures}))

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return build(builder, *args)

    for vector in operands:
        lower_builtin(symbol, *[vector] * arity)(lower)


def _compare(sign: str) -> Callable[..., Any]:
    return lambda builder, a, b: builder.fcmp_ordered(sign, a, b)


_define_operator(operator.add, 2, lambda builder, a, b: builder.fadd(a, b), (F32, F64))
_define_operator(operator.sub, 2, lambda builder, a, b: builder.fsub(a, b), (F32, F64))
_define_operator(operator.mul, 2, lambda builder, a, b: builder.fmul(a, b), (F32, F64))
_define_operator(operator.truediv, 2, lambda builder, a, b: builder.fdiv(a, b), (F32, F64))
_define_operator(operator.neg, 1, lambda builder, a: builder.fneg(a), (F32, F64))
_define_operator(operator.lt, 2, _compare("<"), (F32, F64), MASK)
_define_operator(operator.le, 2, _compare("<="), (F32, F64), MASK)
_define_operator(operator.and_, 2, lambda builder, a, b: builder.and_(a, b), (MASK,))
_define_operator(operator.or_, 2, lambda builder, a, b: builder.or_(a, b), (MASK,))
_define_operator(operator.invert, 1, lambda builder, a: builder.not_(a), (MASK,))


def _address(context: Any, builder: Any, sig: Any, args: Any) -> Any:
    """Return the address of element ``args[1]`` of ``args[0]`` as a vector's address."""
    buffer = args[0]
    if isinstance(sig.args[0], types.Array):
        buffer = context.make_array(sig.args[0])(context, builder, buffer).data
    element = builder.gep(buffer, [args[1]])
    return builder.bitcast(element, _LLVM[_VECTOR_OF[sig.args[0].dtype]].as_pointer())


def _is_buffer(buffer: Any) -> bool:
    plain = isinstance(buffer, types.Array) and buffer.layout == "C"
    return (plain or isinstance(buffer, types.CPointer)) and buffer.dtype in _VECTOR_OF


@intrinsic
def pointer(typing: Any, array: Any) -> Any:
    """Return the address of a C-contiguous array, which the caller must keep alive."""
    if not (isinstance(array, types.Array) and _is_buffer(array)):
        return None

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.make_array(array)(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), build


@intrinsic
def load(typing: Any, buffer: Any, i: Any) -> Any:
    """Read elements i to i + 15 of a C-contiguous array or behind a pointer."""
    if not (_is_buffer(buffer) and isinstance(i, types.Integer)):
        return None

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        # Arrays are aligned to their elements, not to vectors.
        return builder.load(_address(context, builder, sig, args), align=buffer.dtype.bitwidth // 8)

    return _VECTOR_OF[buffer.dtype](buffer, types.intp), build


@intrinsic
def store(typing: Any, buffer: Any, i: Any, value: Any) -> Any:
    """Write elements i to i + 15 of a C-contiguous array or behind a pointer."""
    if not (_is_buffer(buffer) and value is _VECTOR_OF[buffer.dtype]):
        return None
    if isinstance(buffer, types.Array) and not buffer.mutable:
        return None

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(
            args[2], _address(context, builder, sig, args), align=buffer.dtype.bitwidth // 8
        )
        return context.get_dummy_value()

    return types.void(buffer, types.intp, value), build


@intrinsic
def prefetch(typing: Any, buffer: Any, i: Any) -> Any:
    """Ask for the cache line of element i, which need not exist."""
    if not (_is_buffer(buffer) and isinstance(i, types.Integer)):
        return None

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        address = builder.bitcast(_address(context, builder, sig, args), ir.IntType(8).as_pointer())
        word = ir.IntType(32)
        function_type = ir.FunctionType(ir.VoidType(), [address.type, word, word, word])
        function = builder.module.globals.get("llvm.prefetch.p0")
        if function is None:
            function = ir.Function(builder.module, function_type, "llvm.prefetch.p0")
        builder.call(function, [address, word(0), word(3), word(1)])
        return context.get_dummy_value()

    return types.void(buffer, types.intp), build


@intrinsic
def splat(typing: Any, value: Any) -> Any:
    """Return a vector with one float32 or float64 in all lanes."""
    if value not in _VECTOR_OF:
        return None
    vector = _VECTOR_OF[value]

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        one = builder.insert_element(_undefined(vector), args[0], ir.Constant(ir.IntType(32), 0))
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
        return builder.shuffle_vector(one, _undefined(vector), everywhere)

    return vector(value), build


def _undefined(vector: Vector) -> ir.Constant:
    return ir.Constant(_LLVM[vector], ir.Undefined)


@intrinsic(prefer_literal=True)
def shift(typing: Any, a: Any, b: Any, n: Any) -> Any:
    """Return the 16 lanes from the literal ``n`` on of a followed by b."""
    if not (a in _SUFFIX and a is b and isinstance(n, types.IntegerLiteral)):
        return None

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        lanes = [n.literal_value + i for i in range(LANES)]
        mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), lanes)
        return builder.shuffle_vector(args[0], args[1], mask)

    return a(a, b, n), build


def _every_other(first: int, doc: str) -> Any:
    def function(typing: Any, a: Any, b: Any) -> Any:
        if not (a in _SUFFIX and a is b):
            return None

        def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            lanes = [first + 2 * i for i in range(LANES)]
            mask = ir.Constant(ir.VectorType(ir.IntType(32), LANES), lanes)
            return builder.shuffle_vector(args[0], args[1], mask)

        return a(a, b), build

    function.__doc__ = doc
    return intrinsic(function)


even_lanes = _every_other(0, "Return lanes 0, 2, 4, ... of a followed by b.")
odd_lanes = _every_other(1, "Return lanes 1, 3, 5, ... of a followed by b.")


@intrinsic
def ramp(typing: Any) -> Any:
    """Return the float32 vector 0, 1, ..., 15."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _constant(F32, [float(i) for i in range(LANES)])

    return F32(), build


@intrinsic
def widen(typing: Any, value: Any) -> Any:
    """Convert float32 to float64, exactly."""
    if value is not F32:
        return None

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fpext(args[0], _LLVM[F64])

    return F64(F32), build


@intrinsic
def narrow(typing: Any, value: Any) -> Any:
    """Convert float64 to float32, rounding to nearest."""
    if value is not F64:
        return None

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fptrunc(args[0], _LLVM[F32])

    return F32(F64), build


@intrinsic
def muladd(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Return a * b + c, rounded once where the CPU can fuse it and twice elsewhere."""
    if not (a in _SUFFIX and a is b and b is c):
        return None

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _call(builder, "llvm.fmuladd", a, list(args))

    return a(a, b, c), build


def _unary(name: str, doc: str) -> Any:
    def function(typing: Any, a: Any) -> Any:
        if a not in _SUFFIX:
            return None

        def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return _call(builder, name, a, list(args))

        return a(a), build

    function.__doc__ = doc
    return intrinsic(function)


sqrt = _unary("llvm.sqrt", "Return the square root of each lane.")
floor = _unary("llvm.floor", "Return the largest integer not above each lane.")
truncate = _unary("llvm.trunc", "Return each lane without its fraction.")
nearest = _unary("llvm.rint", "Return the integer nearest to each lane, the even one of two.")
absolute = _unary("llvm.fabs", "Return each lane without its sign.")


def _estimate(doc: str, denominator: Callable[..., Any]) -> Any:
    """Make 1 / denominator(x), which LLVM may take from the CPU's estimate and a Newton step.

    Two flags ask for it: reciprocals allowed, no infinities. Where a CPU has no estimate it
    stays an exact division.
    """

    def function(typing: Any, a: Any) -> Any:
        if a is not F32:
            return None

        def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            one = _constant(F32, [1.0] * LANES)
            return builder.fdiv(one, denominator(builder, args[0]), flags=("arcp", "ninf"))

        return a(a), build

    function.__doc__ = doc
    return intrinsic(function)


reciprocal = _estimate(
    "Return 1 / a of each finite float32 lane, within a millionth.", lambda builder, a: a
)
inverse_sqrt = _estimate(
    "Return 1 / sqrt(a) of each finite, positive float32 lane, within a millionth.",
    lambda builder, a: _call(builder, "llvm.sqrt", F32, [a], ("arcp", "ninf")),
)


def _extremum(sign: str, doc: str) -> Any:
    def function(typing: Any, a: Any, b: Any) -> Any:
        if not (a in _SUFFIX and a is b):
            return None

        def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            # A comparison and a choice is one instruction (minps, maxps); llvm.minnum is four.
            return builder.select(builder.fcmp_ordered(sign, *args), *args)

        return a(a, b), build

    function.__doc__ = doc
    return intrinsic(function)


minimum = _extremum("<", "Return a where a < b, else b.")
maximum = _extremum(">", "Return a where a > b, else b.")


@intrinsic
def select(typing: Any, mask: Any, a: Any, b: Any) -> Any:
    """Return a where the mask is set, else b."""
    if not (mask is MASK and a in _SUFFIX and a is b):
        return None

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(*args)

    return a(mask, a, b), build


def _count_of_mask(sign: str, bits: int, doc: str) -> Any:
    def function(typing: Any, mask: Any) -> Any:
        if mask is not MASK:
            return None

        def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            lanes = builder.bitcast(args[0], ir.IntType(LANES))
            return builder.icmp_unsigned(sign, lanes, ir.Constant(lanes.type, bits))

        return types.boolean(mask), build

    function.__doc__ = doc
    return intrinsic(function)


any_lane = _count_of_mask("!=", 0, "Return whether the mask is set in any lane.")
all_lanes = _count_of_mask("==", 2**LANES - 1, "Return whether the mask is set in all lanes.")


def _reduction(combine: Callable[..., Any], doc: str) -> Any:
    def function(typing: Any, a: Any) -> Any:
        if a not in _SUFFIX:
            return None

        def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            # Fold the upper half onto the lower one until one lane is left.
            value = args[0]
            for half in (8, 4, 2, 1):
                order = [(i + half) % LANES for i in range(LANES)]
                moved = builder.shuffle_vector(
                    value, value, ir.Constant(ir.VectorType(ir.IntType(32), LANES), order)
                )
                value = combine(builder, value, moved)
            return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

        return a.dtype(a), build

    function.__doc__ = doc
    return intrinsic(function)


def _choose(sign: str) -> Callable[..., Any]:
    return lambda builder, a, b: builder.select(builder.fcmp_ordered(sign, a, b), a, b)


lowest = _reduction(_choose("<"), "Return the smallest lane of a vector without NaN.")
highest = _reduction(_choose(">"), "Return the largest lane of a vector without NaN.")
total = _reduction(lambda builder, a, b: builder.fadd(a, b), "Return the sum of the lanes.")


@njit
def keep(array: Any) -> int:
    """Keep an array of this function's own alive up to here, though only its `pointer` is used.

    Numba frees an array after its last use, and does not know what an address leads to.
    """
    return array.size


@njit
def aligned(count: int) -> Any:
    """Return ``count`` float32 numbers, not initialised, that start at a vector's boundary.

    A vector that crosses a cache line costs two accesses. Numba's own arrays start at
    multiples of 32 bytes, where every second 64-byte vector does.
    """
    buffer = np.empty(count + LANES, np.float32)
    start = -(buffer.ctypes.data // 4) % LANES
    return buffer[start : start + count]
