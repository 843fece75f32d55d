"""The shim shows what a GPU would do, and the errors that a GPU hides."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.kernels.cuda import build as building
from tests.kernels.cuda.build import ShimDevice, runtime_of_address_sanitizer
from tests.kernels.cuda.conftest import ADDRESSES


@pytest.fixture
def compiled(shim: ShimDevice, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """Return a function that builds one kernel ``f`` from text."""

    def build(text: str) -> Any:
        monkeypatch.setattr(building, "source_text", lambda _: f'extern "C" __global__ {text}')
        return ShimDevice(tmp_path).kernel("text.cu", "f")

    return build


def test_threads_meet_at_barriers(compiled: Any) -> None:
    f = compiled(
        """void f(const int* in, int* out) {
        __shared__ int part[64];
        part[threadIdx.x] = in[blockIdx.x * 64 + threadIdx.x];
        __syncthreads();
        for (int half = 32; half > 0; half /= 2) {
            if (threadIdx.x < half) part[threadIdx.x] += part[threadIdx.x + half];
            __syncthreads();
        }
        if (threadIdx.x == 0) out[blockIdx.x] = part[0];
    }""".replace("threadIdx.x < half", "int(threadIdx.x) < half")
    )
    values = np.random.default_rng(0).integers(-1000, 1000, (5, 64), dtype=np.int32)
    sums = np.zeros(5, np.int32)
    f((5,), (64,), (values, sums))
    np.testing.assert_array_equal(sums, values.sum(1))


def test_a_missing_barrier_shows(compiled: Any) -> None:
    f = compiled("""void f(int* out) {
        __shared__ int part[64];
        part[threadIdx.x] = threadIdx.x;
        out[blockIdx.x * 64 + threadIdx.x] = threadIdx.x > 0 ? part[threadIdx.x - 1] : 0;
    }""")
    out = np.zeros((2, 64), np.int32)
    f((2,), (64,), (out,))
    expected = np.maximum(np.arange(64) - 1, 0)
    np.testing.assert_array_equal(out[0], expected)  # these threads ran in order
    assert (out[1] != expected).any()


def test_a_barrier_that_some_threads_never_reach_is_an_error(compiled: Any) -> None:
    f = compiled("void f() { if (threadIdx.x < 7) __syncthreads(); }")
    with pytest.raises(RuntimeError, match="a barrier that not all threads"):
        f((1,), (32,), ())


def test_numbers_that_are_not_normal_are_zero_as_cupy_compiles(compiled: Any) -> None:
    f = compiled(
        "void f(const float* in, float* out) { out[0] = in[0] * 0.5f; out[1] = in[1] * 2; }"
    )
    smallest = np.finfo(np.float32).tiny
    values, out = np.array([smallest, smallest / 4], np.float32), np.ones(2, np.float32)
    f((1,), (1,), (values, out))
    np.testing.assert_array_equal(out, 0)
    assert values[0] * np.float32(0.5) > 0  # and nowhere else


def test_three_dimensions_and_dynamic_shared_memory(compiled: Any) -> None:
    f = compiled("""void f(unsigned* out) {
        DYNAMIC_SHARED(unsigned, seen);
        const unsigned t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
        seen[t] = t;
        __syncthreads();
        const unsigned b = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
        const unsigned n = blockDim.x * blockDim.y * blockDim.z;
        out[b * n + t] = b * n + seen[n - 1 - t];
    }""")
    out = np.zeros((2 * 3 * 4, 5 * 3 * 2), np.uint32)
    f((2, 3, 4), (5, 3, 2), (out,), shared_bytes=120)
    expected = np.arange(out.size).reshape(out.shape)[:, ::-1]
    np.testing.assert_array_equal(out, expected)


def test_warps_shuffle_and_vote(compiled: Any) -> None:
    f = compiled("""void f(const float* in, float* total, float* next, unsigned* votes, int* all) {
        const int t = threadIdx.x;
        float sum = in[t];
        for (int by = 16; by > 0; by /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, by);
        total[t] = sum;
        next[t] = __shfl_down_sync(0xffffffffu, in[t], 1);
        votes[t] = __ballot_sync(0xffffffffu, in[t] > 40);
        all[t] = __syncthreads_count(in[t] > 40);
    }""")
    values = np.random.default_rng(0).integers(0, 100, 96).astype(np.float32)
    total, following = np.zeros((2, 96), np.float32)
    votes, count = np.zeros(96, np.uint32), np.zeros(96, np.int32)
    f((1,), (96,), (values, total, following, votes, count))
    warps = values.reshape(3, 32)
    np.testing.assert_array_equal(total.reshape(3, 32), warps.sum(1, keepdims=True) + 0 * warps)
    np.testing.assert_array_equal(following.reshape(3, 32)[:, :31], warps[:, 1:])
    bits = ((warps > 40) << np.arange(32)).sum(1)
    np.testing.assert_array_equal(votes.reshape(3, 32), np.repeat(bits[:, None], 32, 1))
    assert (count == (values > 40).sum()).all()


@pytest.mark.parametrize(
    ("grid", "block", "args", "error", "rule"),
    [
        ((1,), (1025,), None, RuntimeError, "a block of 1 to 1024 threads"),
        ((1, 65536), (1,), None, RuntimeError, "a grid of at most"),
        ((1,), (1,), (np.zeros(1), np.int32(1)), TypeError, "array of f4. Got float64"),
        ((1,), (1,), (np.zeros(1, np.float32), 1), TypeError, "scalar i4. Got 1"),
        ((1,), (1,), (np.zeros(1, np.float32), np.int64(1)), TypeError, "scalar i4"),
        ((1,), (1,), (np.zeros((4, 4), np.float32).T, np.int32(1)), TypeError, "C-contiguous"),
        ((1,), (1,), (np.float32(0), np.int32(1)), TypeError, "must be an array"),
        ((1,), (1,), (np.zeros(1, np.float32),), TypeError, "takes 2 arguments. Got 1"),
        ((1,), (1,), (np.broadcast_to(np.float32(0), 1), np.int32(1)), TypeError, "read-only"),
    ],
)
def test_what_a_card_would_misread_is_refused(
    compiled: Any, grid: Any, block: Any, args: Any, error: Any, rule: str
) -> None:
    f = compiled("void f(float* out, int value) { out[0] = value; }")
    with pytest.raises(error, match=rule):
        f(grid, block, args or (np.zeros(1, np.float32), np.int32(1)))


OVERRUN = """
import sys
import numpy as np
from pathlib import Path
from tests.kernels.cuda import build
build.source_text = lambda _: sys.argv[3]
f = build.ShimDevice(Path(sys.argv[1]), addresses=sys.argv[2] == "1").kernel("text.cu", "f")
f((1,), (64,), (np.zeros(64, np.float32), np.int32(64)))
"""


@pytest.mark.parametrize(
    ("body", "addresses", "said"),
    [
        ("out[threadIdx.x + 64] = n;", True, "heap-buffer-overflow"),
        ("__shared__ int s[64]; s[threadIdx.x + n] = 1; out[0] = s[0];", False, "out of bounds"),
        ("out[0] = 0x7fffffff + n;", False, "signed integer overflow"),
        ("out[0] = int(out[1] * n + 1e20f);", False, "outside the range"),
        (
            "if (out[threadIdx.x] == 0) { __syncthreads(); out[-int(threadIdx.x)] = n; }",
            True,
            "heap-buffer-overflow",
        ),
    ],
)
def test_sanitizers_stop_what_is_undefined(
    shim: ShimDevice, tmp_path: Path, body: str, addresses: bool, said: str
) -> None:
    if addresses and runtime_of_address_sanitizer() is None:
        pytest.skip("no AddressSanitizer")
    text = f'extern "C" __global__ void f(float* out, int n) {{ {body} }}'
    done = _child(["-c", OVERRUN, str(tmp_path), str(int(addresses)), text], addresses)
    assert done.returncode != 0
    assert said in done.stderr


def test_small_cases_of_all_twins_stay_within_their_arrays() -> None:
    if os.environ.get(ADDRESSES) == "1":
        pytest.skip("this is the process that it starts")
    if runtime_of_address_sanitizer() is None:
        pytest.skip("no AddressSanitizer")
    options = ["-q", "-x", "-p", "no:cacheprovider", "-m", "addresses and not gpu and not slow"]
    done = _child(["-m", "pytest", *options, str(Path(__file__).parent)], True)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def _child(arguments: list[str], addresses: bool) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ)
    if addresses:
        environment |= {
            "LD_PRELOAD": str(runtime_of_address_sanitizer()),
            "ASAN_OPTIONS": "detect_leaks=0",
            ADDRESSES: "1",
        }
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=Path(__file__).parents[3],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
