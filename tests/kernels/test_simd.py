"""Each vector operation against NumPy on the same 16 numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from apexflow.kernels import simd

Vectors = np.ndarray[Any, np.dtype[Any]]

DTYPES = (np.float32, np.float64)


@njit
def apply_arithmetic(a: Vectors, b: Vectors, c: Vectors, out: Vectors) -> None:
    u, v, w = simd.load(a, 0), simd.load(b, 0), simd.load(c, 0)
    simd.store(out, 0, u + v)
    simd.store(out, 16, u - v)
    simd.store(out, 32, u * v)
    simd.store(out, 48, u / v)
    simd.store(out, 64, -u)
    simd.store(out, 80, simd.minimum(u, v))
    simd.store(out, 96, simd.maximum(u, v))
    simd.store(out, 112, simd.select(u < v, u, w))
    simd.store(out, 128, simd.select(u <= v, u, w))
    simd.store(out, 144, simd.select((u < v) & (u < w), u, w))
    simd.store(out, 160, simd.select((u < v) | (u < w), u, w))
    simd.store(out, 176, simd.floor(u))
    simd.store(out, 192, simd.absolute(u))
    simd.store(out, 208, simd.sqrt(simd.absolute(u)))
    simd.store(out, 224, simd.truncate(u))
    simd.store(out, 240, simd.nearest(u))
    simd.store(out, 256, simd.even_lanes(u, v))
    simd.store(out, 272, simd.odd_lanes(u, v))
    simd.store(out, 288, simd.select(~(u < v), u, w))
    simd.store(out, 304, simd.shift(u, v, 3))


def expected_arithmetic(a: Vectors, b: Vectors, c: Vectors) -> list[Vectors]:
    return [
        a + b,
        a - b,
        a * b,
        a / b,
        -a,
        np.minimum(a, b),
        np.maximum(a, b),
        np.where(a < b, a, c),
        np.where(a <= b, a, c),
        np.where((a < b) & (a < c), a, c),
        np.where((a < b) | (a < c), a, c),
        np.floor(a),
        np.abs(a),
        np.sqrt(np.abs(a)),
        np.trunc(a),
        np.rint(a),
        np.append(a, b)[::2],
        np.append(a, b)[1::2],
        np.where(~(a < b), a, c),
        np.append(a[3:], b[:3]),
    ]


def numbers(seed: int, dtype: type, count: int = 3) -> list[Vectors]:
    """Vectors that share some values, so that comparisons meet ties."""
    rng = np.random.default_rng(seed)
    values = rng.normal(0, 100, 24).astype(dtype)
    return [rng.choice(values, 16) for _ in range(count)]


@pytest.mark.parametrize("dtype", DTYPES)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_arithmetic_equals_numpy_bit_for_bit(dtype: type, seed: int) -> None:
    a, b, c = numbers(seed, dtype)
    expected = np.concatenate(expected_arithmetic(a, b, c))
    out = np.empty_like(expected)
    apply_arithmetic(a, b, c, out)
    np.testing.assert_array_equal(out, expected)


@njit
def apply_muladd(a: Vectors, b: Vectors, c: Vectors, out: Vectors) -> None:
    simd.store(out, 0, simd.muladd(simd.load(a, 0), simd.load(b, 0), simd.load(c, 0)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_muladd_rounds_once_or_twice(dtype: type) -> None:
    a, b, c = numbers(1, dtype)
    out = np.empty_like(a)
    apply_muladd(a, b, c, out)
    exact = a.astype(np.longdouble) * b + c
    unit = np.finfo(dtype).eps * (np.abs(a * b) + np.abs(c))
    assert (np.abs(out - exact) <= unit).all()


@njit
def apply_nearest(a: Vectors, out: Vectors) -> None:
    simd.store(out, 0, simd.nearest(simd.load(a, 0)))


def test_nearest_takes_halves_to_the_even_number() -> None:
    a = np.arange(-8, 8, dtype=np.float32) + np.float32(0.5)
    out = np.empty(16, np.float32)
    apply_nearest(a, out)
    np.testing.assert_array_equal(out, np.rint(a))


@njit
def apply_estimates(a: Vectors, out: Vectors) -> None:
    u = simd.load(a, 0)
    simd.store(out, 0, simd.reciprocal(u))
    simd.store(out, 16, simd.inverse_sqrt(simd.absolute(u)))


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_estimates_are_within_a_millionth(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = (rng.choice([-1, 1], 16) * 10 ** rng.uniform(-30, 30, 16)).astype(np.float32)
    out = np.empty(32, np.float32)
    apply_estimates(a, out)
    exact = a.astype(np.float64)
    expected = np.concatenate([1 / exact, 1 / np.sqrt(np.abs(exact))])
    np.testing.assert_allclose(out, expected, rtol=1e-6)


@njit
def apply_reductions(a: Vectors, limit: Any) -> tuple[Any, Any, bool, bool]:
    u = simd.load(a, 0)
    below = u < simd.splat(limit)
    return simd.lowest(u), simd.highest(u), simd.any_lane(below), simd.all_lanes(~below)


@pytest.mark.parametrize("dtype", DTYPES)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_reductions_find_the_extremes(dtype: type, seed: int) -> None:
    a = numbers(seed, dtype, 1)[0]
    assert apply_reductions(a, a.min()) == (a.min(), a.max(), False, True)
    above = np.nextafter(a.min(), dtype(np.inf))
    assert apply_reductions(a, above) == (a.min(), a.max(), True, False)


@njit
def copy_shifted(source: Vectors, target: Vectors, i: int, j: int) -> None:
    simd.store(target, j, simd.load(source, i))


@pytest.mark.parametrize("dtype", DTYPES)
def test_load_and_store_take_any_offset_and_read_only_arrays(dtype: type) -> None:
    source = np.arange(60, dtype=dtype).reshape(3, 20)
    source.flags.writeable = False
    target = np.zeros(40, dtype)
    copy_shifted(source, target, 7, 3)
    expected = np.zeros(40, dtype)
    expected[3:19] = np.arange(7, 23)
    np.testing.assert_array_equal(target, expected)


@njit
def apply_conversions(a: Vectors, wide: Vectors, back: Vectors, ramp: Vectors) -> None:
    w = simd.widen(simd.load(a, 0))
    simd.store(wide, 0, w * w)
    simd.store(back, 0, simd.narrow(w * w))
    simd.store(ramp, 0, simd.ramp())


def test_conversions_are_exact_upwards_and_rounded_downwards() -> None:
    a = numbers(2, np.float32, 1)[0]
    wide, back, ramp = np.empty(16), np.empty(16, np.float32), np.empty(16, np.float32)
    apply_conversions(a, wide, back, ramp)
    np.testing.assert_array_equal(wide, a.astype(np.float64) ** 2)
    np.testing.assert_array_equal(back, (a.astype(np.float64) ** 2).astype(np.float32))
    np.testing.assert_array_equal(ramp, np.arange(16))


@njit
def sum_behind_pointer(a: Vectors, out: Vectors) -> None:
    simd.prefetch(a, 1 << 40)  # reads nothing, so it may point anywhere
    source, target = simd.pointer(a), simd.pointer(out)
    simd.store(target, 1, simd.load(source, 2) + simd.splat(source[0]))


@pytest.mark.parametrize("dtype", DTYPES)
def test_pointers_read_and_write_what_arrays_do(dtype: type) -> None:
    a, out = np.arange(1, 19, dtype=dtype), np.zeros(18, dtype)
    sum_behind_pointer(a, out)
    np.testing.assert_array_equal(out, [0, *(a[2:] + a[0]), 0])


@given(count=st.integers(0, 100))
@settings(max_examples=10, deadline=None)
def test_aligned_arrays_start_at_a_vector(count: int) -> None:
    array = simd.aligned(count)
    assert (array.dtype, array.shape, array.ctypes.data % 64) == (np.float32, (count,), 0)


def strided(a: Vectors) -> Any:
    return simd.load(a, 0)


def shifted_by_a_variable(a: Vectors) -> None:
    simd.shift(simd.load(a, 0), simd.load(a, 16), a.size)


def stored_as_other_type(a: Vectors) -> None:
    simd.store(a, 0, simd.widen(simd.load(a, 0)))


@pytest.mark.parametrize(
    ("function", "array"),
    [
        (strided, np.zeros((40, 2), np.float32)[:, 0]),
        (strided, np.zeros(40, np.int32)),
        (stored_as_other_type, np.zeros(40, np.float32)),
        (shifted_by_a_variable, np.zeros(40, np.float32)),
    ],
)
def test_wrong_types_do_not_compile(function: Callable[..., Any], array: Vectors) -> None:
    from numba import TypingError

    with pytest.raises(TypingError):
        njit(function)(array)
