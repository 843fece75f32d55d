"""Vectors of 64 bytes for Numba kernels: exact sums of products of bytes.

A plain loop over ``int32(a[i]) * int32(b[i])`` widens each byte to four before it multiplies,
which is 4x slower than the multiply-add instructions that CPUs have for small integers, and
LLVM does not find those by itself. `dot` asks for them by name on x86 and spells the same sum
in plain vector operations elsewhere.

Inside an ``njit`` function::

    sums = zeros()
    sums = dot(sums, load(address), flip(load(other)))  # a * (b - 128), 64 products
    result = total(sums)

Addresses are integers, from ``array.ctypes.data``; the caller guarantees that 64 bytes are
readable there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import carray, types
from numba.extending import intrinsic, register_model
from numpy.typing import NDArray

from apexflow.kernels.numba_private import PrimitiveModel

WIDTH = 64
"""Bytes in a vector."""

MAXIMUM_DOTS = 1 << 14
"""How many times `dot` may add to the same sums before one of them could overflow 32 bits."""

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_WORDS = ir.VectorType(_I16, 32)
_SUMS = ir.VectorType(_I32, 16)


class _Vector(types.Type):  # type: ignore[misc]
    """A Numba type of 512 bits."""


BYTES = _Vector("Vector of 64 bytes")
SUMS = _Vector("Vector of 16 int32 sums")


@register_model(_Vector)
class _VectorModel(PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, vector: _Vector) -> None:
        super().__init__(manager, vector, _SUMS)


def _all(vector: ir.VectorType, value: int) -> ir.Constant:
    return ir.Constant(vector, [value] * vector.count)


@intrinsic
def load(typing: Any, address: Any) -> Any:
    """Read 64 bytes."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(builder.inttoptr(args[0], _SUMS.as_pointer()), align=1)

    return BYTES(types.intp), build


@intrinsic
def load_columns(typing: Any, address: Any, stride: Any) -> Any:
    """Read 16 bytes of each of four rows, column by column."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        row = ir.VectorType(_I8, 16)
        rows = []
        for k in range(4):
            offset = builder.mul(args[1], ir.Constant(args[1].type, k))
            at = builder.inttoptr(builder.add(args[0], offset), row.as_pointer())
            rows.append(builder.load(at, align=1))
        half = _join(builder, rows[0], rows[1]), _join(builder, rows[2], rows[3])
        order = [16 * k + x for x in range(16) for k in range(4)]
        return builder.bitcast(_shuffle(builder, *half, order), _SUMS)

    return BYTES(types.intp, types.intp), build


@intrinsic
def zeros(typing: Any) -> Any:
    """Return sums that are all zero."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _all(_SUMS, 0)

    return SUMS(), build


@intrinsic
def flip(typing: Any, a: Any) -> Any:
    """Return a - 128 as signed bytes for unsigned a."""
    if a is not BYTES:
        return None

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.xor(args[0], _all(_SUMS, 0x80808080))

    return BYTES(BYTES), build


@intrinsic
def dot(typing: Any, sums: Any, a: Any, b: Any) -> Any:
    """Add the 64 products of unsigned bytes a and signed bytes b to the sums, four to each."""
    if not (sums is SUMS and a is BYTES and b is BYTES):
        return None

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        sums, unsigned, signed = args
        features = _features(context)
        if "avx512vnni" in features:
            return _call(builder, "llvm.x86.avx512.vpdpbusd.512", _SUMS, [sums, unsigned, signed])
        # Even and odd bytes as 16-bit words.
        a, b = builder.bitcast(unsigned, _WORDS), builder.bitcast(signed, _WORDS)
        eight = _all(_WORDS, 8)
        even = builder.and_(a, _all(_WORDS, 255)), builder.ashr(builder.shl(b, eight), eight)
        odd = builder.lshr(a, eight), builder.ashr(b, eight)
        for words in (even, odd):
            sums = builder.add(sums, _multiply_pairs(builder, features, *words))
        return sums

    return SUMS(SUMS, BYTES, BYTES), build


@intrinsic
def note_unequal(typing: Any, noted: Any, a: Any, b: Any, mask: Any) -> Any:
    """Set bits where two vectors of bytes differ and a mask has ones; the others are kept."""
    if not (noted is SUMS and a is BYTES and b is BYTES and mask is BYTES):
        return None

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        noted, a, b, mask = args
        return builder.or_(noted, builder.and_(builder.xor(a, b), mask))

    return SUMS(SUMS, BYTES, BYTES, BYTES), build


@intrinsic
def any_bit(typing: Any, sums: Any) -> Any:
    """Return whether any bit is set."""
    if sums is not SUMS:
        return None

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        unequal = builder.icmp_unsigned("!=", args[0], _all(_SUMS, 0))
        bits = builder.bitcast(unequal, ir.IntType(16))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(SUMS), build


@intrinsic
def store(typing: Any, address: Any, sums: Any) -> Any:
    """Write the 16 sums as int32."""
    if sums is not SUMS:
        return None

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[1], builder.inttoptr(args[0], _SUMS.as_pointer()), align=4)
        return context.get_dummy_value()

    return types.void(types.intp, SUMS), build


@intrinsic
def total(typing: Any, sums: Any) -> Any:
    """Return the sum of the sums as int64."""
    if sums is not SUMS:
        return None

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        value = builder.sext(args[0], ir.VectorType(_I64, 16))
        for half in (8, 4, 2, 1):
            value = builder.add(_part(builder, value, 0, half), _part(builder, value, half, half))
        return builder.extract_element(value, ir.Constant(_I32, 0))

    return types.int64(SUMS), build


@intrinsic
def _pointer(typing: Any, address: Any) -> Any:
    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], _I8.as_pointer())

    return types.voidptr(types.intp), build


@numba.njit(nogil=True)
def bytes_at(address: int, count: int) -> NDArray[np.uint8]:
    """Return the bytes at an address as an array, without a copy."""
    return carray(_pointer(address), (count,), np.uint8)


def _features(context: Any) -> set[str]:
    """Name what the CPU compiled for is known to have."""
    enabled = (name for name in context.codegen().magic_tuple()[2].split(",") if name[:1] == "+")
    return {name[1:] for name in enabled}


def _multiply_pairs(builder: Any, features: set[str], a: Any, b: Any) -> Any:
    """Multiply 32 words by 32 words and add neighbours: 16 sums."""
    name, lanes = "llvm.x86.sse2.pmadd.wd", 8
    if "avx512bw" in features:
        name, lanes = "llvm.x86.avx512.pmaddw.d.512", 32
    elif "avx2" in features:
        name, lanes = "llvm.x86.avx2.pmadd.wd", 16
    if not builder.module.triple.startswith("x86_64"):
        return _multiply_pairs_anywhere(builder, a, b)
    parts = [
        _call(
            builder,
            name,
            ir.VectorType(_I32, lanes // 2),
            [_part(builder, a, first, lanes), _part(builder, b, first, lanes)],
        )
        for first in range(0, 32, lanes)
    ]
    while len(parts) > 1:
        parts = [_join(builder, *parts[i : i + 2]) for i in range(0, len(parts), 2)]
    return parts[0]


def _multiply_pairs_anywhere(builder: Any, a: Any, b: Any) -> Any:
    """Multiply word by word and add neighbours, in plain vector operations."""
    wide = ir.VectorType(_I32, 32)
    products = builder.mul(builder.sext(a, wide), builder.sext(b, wide))
    first, second = (_shuffle(builder, products, products, range(i, 32, 2)) for i in (0, 1))
    return builder.add(first, second)


def _call(builder: Any, name: str, result: ir.VectorType, args: list[Any]) -> Any:
    function = builder.module.globals.get(name)
    if function is None:
        function_type = ir.FunctionType(result, [arg.type for arg in args])
        function = ir.Function(builder.module, function_type, name)
    return builder.call(function, args)


def _part(builder: Any, vector: Any, first: int, count: int) -> Any:
    return _shuffle(builder, vector, vector, range(first, first + count))


def _join(builder: Any, a: Any, b: Any) -> Any:
    return _shuffle(builder, a, b, range(2 * a.type.count))


def _shuffle(builder: Any, a: Any, b: Any, order: Sequence[int]) -> Any:
    mask = ir.Constant(ir.VectorType(_I32, len(order)), list(order))
    return builder.shuffle_vector(a, b, mask)
