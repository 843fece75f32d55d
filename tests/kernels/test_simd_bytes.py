"""Sums of products of bytes against NumPy, on each way that a CPU may compute them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from llvmlite import ir
from numba import njit
from numba.extending import intrinsic

from apexflow.kernels import simd_bytes as simd
from apexflow.kernels.simd import keep

ROOT = Path(__file__).parents[2]
EXTREMES = np.array([0, 1, 2, 127, 128, 129, 254, 255], np.uint8)


@njit
def dot_of(a, b, repeat):
    sums = simd.zeros()
    for _ in range(repeat):
        sums = simd.dot(sums, simd.load(a.ctypes.data), simd.flip(simd.load(b.ctypes.data)))
    return simd.total(sums)


def check_dots() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        a, b = rng.choice(EXTREMES, (2, 64))
        assert dot_of(a, b, 1) == a.astype(int) @ (b.astype(int) - 128)
    worst = np.full(64, 255, np.uint8), np.zeros(64, np.uint8)
    assert dot_of(*worst, simd.MAXIMUM_DOTS) == simd.MAXIMUM_DOTS * 64 * 255 * -128
    assert dot_of(worst[0], worst[0], simd.MAXIMUM_DOTS) == simd.MAXIMUM_DOTS * 64 * 255 * 127


@njit
def column_sums_of(a, stride, lanes):
    ones = np.ones(64, np.uint8)
    columns = simd.load_columns(a.ctypes.data, stride)
    simd.store(lanes.ctypes.data, simd.dot(simd.zeros(), columns, simd.load(ones.ctypes.data)))
    return keep(ones)


@njit
def differ(a, b, mask):
    at = a.ctypes.data, b.ctypes.data, mask.ctypes.data
    noted = simd.note_unequal(simd.zeros(), simd.load(at[0]), simd.load(at[1]), simd.load(at[2]))
    return simd.any_bit(
        simd.note_unequal(noted, simd.load(at[0]), simd.load(at[0]), simd.load(at[2]))
    )


def check_columns() -> None:
    rng = np.random.default_rng(1)
    for stride in (16, 37, 200):
        rows = rng.choice(EXTREMES, (4, stride))
        lanes = np.empty(16, np.int32)
        column_sums_of(rows, stride, lanes)
        np.testing.assert_array_equal(lanes, rows[:, :16].sum(0, dtype=int))


def check_differences() -> None:
    rng = np.random.default_rng(2)
    for at in range(64):
        a, mask = rng.choice(EXTREMES, 64), np.zeros(64, np.uint8)
        b = a.copy()
        b[at] ^= 1 << rng.integers(8)
        assert not differ(a, b, mask)
        mask[at] = 255
        assert differ(a, b, mask)
        assert not differ(a, a, mask)


def check_all() -> None:
    check_dots()
    check_columns()
    check_differences()


@pytest.mark.parametrize("check", [check_dots, check_columns, check_differences])
def test_equals_numpy(check):
    check()


@pytest.mark.parametrize(
    "features", ["", "+avx2", "+avx2,+avx512f,+avx512bw", "+avx2,+avx512f,+avx512bw,+avx512vnni"]
)
def test_equals_numpy_with_other_instructions(features):
    from llvmlite import binding

    here = binding.get_host_cpu_features()
    if not all(here.get(name[1:], False) for name in features.split(",") if name):
        pytest.skip(f"this CPU has no {features}")
    script = "from tests.kernels.test_simd_bytes import check_all; check_all()"
    environment = os.environ | {"NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": features}
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=environment, check=True)


@intrinsic
def plain_pairs(typing, words):
    """The form for CPUs whose instructions are not known, on the bytes of one vector."""

    def build(context, builder, sig, args):
        words = builder.bitcast(args[0], ir.VectorType(ir.IntType(16), 32))
        return simd._multiply_pairs_anywhere(builder, words, words)

    return simd.SUMS(simd.BYTES), build


@njit
def plain_squares(words):
    return simd.total(plain_pairs(simd.load(words.ctypes.data)))


def test_the_plain_form_has_the_same_total():
    words = np.random.default_rng(1).integers(-5000, 5000, 32).astype(np.int16)
    assert plain_squares(words) == (words.astype(int) ** 2).sum()


@njit
def last_of(a):
    return simd.bytes_at(a.ctypes.data, a.size)[-1]


def test_bytes_at_is_a_view():
    a = np.arange(100, dtype=np.uint8)
    assert last_of(a) == 99
