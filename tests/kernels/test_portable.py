"""The kernels on other CPUs, in new processes with empty caches: the same answers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from llvmlite import binding

from tests.kernels.portable import answers

ROOT = Path(__file__).parents[2]

# What may differ: the CPU may round a * b + c once or twice. A match may not.
TOLERANCES = {
    "template, gray": 0,
    "template, colour": 0,
    "farneback, box": 1e-3,
    "farneback, Gaussian": 1e-2,
    "tvl1": 1e-4,
    "hsv": 1,
    "strain": 1e-6,
    "light": 1e-3,
    "clg": 1e-3,
    "clg, sequence": 1e-3,
}


def start(
    cache: Path, result: Path, cpu: dict[str, str], only: str = ""
) -> subprocess.Popen[bytes]:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)} | cpu
    command = [sys.executable, "-m", "tests.kernels.portable", str(result), only]
    return subprocess.Popen(command, cwd=ROOT, env=environment)


def assert_same_answers(result: Path, only: str = "") -> None:
    expected = answers(only)
    with np.load(result) as found:
        assert set(found) == set(expected) == ({only} if only else set(TOLERANCES))
        for name in found:
            tolerance = TOLERANCES[name]
            difference = np.abs(found[name].astype(float) - expected[name]).max()
            assert difference <= tolerance, name


@pytest.mark.parametrize("only", ["strain", pytest.param("", marks=pytest.mark.slow)])
def test_two_first_starts_at_once_on_a_plain_cpu(tmp_path, only):
    """Both processes find an empty cache, compile and write the same files."""
    plain = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    results = [tmp_path / f"{number}.npz" for number in range(3)]
    first, second = (start(tmp_path / "cache", result, plain, only) for result in results[:2])
    assert (first.wait(), second.wait()) == (0, 0)
    # A later process reads what they left.
    assert start(tmp_path / "cache", results[2], plain, only).wait() == 0
    for result in results:
        assert_same_answers(result, only)


def test_every_kernel_on_a_plain_cpu(tmp_path):
    plain = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    assert start(tmp_path / "cache", tmp_path / "result.npz", plain).wait() == 0
    assert_same_answers(tmp_path / "result.npz")


@pytest.mark.slow
def test_a_cpu_with_avx2_alone(tmp_path):
    if not binding.get_host_cpu_features().get("avx2", False):
        pytest.skip("this CPU has no AVX2")
    cpu = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma"}
    assert start(tmp_path / "cache", tmp_path / "result.npz", cpu).wait() == 0
    assert_same_answers(tmp_path / "result.npz")


@pytest.mark.parametrize("byte", ["255", "1"])
def test_what_memory_held_before_does_not_matter(tmp_path, byte):
    """The C library fills memory that is freed with a byte, and what it gives out with its inverse.

    Of 255 floats are not numbers: a kernel that reads what it has freed or never written shows.
    """
    if sys.platform != "linux":
        pytest.skip("MALLOC_PERTURB_ is glibc's")
    environment = os.environ | {"MALLOC_PERTURB_": byte}
    command = [sys.executable, "-m", "tests.kernels.portable", str(tmp_path / "result.npz")]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    with np.load(tmp_path / "result.npz") as found:
        expected = answers()
        assert set(found) == set(expected)
        for name in found:
            np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
