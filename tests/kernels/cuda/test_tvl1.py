"""The GPU implementation of TV-L1 against the CPU kernel, and against known motion."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apexflow.kernels import tvl1
from apexflow.kernels._validate import check_pairs
from apexflow.kernels.flow_tvl1 import TVL1Frame, gpu, prepare_tvl1
from apexflow.kernels.flow_tvl1.arguments import (
    check_initial_flow,
    check_pyramid,
    check_solver,
)
from apexflow.kernels.gpu import Device
from tests.kernels.cuda.build import ShimDevice
from tests.kernels.test_tvl1 import SEEDS, SIDES, error, moving_pair

DEFAULTS: dict[str, Any] = {
    "tau": 0.25,
    "lambda_": 0.15,
    "theta": 0.3,
    "warps": 5,
    "epsilon": 0.01,
    "inner_iterations": 30,
    "outer_iterations": 10,
    "gamma": 0.0,
    "median_filtering": 5,
    "cubic": -0.75,
}
ONE: dict[str, Any] = {"nscales": 1, "warps": 1}


def on_gpu(
    device: Device,
    prev: Any,
    next_: Any,
    *,
    nscales: int = 5,
    scale_step: float = 0.8,
    initial_flow: Any = None,
    **options: Any,
) -> np.ndarray:
    """Run it on the device, from host arrays to a host array."""
    prev, next_ = (f if isinstance(f, TVL1Frame) else device.xp.asarray(f) for f in (prev, next_))
    start = None if initial_flow is None else device.xp.asarray(initial_flow)
    count = check_pairs(prev, next_)
    flow = gpu.tvl1(
        prev,
        next_,
        check_initial_flow(start, count, prev.shape[-2:]) if device.xp is np else start,
        count,
        check_pyramid(nscales, scale_step),
        check_solver(**DEFAULTS | options),
        device=device,
    )
    return device.to_host(flow)


def batch(height: int, width: int, amplitudes: list[float], seed: int = 0) -> list[np.ndarray]:
    """Return first frames, second frames and true flows."""
    pairs = [moving_pair(height, width, a, seed + i) for i, a in enumerate(amplitudes)]
    return [np.stack(parts) for parts in zip(*pairs, strict=True)]


_ONE_WARP = given(
    height=SIDES,
    width=SIDES,
    seed=SEEDS,
    amplitude=st.sampled_from([0, 0.2, 1, 3]),
    tau=st.sampled_from([0.25, 0.1]),
    lambda_=st.sampled_from([0.15, 0.05, 1]),
    theta=st.sampled_from([0.3, 0.15]),
    median=st.sampled_from([1, 3, 5]),
    epsilon=st.sampled_from([0.01, 0.003]),
    inner=st.sampled_from([30, 7]),
    cubic=st.sampled_from([-0.75, -0.5, 0]),
)


_USUAL = {
    **{"seed": 0, "amplitude": 1, "tau": 0.25, "lambda_": 0.15, "theta": 0.3, "median": 5},
    **{"epsilon": 0.01, "inner": 30, "cubic": -0.75},
}


@_ONE_WARP
@example(**_USUAL, height=16, width=16)
@example(**_USUAL | {"seed": 1, "cubic": -0.5}, height=33, width=130)
@settings(deadline=None, max_examples=4)
def test_one_warp_equals_the_cpu(device: Device, **case: float) -> None:
    check_one_warp(device, **case)


@pytest.mark.slow
@_ONE_WARP
@settings(deadline=None, max_examples=60)
def test_one_warp_of_many_cases_equals_the_cpu(device: Device, **case: float) -> None:
    check_one_warp(device, **case)


def check_one_warp(
    device: Device,
    height: int,
    width: int,
    seed: int,
    amplitude: float,
    tau: float,
    lambda_: float,
    theta: float,
    median: int,
    epsilon: float,
    inner: int,
    cubic: float,
) -> None:
    first, second, _ = moving_pair(height, width, amplitude, seed)
    options = ONE | {
        "tau": tau,
        "lambda_": lambda_,
        "theta": theta,
        "median_filtering": median,
        "epsilon": epsilon,
        "inner_iterations": inner,
        "cubic": cubic,
    }
    flow = on_gpu(device, first, second, **options)
    assert (flow.shape, flow.dtype) == ((height, width, 2), np.float32)
    # Rounding, carried through up to 30 iterations: 2e-4 in a few pixels of a rare case.
    np.testing.assert_allclose(flow, tvl1(first, second, **options), atol=5e-4, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_each_warp_iterates_anew(device: Device, seed: int) -> None:
    first, second, _ = moving_pair(40 + seed, 50, 2, seed)
    expected = tvl1(first, second, nscales=1, warps=3)
    flow = on_gpu(device, first, second, nscales=1, warps=3)
    np.testing.assert_allclose(flow, expected, atol=1e-3, rtol=0)
    assert np.abs(expected - tvl1(first, second, nscales=1, warps=1)).max() > 0.1


@given(height=SIDES, width=SIDES, seed=SEEDS)
@settings(deadline=None, max_examples=8)
def test_noise_as_float_images_equals_the_cpu(
    device: Device, height: int, width: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    first, second = rng.uniform(0, 1, (2, height, width)).astype(np.float32)
    flow = on_gpu(device, first, second, **ONE, outer_iterations=2)
    expected = tvl1(first, second, **ONE, outer_iterations=2)
    np.testing.assert_allclose(flow, expected, atol=1e-4, rtol=0)


@given(height=SIDES, width=SIDES, seed=SEEDS, reach=st.sampled_from([0.4, 3, 30, 300]))
@settings(deadline=None, max_examples=12)
def test_warp_from_any_flow_equals_the_cpu(
    device: Device, height: int, width: int, seed: int, reach: float
) -> None:
    """One warp that starts from given flows: smooth, torn, and far outside the image."""
    first, second, _ = moving_pair(height, width, 1, seed)
    start = np.random.default_rng(seed).normal(0, reach, (height, width, 2)).astype(np.float32)
    if seed % 2:
        start = cv2.GaussianBlur(start, (0, 0), 8)
    # A multiple of 1/64 px, so that x + u is exact and no rounding picks another cell.
    start = np.rint(start * 64) / np.float32(64)
    options = ONE | {"median_filtering": 1, "outer_iterations": 1, "inner_iterations": 3}
    flow = on_gpu(device, first, second, initial_flow=start, **options)
    expected = tvl1(first, second, initial_flow=start, **options)
    # Flows of hundreds of pixels carry float32's own rounding.
    np.testing.assert_allclose(flow, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("reach", [1, 1e3, pytest.param(1e30, marks=pytest.mark.addresses)])
def test_no_start_makes_the_warp_read_outside(device: Device, reach: float) -> None:
    first, second, _ = moving_pair(33, 47, 1, 8)
    start = np.random.default_rng(0).normal(0, reach, (33, 47, 2)).astype(np.float32)
    options = ONE | {"outer_iterations": 1, "inner_iterations": 3}
    flow = on_gpu(device, first, second, initial_flow=start, **options)
    assert flow.shape == (33, 47, 2)


@given(
    height=SIDES,
    width=SIDES,
    seed=SEEDS,
    nscales=st.integers(1, 6),
    step=st.sampled_from([0.5, 0.7, 0.8, 0.9, 0.98]),
)
@example(20, 20, 0, 2, 0.98)  # a level that rounds to the size of the one below
@settings(deadline=None, max_examples=15)
def test_levels_are_the_cpu_s(
    device: Device, height: int, width: int, seed: int, nscales: int, step: float
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    frame = gpu.prepare(device.xp.asarray(image), check_pyramid(nscales, step), device=device)
    expected = prepare_tvl1(image, nscales=nscales, scale_step=step)
    assert (frame.shape, frame.pyramid) == (expected.shape, expected.pyramid)
    for level, same in zip(frame.levels, expected.levels, strict=True):
        np.testing.assert_allclose(device.to_host(level), same, atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("shape", "step"),
    [((90, 121), 0.5), ((90, 121), 0.8), pytest.param((41, 66), 0.7, marks=pytest.mark.addresses)],
)
@pytest.mark.parametrize("starts", [False, True])
def test_few_iterations_over_all_scales_equal_the_cpu(
    device: Device, shape: tuple[int, int], step: float, starts: bool
) -> None:
    """As long as no stop depends on rounding, differences stay small over the scales, too."""
    first, second, truth = moving_pair(*shape, 3, 5)
    options: dict[str, Any] = {"nscales": 3, "warps": 2, "scale_step": step, "epsilon": 0}
    options |= {"outer_iterations": 2, "inner_iterations": 5, "median_filtering": 3}
    options["initial_flow"] = (0.8 * truth).astype(np.float32) if starts else None
    flow = on_gpu(device, first, second, **options)
    np.testing.assert_allclose(flow, tvl1(first, second, **options), atol=1e-3, rtol=0)


def test_a_pair_stops_after_the_same_iteration(device: Device) -> None:
    """Wherever in a launch that is, at its end, and in the last launch before a median."""
    first, second, _ = moving_pair(40, 70, 1, 2)
    options: dict[str, Any] = ONE | {"outer_iterations": 1, "median_filtering": 1}
    counts = range(1, 13)
    expected = [tvl1(first, second, epsilon=0, inner_iterations=n, **options) for n in counts]
    flows = np.stack([np.zeros_like(expected[0]), *expected]).astype(np.float64)
    changes = np.sqrt((np.diff(flows, axis=0) ** 2).sum(-1).mean((1, 2)))
    assert (np.diff(changes[1:]) < 0).all()
    for n in counts[2:]:
        epsilon = float(np.sqrt(changes[n - 1] * changes[n - 2]))
        for inner in (30, n, n + 1):
            flow = on_gpu(device, first, second, epsilon=epsilon, inner_iterations=inner, **options)
            np.testing.assert_allclose(flow, expected[n - 1], atol=1e-5, rtol=0)
        assert np.abs(expected[n - 1] - expected[n - 2]).max() > 1e-3


@given(
    height=SIDES,
    width=SIDES,
    seed=st.integers(0, 1000),
    order=st.permutations(range(4)),
    median=st.sampled_from([1, 3, 5]),
    free=st.sampled_from([1 << 30, 3 << 20, 0]),
)
@settings(deadline=None, max_examples=6)
def test_a_pair_s_flow_does_not_depend_on_its_batch(
    device: Device, height: int, width: int, seed: int, order: list[int], median: int, free: int
) -> None:
    """Pairs that stop at once, early and never, in any order, and in as many parts as it takes."""
    first, second, _ = batch(height, width, [0, 0.2, 1, 3], seed)
    second[0] = first[0]
    second[3] = np.random.default_rng(seed).integers(0, 256, (height, width), np.uint8)
    options = {"nscales": 2, "warps": 2, "outer_iterations": 2, "median_filtering": median}
    alone = np.stack([on_gpu(device, *pair, **options) for pair in zip(first, second, strict=True)])
    if isinstance(device, ShimDevice):
        device = ShimDevice(device._folder, addresses=device._addresses, free=free)
    together = on_gpu(device, first[order], second[order], **options)
    np.testing.assert_array_equal(together, alone[order])
    assert not together[order.index(0)].any()


def test_shared_prepared_and_strided_frames_give_the_same(device: Device) -> None:
    first, second, _ = batch(37, 50, [1, 0.2])
    options = {"nscales": 2, "warps": 2, "outer_iterations": 2}
    pyramid = check_pyramid(2, 0.8)
    prepared = [gpu.prepare(device.xp.asarray(f), pyramid, device=device) for f in first]
    expected = np.stack([on_gpu(device, first[0], frame, **options) for frame in second])
    for shared in (first[0], prepared[0]):
        np.testing.assert_array_equal(on_gpu(device, shared, second, **options), expected)
    swapped = np.stack([on_gpu(device, frame, first[0], **options) for frame in second])
    np.testing.assert_array_equal(on_gpu(device, second, prepared[0], **options), swapped)
    one = on_gpu(device, prepared[0], prepared[1], **options)
    np.testing.assert_array_equal(one, on_gpu(device, first[0], first[1], **options))
    wide = device.xp.asarray(np.asfortranarray(np.repeat(first, 2, axis=2)))[:, :, ::2]
    np.testing.assert_array_equal(
        on_gpu(device, wide, second, **options), on_gpu(device, first, second, **options)
    )


def test_inputs_are_not_written_to_and_runs_are_equal(device: Device) -> None:
    first, second, truth = batch(40, 50, [1, 2])
    start = truth.astype(np.float32)
    arrays = [device.xp.asarray(array.copy()) for array in (first / np.float32(255), second, start)]
    arrays[1] = arrays[1].astype(np.float32) / np.float32(255)
    before = [device.to_host(array).copy() for array in arrays]
    options = {"nscales": 2, "warps": 2, "initial_flow": arrays[2]}
    flows = [on_gpu(device, *arrays[:2], **options) for _ in range(3)]
    for array, same in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(device.to_host(array), same)
    np.testing.assert_array_equal(flows[1:], [flows[0]] * 2)


def test_error_of_whole_flow_is_the_cpu_s(device: Device) -> None:
    """In the sum over pairs, and against the CPU's mean over images that differ invisibly.

    One pair's error is chaotic on either side. The sum over 16 pairs varies by 0.2%.
    """
    count = 12 if device.xp is np else 128
    first, second, truth = batch(80, 96, [1, 2, 3, 3] * (count // 4))
    flow = on_gpu(device, first, second)
    rng = np.random.default_rng(0)
    frames = np.stack([first, second]).astype(np.float32)
    cpu = []
    for _ in range(4):
        noise = rng.uniform(-2.5e-4, 2.5e-4, frames.shape).astype(np.float32)
        cpu.append(error(tvl1(*((frames + noise) / np.float32(255))), truth))
    assert error(flow, truth) / np.mean(cpu) == pytest.approx(1, abs=0.01)


def test_equal_and_flat_images_do_not_move(device: Device) -> None:
    first, _, _ = moving_pair(30, 40, 0, 3)
    dark, bright = np.full((30, 40), 7, np.uint8), np.full((30, 40), 200, np.uint8)
    flow = on_gpu(device, np.stack([first, dark, dark]), np.stack([first, dark, bright]))
    assert not flow[:2].any()
    assert np.isfinite(flow).all()


class Silent(ShimDevice):
    """A device from which nothing comes down."""

    def to_host(self, array: Any) -> np.ndarray:
        raise AssertionError("something came down")


def test_nothing_comes_down_between_two_medians(shim: ShimDevice) -> None:
    device = Silent(shim._folder, addresses=shim._addresses)
    first, second, _ = batch(20, 30, [1, 2])
    arguments = check_pyramid(2, 0.8), check_solver(**DEFAULTS | {"outer_iterations": 1})
    assert gpu.tvl1(first, second, None, 2, *arguments, device=device).shape == (2, 20, 30, 2)


OnShim = Callable[[Any], np.ndarray]


def test_public_functions_go_to_the_twin(on_shim: OnShim, shim: ShimDevice) -> None:
    first, second, truth = batch(33, 40, [1, 2])
    start = truth.astype(np.float32)
    options = {"nscales": 2, "warps": 1, "outer_iterations": 1, "inner_iterations": 4}
    shim.launches.clear()
    flow = tvl1(on_shim(first), on_shim(second), initial_flow=on_shim(start), **options)
    assert "iterate" in shim.launches
    expected = tvl1(first, second, initial_flow=start, **options)
    np.testing.assert_allclose(flow, expected, atol=1e-3, rtol=0)
    frame = prepare_tvl1(on_shim(first[0]), nscales=2)
    flow = tvl1(frame, on_shim(second), **options)
    np.testing.assert_allclose(flow, tvl1(first[0], second, **options), atol=1e-3, rtol=0)


GRAY = np.zeros((20, 30), np.uint8)


def test_arrays_of_both_kinds_are_refused(on_shim: OnShim) -> None:
    there = on_shim(GRAY)
    with pytest.raises(TypeError, match="next must be a CuPy array, as prev is"):
        tvl1(there, GRAY)
    with pytest.raises(TypeError, match="next must be a CuPy array, as prev is"):
        tvl1(there, prepare_tvl1(GRAY))
    with pytest.raises(TypeError, match="initial_flow must be a CuPy array, as prev is"):
        tvl1(there, there, initial_flow=np.zeros((20, 30, 2), np.float32))


@pytest.mark.parametrize(
    ("prev", "next_", "options", "rule"),
    [
        (GRAY[:15], GRAY[:15], {}, "prev must be at least 16x16 pixels"),
        (GRAY, GRAY.T, {}, r"next must have the height and width of prev, \(20, 30\)"),
        (GRAY.astype(np.int32), GRAY, {}, "prev must be uint8 or float32. Got int32"),
        (np.full((20, 30), np.nan, np.float32), GRAY, {}, "prev must be finite. Got nan"),
        (GRAY, GRAY, {"gamma": 0.1}, "gamma must be 0"),
        (GRAY, GRAY, {"median_filtering": 4}, "median_filtering must be 1, 3 or 5. Got 4"),
    ],
)
def test_bad_arguments_are_named(
    on_shim: OnShim, prev: Any, next_: Any, options: dict[str, Any], rule: str
) -> None:
    with pytest.raises(ValueError, match=rule):
        tvl1(on_shim(prev), on_shim(next_), **options)


def test_batches_fit_the_memory_they_are_told(shim: ShimDevice) -> None:
    """The memory of a pair that a batch's length is chosen by is not less than it takes."""
    frames = np.zeros((6, 64, 80), np.uint8)
    arguments = check_pyramid(5, 0.8), check_solver(**DEFAULTS | {"warps": 1})
    gpu.tvl1(frames, frames, None, 6, *arguments, device=shim)  # loads what it needs once
    tracemalloc.start()
    gpu.tvl1(frames, frames, None, 6, *arguments, device=shim)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    told = 6 * gpu._bytes_of_pair(frames.shape, arguments[0])
    assert 0.5 * told < peak < told
