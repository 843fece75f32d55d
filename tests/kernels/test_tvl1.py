"""TV-L1 against OpenCV step by step and as a whole, and against known motion."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import cv2
import llvmlite.binding
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from apexflow.kernels import tvl1
from apexflow.kernels.flow_tvl1 import cpu, prepare_tvl1
from apexflow.kernels.simd import pointer, store

SIDES = st.integers(16, 100)
SEEDS = st.integers(0, 2**32 - 1)
CHEAP = {"nscales": 2, "warps": 2, "outer_iterations": 2}


def opencv_tvl1(first, second, **names):
    return cv2.optflow.DualTVL1OpticalFlow_create(**names).calc(first, second, None)


def texture(height, width, sigma, rng):
    """Return smooth noise over 0..255, larger than asked by 16 px on each side."""
    noise = rng.uniform(0, 1, (height + 32, width + 32)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), sigma)
    return cv2.normalize(smooth, None, 0, 255, cv2.NORM_MINMAX)


def moving_pair(height, width, amplitude, seed):
    """Return two uint8 frames and the true flow of the first, up to ``amplitude`` px."""
    rng = np.random.default_rng(seed)
    image = texture(height, width, rng.uniform(1.5, 4), rng)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    phase = rng.uniform(0, 6, 4).astype(np.float32)
    u = amplitude * np.sin(x / 40 + phase[0]) * np.cos(y / 50 + phase[1])
    v = 0.8 * amplitude * np.cos(x / 35 + phase[2]) * np.sin(y / 45 + phase[3])
    second = cv2.remap(image, x + 16, y + 16, cv2.INTER_CUBIC)
    first = cv2.remap(image, x + 16 + u, y + 16 + v, cv2.INTER_CUBIC)
    frames = [np.rint(frame).clip(0, 255).astype(np.uint8) for frame in (first, second)]
    return *frames, np.stack([u, v], -1)


def error(flow, truth):
    return float(np.linalg.norm(flow - truth, axis=-1).mean())


@given(
    height=SIDES,
    width=SIDES,
    seed=SEEDS,
    amplitude=st.sampled_from([0, 0.2, 1, 3]),
    tau=st.sampled_from([0.25, 0.1]),
    lambda_=st.sampled_from([0.15, 0.05, 1]),
    theta=st.sampled_from([0.3, 0.15]),
    median=st.sampled_from([1, 3, 5]),
    epsilon=st.sampled_from([0.01, 0.003]),
)
@settings(deadline=None, max_examples=60)
def test_one_warp_equals_opencv(
    height, width, seed, amplitude, tau, lambda_, theta, median, epsilon
):
    first, second, _ = moving_pair(height, width, amplitude, seed)
    options = {"tau": tau, "lambda_": lambda_, "theta": theta, "epsilon": epsilon}
    flow = tvl1(first, second, nscales=1, warps=1, median_filtering=median, **options)
    expected = opencv_tvl1(first, second, nscales=1, warps=1, medianFiltering=median, **options)
    assert (flow.shape, flow.dtype) == ((height, width, 2), np.float32)
    # Many iterations carry a rounding on: of 2,919 random cases 4 had a pixel beyond 1e-4, none
    # beyond 2.6e-4.
    np.testing.assert_allclose(flow, expected, atol=1e-3, rtol=0)
    assert np.mean(np.abs(flow - expected) > 1e-4) < 0.02


@given(height=SIDES, width=SIDES, seed=SEEDS)
@settings(deadline=None, max_examples=30)
def test_noise_and_float_images_equal_opencv(height, width, seed):
    rng = np.random.default_rng(seed)
    first, second = rng.uniform(0, 1, (2, height, width)).astype(np.float32)
    flow = tvl1(first, second, nscales=1, warps=1)
    expected = opencv_tvl1(first, second, nscales=1, warps=1)
    np.testing.assert_allclose(flow, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shift", [0.1, 0.25, -0.4])
def test_the_cubic_of_minus_a_half_measures_shifts_without_a_bias(shift):
    """A ramp with a little texture: what OpenCV's cubic makes of it is tens of times worse."""
    y, x = np.mgrid[:64, :96].astype(np.float64)

    def image(x):
        return (0.2 + x / 200 + 0.02 * np.sin(x / 5) * np.cos(y / 6)).astype(np.float32)

    errors = {}
    for cubic in (-0.5, -0.75):
        flow = tvl1(image(x), image(x - shift), nscales=1, warps=20, cubic=cubic, epsilon=1e-4)
        errors[cubic] = abs(np.median(flow[16:-16, 16:-16, 0]) - shift)
    assert errors[-0.5] < 0.005
    assert errors[-0.75] > 0.01


@given(height=SIDES, width=SIDES, seed=SEEDS, reach=st.sampled_from([0.4, 3, 30, 300]))
@settings(deadline=None, max_examples=40)
def test_warp_from_any_flow_equals_opencv(height, width, seed, reach):
    """One warp that starts from given flows: smooth, torn, and far outside the image."""
    rng = np.random.default_rng(seed)
    first, second, _ = moving_pair(height, width, 1, seed)
    start = rng.normal(0, reach, (height, width, 2)).astype(np.float32)
    if seed % 2:
        start = cv2.GaussianBlur(start, (0, 0), 8)
    # A multiple of 1/64 px, so that x + u is exact and no rounding picks another cell.
    start = np.rint(start * 64) / np.float32(64)
    names = {"nscales": 1, "warps": 1, "medianFiltering": 1, "outerIterations": 1}
    algorithm = cv2.optflow.DualTVL1OpticalFlow_create(
        innnerIterations=3, useInitialFlow=True, **names
    )
    expected = algorithm.calc(first, second, start.copy())
    before = start.copy()
    flow = tvl1(
        first,
        second,
        nscales=1,
        warps=1,
        median_filtering=1,
        outer_iterations=1,
        inner_iterations=3,
        initial_flow=start,
    )
    # Flows of hundreds of pixels carry float32's own rounding.
    np.testing.assert_allclose(flow, expected, atol=1e-4, rtol=1e-5)
    np.testing.assert_array_equal(start, before)


def test_initial_flow_goes_through_the_pyramid_as_in_opencv():
    first, second, truth = moving_pair(90, 120, 3, 5)
    start = (truth * 0.8).astype(np.float32)
    names = {"nscales": 3, "warps": 1, "outerIterations": 1, "innnerIterations": 2}
    algorithm = cv2.optflow.DualTVL1OpticalFlow_create(useInitialFlow=True, **names)
    expected = algorithm.calc(first, second, start.copy())
    options = {"nscales": 3, "warps": 1, "outer_iterations": 1, "inner_iterations": 2}
    flow = tvl1(first, second, initial_flow=start, **options)
    np.testing.assert_allclose(flow, expected, atol=1e-3, rtol=0)
    batch = tvl1(np.stack([first] * 2), second, initial_flow=np.stack([start] * 2), **options)
    np.testing.assert_array_equal(batch, np.stack([flow, flow]))


@given(height=SIDES, width=SIDES, seed=SEEDS, size=st.sampled_from([3, 5]))
@settings(deadline=None, max_examples=40)
def test_median_equals_opencv(height, width, seed, size):
    field = np.random.default_rng(seed).integers(-9, 9, (height, width)).astype(np.float32)
    pitch = cpu._pitch(width)
    rows = np.zeros((height + 1, cpu.FIELDS, pitch), np.float32)
    rows[1:, cpu.U2, :width] = field
    copy = np.full((height + 4) * (pitch + 16), np.nan, np.float32)
    columns = np.full(5 * (pitch + 16), np.nan, np.float32)
    run_median(rows, height, width, pitch, size, copy, columns)
    np.testing.assert_array_equal(rows[1:, cpu.U2, :width], cv2.medianBlur(field, size))
    rows[1:, cpu.U2, :width] = 0
    assert not rows.any()


@njit
def run_median(rows, height, width, pitch, size, copy, columns):
    rows, copy, columns = pointer(rows), pointer(copy), pointer(columns)
    cpu._median(rows, cpu.U2, height, width, pitch, size, copy, columns)


def test_median_of_sorted_columns_by_the_0_1_principle():
    """Right for all 6^5 states of five sorted columns of 0 and 1, hence for all numbers."""
    zeros = np.array(list(product(range(6), repeat=5)))  # zeros in each column
    lines = (np.arange(5)[:, None, None] >= zeros.T).astype(np.float32)  # rank, column, state
    medians = np.zeros((len(zeros), 16), np.float32)
    median_of_lines(np.ascontiguousarray(np.moveaxis(lines, -1, 0)), medians)
    np.testing.assert_array_equal(medians[:, 0], lines.sum((0, 1)) >= 13)


@njit
def median_of_lines(states, medians):
    lines = np.zeros((5, 32), np.float32)
    for n in range(len(states)):
        lines[:, :5] = states[n]
        store(medians, n * 16, cpu._median_of_columns5(pointer(lines), 0, 32))


def test_error_of_whole_flow_is_opencv_s():
    """In the sum over pairs: one pair's error is chaotic, OpenCV's own noise of it is 1-5%."""
    ours = theirs = 0.0
    for seed, amplitude in enumerate([0.2, 0.5, 1, 1.5, 2, 2.5, 3, 3] * 4):
        first, second, truth = moving_pair(130 + 3 * seed, 160, amplitude, seed)
        ours += error(tvl1(first, second), truth)
        theirs += error(opencv_tvl1(first, second), truth)
    assert abs(ours / theirs - 1) < 0.01


@pytest.mark.parametrize("amplitude", [0.2, 1, 3])
def test_known_motion_is_found(amplitude):
    first, second, truth = moving_pair(224, 224, amplitude, 11)
    assert error(tvl1(first, second), truth) < 0.1 * error(0 * truth, truth) + 0.02


def test_equal_and_flat_images_do_not_move():
    first, _, _ = moving_pair(60, 70, 0, 3)
    assert not tvl1(first, first).any()
    assert not tvl1(np.full((40, 40), 7, np.uint8), np.full((40, 40), 7, np.uint8)).any()
    flat = tvl1(np.full((40, 40), 7, np.uint8), np.full((40, 40), 200, np.uint8))
    assert np.isfinite(flat).all()


@given(height=SIDES, width=SIDES, seed=SEEDS, count=st.integers(1, 3))
@settings(deadline=None, max_examples=15)
def test_batches_views_and_prepared_frames_give_the_same(height, width, seed, count):
    pairs = [moving_pair(height, width, 1, seed + i)[:2] for i in range(count)]
    first, second = (np.stack(frames) for frames in zip(*pairs, strict=True))
    for frames in (first, second):
        frames.flags.writeable = False
    single = np.stack([tvl1(*pair, **CHEAP) for pair in pairs])
    np.testing.assert_array_equal(tvl1(first, second, **CHEAP), single)
    np.testing.assert_array_equal(single[0], tvl1(first[:1], second[0], **CHEAP)[0])
    wide = np.asfortranarray(np.repeat(first, 2, axis=2))[:, :, ::2]
    np.testing.assert_array_equal(tvl1(wide, second, **CHEAP), single)
    prepared = prepare_tvl1(first[0], nscales=2)
    shared = np.stack([tvl1(first[0], frame, **CHEAP) for frame in second])
    np.testing.assert_array_equal(tvl1(prepared, second, **CHEAP), shared)
    np.testing.assert_array_equal(
        tvl1(prepared, prepare_tvl1(second[0], nscales=2), **CHEAP), shared[0]
    )


def test_float_of_0_to_1_is_uint8_of_0_to_255():
    first, second, _ = moving_pair(50, 60, 1, 2)
    as_float = [frame / np.float32(255) for frame in (first, second)]
    options = {"nscales": 1, "warps": 1}
    np.testing.assert_allclose(
        tvl1(*as_float, **options), tvl1(first, second, **options), atol=1e-4
    )


def test_scale_step_near_1_keeps_opencv_s_scaling():
    """A level that rounds to the size of the one below still has its flow rescaled."""
    first, second, _ = moving_pair(20, 20, 1, 4)
    names = {"nscales": 2, "warps": 1}
    expected = opencv_tvl1(first, second, scaleStep=0.98, outerIterations=1, **names)
    flow = tvl1(first, second, scale_step=0.98, outer_iterations=1, **names)
    np.testing.assert_allclose(flow, expected, atol=1e-3)


def test_threads_do_not_disturb_each_other():
    pairs = [moving_pair(64, 80, 1, seed)[:2] for seed in range(8)]
    expected = [tvl1(*pair, **CHEAP) for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        flows = list(pool.map(lambda pair: tvl1(*pair, **CHEAP), pairs * 3))
    np.testing.assert_array_equal(flows, expected * 3)


GRAY = np.zeros((20, 30), np.uint8)


@pytest.mark.parametrize(
    ("arguments", "options", "rule"),
    [
        ((GRAY[:15], GRAY[:15]), {}, "prev must be at least 16x16 pixels"),
        ((GRAY, GRAY.T), {}, r"next must have the height and width of prev, \(20, 30\)"),
        ((GRAY.astype(np.int32), GRAY), {}, "prev must be uint8 or float32. Got int32"),
        ((GRAY[None, None], GRAY), {}, "prev must have 2 or 3 dimensions"),
        ((GRAY, GRAY[:0]), {}, "next must not be empty"),
        ((np.stack([GRAY] * 2), np.stack([GRAY] * 3)), {}, "as many frames as prev, 2. Got 3"),
        ((np.full((20, 30), np.nan, np.float32), GRAY), {}, "prev must be finite. Got nan"),
        (([1], GRAY), {}, "prev must be a NumPy array"),
        ((GRAY, GRAY), {"gamma": 0.1}, "gamma must be 0"),
        ((GRAY, GRAY), {"tau": 0}, "tau must be above 0"),
        ((GRAY, GRAY), {"lambda_": -1}, "lambda_ must be above 0"),
        ((GRAY, GRAY), {"theta": np.inf}, "theta must be a finite number"),
        ((GRAY, GRAY), {"nscales": 0}, "nscales must be at least 1"),
        ((GRAY, GRAY), {"warps": 1.5}, "warps must be an integer"),
        ((GRAY, GRAY), {"cubic": 0.1}, "cubic must be"),
        ((GRAY, GRAY), {"epsilon": -1}, "epsilon must be at least 0"),
        ((GRAY, GRAY), {"inner_iterations": 0}, "inner_iterations must be at least 1"),
        ((GRAY, GRAY), {"outer_iterations": 0}, "outer_iterations must be at least 1"),
        ((GRAY, GRAY), {"scale_step": 1}, "scale_step must be below 1"),
        ((GRAY, GRAY), {"median_filtering": 4}, "median_filtering must be 1, 3 or 5. Got 4"),
        ((GRAY, GRAY), {"initial_flow": np.zeros((20, 30), np.float32)}, "initial_flow"),
        ((GRAY, GRAY), {"initial_flow": np.zeros((30, 20, 2), np.float32)}, "initial_flow"),
        ((prepare_tvl1(GRAY, nscales=2), GRAY), {}, "prev must be prepared with"),
    ],
)
def test_bad_arguments_are_named(arguments, options, rule):
    with pytest.raises(ValueError, match=rule):
        tvl1(*arguments, **options)


def test_prepare_takes_one_image():
    with pytest.raises(ValueError, match="image must have 2 dimensions"):
        prepare_tvl1(np.zeros((2, 20, 30), np.uint8))


@pytest.mark.slow  # test_portable has a sample of it
@pytest.mark.parametrize("features", ["", "+avx2,+fma"])
def test_other_cpus_agree_with_opencv(tmp_path, features):
    if features and not llvmlite.binding.get_host_cpu_features().get("avx2"):
        pytest.skip("this CPU has no AVX2")
    first, second, _ = moving_pair(70, 90, 1, 6)
    np.savez(tmp_path / "frames.npz", first=first, second=second)
    program = (
        "import numpy as np\n"
        "from apexflow.kernels import tvl1\n"
        "frames = np.load('frames.npz')\n"
        "flow = tvl1(frames['first'], frames['second'], nscales=1, warps=1)\n"
        "np.save('flow.npy', flow)\n"
    )
    environment = os.environ | {
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": features,
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
    expected = opencv_tvl1(first, second, nscales=1, warps=1)
    np.testing.assert_allclose(np.load(tmp_path / "flow.npy"), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("reach", [1, 1e3, 1e30])
def test_positions_far_outside_are_read_as_zeros(reach):
    """No start, however wild, makes the warp read outside its planes."""
    first, second, _ = moving_pair(33, 47, 1, 8)
    start = np.random.default_rng(0).normal(0, reach, (33, 47, 2)).astype(np.float32)
    flow = tvl1(first, second, nscales=1, warps=1, initial_flow=start)
    assert flow.shape == (33, 47, 2)


def test_rows_leave_room_for_whole_vectors():
    for width in range(16, 70):
        assert cpu._pitch(width) % 16 == 0
        assert cpu._pitch(width) >= width + 16
