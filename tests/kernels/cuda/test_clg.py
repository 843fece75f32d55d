"""The GPU implementation of CLG against the CPU kernel, and against known motion."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apexflow.kernels import clg, clg_sequence, prepare_clg
from apexflow.kernels._validate import check_pairs
from apexflow.kernels.flow_clg import CLGFrame, gpu
from apexflow.kernels.flow_clg.arguments import CLGSequence, check_solver
from apexflow.kernels.flow_clg.sequence import Reach, track
from apexflow.kernels.gpu import Device
from tests.kernels.cuda.build import ShimDevice
from tests.kernels.cuda.strict_arrays import StrictDevice
from tests.kernels.test_clg import SEEDS, error, moving_pair, noisy_frames

DEFAULTS: dict[str, Any] = {
    "alpha": 100.0,
    "rho": 8.0,
    "warps": 2,
    "max_iterations": 40,
    "tolerance": 1e-3,
}
SMALL: dict[str, Any] = {"rho": 2.0, "levels": 2, "max_iterations": 12}  # soon done on the shim


def on(
    device: Device, prev: Any, next_: Any, *, levels: int = 3, **options: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Return flow and confidence from the device, from host arrays to host arrays."""
    prev, next_ = (f if isinstance(f, CLGFrame) else device.xp.asarray(f) for f in (prev, next_))
    solver = check_solver(**DEFAULTS | options)
    count = check_pairs(prev, next_)
    flow, sure = gpu.clg(prev, next_, count, levels, solver, True, device=device)
    return device.to_host(flow), device.to_host(sure)


def batch(height: int, width: int, lengths: list[float], seed: int = 0) -> list[np.ndarray]:
    """Return first frames, second frames and true flows."""
    pairs = [moving_pair(height, width, length, seed + i) for i, length in enumerate(lengths)]
    return [np.stack(parts) for parts in zip(*pairs, strict=True)]


@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=SEEDS,
    length=st.sampled_from([0, 0.3, 3]),
    alpha=st.sampled_from([20, 100, 1000]),
    rho=st.sampled_from([0.1, 1.5, 8]),
    levels=st.integers(1, 3),
    warps=st.integers(1, 2),
)
@example(2, 2, 0, 0.3, 100, 8, 3, 2)
@example(35, 38, 0, 3, 100, 8, 3, 2)
@settings(deadline=None, max_examples=10)
def test_flow_and_confidence_equal_the_cpu(
    device: Device,
    height: int,
    width: int,
    seed: int,
    length: float,
    alpha: float,
    rho: float,
    levels: int,
    warps: int,
) -> None:
    first, second, _ = moving_pair(height, width, length, seed)
    options: dict[str, Any] = {"alpha": alpha, "rho": rho, "levels": levels, "warps": warps}
    flow, sure = on(device, first, second, **options)
    expected, likely = clg(first, second, confidence=True, **options)
    assert (flow.shape, flow.dtype) == ((height, width, 2), np.float32)
    np.testing.assert_allclose(flow, expected, atol=1e-3, rtol=0)
    np.testing.assert_allclose(sure, likely, atol=1e-4, rtol=0)


@given(height=st.integers(1, 40), width=st.integers(1, 40), seed=SEEDS)
@settings(deadline=None, max_examples=6)
def test_images_without_any_likeness_equal_the_cpu(
    device: Device, height: int, width: int, seed: int
) -> None:
    first, second = np.random.default_rng(seed).integers(0, 256, (2, height, width), np.uint8)
    flow, _ = on(device, first, second, **SMALL)
    np.testing.assert_allclose(flow, clg(first, second, **SMALL), atol=1e-3, rtol=0)


@pytest.mark.addresses
@pytest.mark.parametrize("iterations", [1, 2, 7])
def test_a_pair_takes_the_same_steps(device: Device, iterations: int) -> None:
    """Where nothing has converged, one step more or less shows."""
    first, second, _ = moving_pair(24, 33, 1, 1)
    options: dict[str, Any] = {"rho": 2.0, "levels": 1, "warps": 1, "tolerance": 0}
    flow, _ = on(device, first, second, max_iterations=iterations, **options)
    expected = clg(first, second, max_iterations=iterations, **options)
    np.testing.assert_allclose(flow, expected, atol=1e-5, rtol=0)
    more = clg(first, second, max_iterations=iterations + 1, **options)
    assert abs(more - expected).max() > 1e-3


def test_it_ends_with_the_same_residual(device: Device) -> None:
    first, second, _ = moving_pair(24, 33, 1, 1)
    options: dict[str, Any] = {"rho": 2.0, "levels": 1, "warps": 1}
    for tolerance in (0.5, 0.1, 0.02):
        flow, _ = on(device, first, second, tolerance=tolerance, **options)
        expected = clg(first, second, tolerance=tolerance, **options)
        np.testing.assert_allclose(flow, expected, atol=1e-5, rtol=0)
        assert abs(expected - clg(first, second, **options)).max() > 1e-3


@given(
    height=st.integers(8, 40),
    width=st.integers(8, 40),
    seed=st.integers(0, 1000),
    order=st.permutations(range(4)),
    free=st.sampled_from([1 << 30, 1 << 19, 0]),
)
@settings(deadline=None, max_examples=4)
def test_a_pair_s_flow_does_not_depend_on_its_batch(
    device: Device, height: int, width: int, seed: int, order: list[int], free: int
) -> None:
    """Pairs that stop at once, early and late, in any order, and in as many parts as it takes."""
    first, second, _ = batch(height, width, [0, 0.2, 1, 3], seed)
    second[0] = first[0]
    alone = [on(device, *pair, **SMALL) for pair in zip(first, second, strict=True)]
    flows, sures = (np.stack(parts) for parts in zip(*alone, strict=True))
    if isinstance(device, ShimDevice):
        device = ShimDevice(device._folder, addresses=device._addresses, free=free)
    flow, sure = on(device, first[order], second[order], **SMALL)
    np.testing.assert_array_equal(flow, flows[order])
    np.testing.assert_array_equal(sure, sures[order])
    assert not flow[order.index(0)].any()


def test_shared_prepared_and_strided_frames_give_the_same(device: Device) -> None:
    first, second, _ = batch(33, 37, [1, 0.2])
    prepared = [gpu.prepare(device.xp.asarray(f), 2, device=device) for f in first]
    expected = np.stack([on(device, first[0], frame, **SMALL)[0] for frame in second])
    for shared in (first[0], prepared[0]):
        np.testing.assert_array_equal(on(device, shared, second, **SMALL)[0], expected)
    swapped = np.stack([on(device, frame, first[0], **SMALL)[0] for frame in second])
    np.testing.assert_array_equal(on(device, second, prepared[0], **SMALL)[0], swapped)
    both = on(device, prepared[0], prepared[1], **SMALL)[0]
    np.testing.assert_array_equal(both, on(device, first[0], first[1], **SMALL)[0])
    wide = device.xp.asarray(np.asfortranarray(np.repeat(first, 2, axis=2)))[:, :, ::2]
    whole = on(device, first, second, **SMALL)[0]
    np.testing.assert_array_equal(on(device, wide, second, **SMALL)[0], whole)


def test_levels_are_the_cpu_s(device: Device) -> None:
    image = np.random.default_rng(0).integers(0, 256, (67, 93), np.uint8)
    frame = gpu.prepare(device.xp.asarray(image), 3, device=device)
    expected = prepare_clg(image)
    assert (frame.shape, frame.levels) == (expected.shape, expected.levels)
    for level, same in zip(frame.images, expected.images, strict=True):
        np.testing.assert_array_equal(device.to_host(level), same)


def test_inputs_are_not_written_to_and_runs_are_equal(device: Device) -> None:
    arrays = [device.xp.asarray(frames) for frames in batch(30, 40, [1, 2])[:2]]
    before = [device.to_host(array).copy() for array in arrays]
    flows = [on(device, *arrays, **SMALL)[0] for _ in range(2)]
    for array, same in zip(arrays, before, strict=True):
        np.testing.assert_array_equal(device.to_host(array), same)
    np.testing.assert_array_equal(flows[1], flows[0])


def test_flat_images_do_not_move(device: Device) -> None:
    dark, bright = np.full((20, 30), 7, np.uint8), np.full((20, 30), 200, np.uint8)
    flow, sure = on(device, np.stack([dark, dark]), np.stack([dark, bright]), **SMALL)
    assert not flow.any()
    assert not sure.any()


def test_known_motion_is_found(device: Device) -> None:
    first, second, truth = moving_pair(64, 72, 1, 3)
    assert error(on(device, first, second)[0], truth) < 0.1 * error(0, truth)


class Silent(ShimDevice):
    """A device from which nothing comes down."""

    def to_host(self, array: Any) -> np.ndarray:
        raise AssertionError("something came down")


def test_nothing_comes_down(shim: ShimDevice) -> None:
    device = Silent(shim._folder, addresses=shim._addresses)
    first, second, _ = batch(20, 30, [1, 2])
    solver = check_solver(**DEFAULTS | {"max_iterations": 2})
    flow, _ = gpu.clg(first, second, 2, 2, solver, True, device=device)
    assert flow.shape == (2, 20, 30, 2)


def test_batches_fit_the_memory_they_are_told(shim: ShimDevice) -> None:
    """The memory of a pair that a batch's length is chosen by is not less than it takes."""
    frames = np.zeros((6, 64, 80), np.uint8)
    solver = check_solver(**DEFAULTS | {"warps": 1, "rho": 1.0})
    tracemalloc.start()
    gpu.clg(frames, frames, 6, 3, solver, True, device=shim)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    told = 6 * gpu.bytes_of_pair(64, 80)
    assert 0.5 * told < peak < told


# Many frames.


def sequence_on(
    device: Device, frames: Any, onset: int, apex: int, *, reach: int = 8, rounds: int = 2
) -> CLGSequence:
    """Return the result from the device, from a host array to host arrays."""
    part = Reach.of(np.arange(len(frames)), onset, apex, reach)
    solver = check_solver(**DEFAULTS | {"alpha": 50.0})
    steps = gpu.DeviceSteps(device.xp.asarray(frames), part.chosen, 3, solver, device=device)
    found = np.full(len(frames), np.nan, np.float32)
    found[part.chosen] = track(steps, part, rounds)
    return CLGSequence(*(device.to_host(values) for values in steps.result(found, True)))


@pytest.mark.parametrize(
    ("shape", "onset", "apex", "reach", "rounds"),
    [
        ((30, 41), 1, 8, 8, 2),
        pytest.param((21, 20), 9, 0, 2, 1, marks=pytest.mark.addresses),
        ((33, 34), 2, 11, 3, 0),
    ],
)
def test_a_sequence_equals_the_cpu(
    device: Device, shape: tuple[int, int], onset: int, apex: int, reach: int, rounds: int
) -> None:
    frames, _ = noisy_frames(*shape, 1, 3)
    frames[6, 10:20, 10:20] += 30
    found = sequence_on(device, frames, onset, apex, reach=reach, rounds=rounds)
    expected = clg_sequence(frames, onset, apex, reach=reach, rounds=rounds, confidence=True)
    np.testing.assert_allclose(found.flow, expected.flow, atol=1e-3, rtol=0)
    np.testing.assert_allclose(found.amplitudes, expected.amplitudes, atol=1e-4, rtol=0)
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-4, rtol=0)


def test_a_sequence_of_flat_frames_does_not_move(device: Device) -> None:
    found = sequence_on(device, np.full((12, 20, 30), 9, np.uint8), 1, 8)
    assert not found.flow.any()
    np.testing.assert_array_equal(found.amplitudes, [0] * 5 + [1] * 7)


def test_no_array_of_the_device_meets_one_of_the_host(shim: ShimDevice) -> None:
    strict = StrictDevice(shim)
    first, second, _ = batch(20, 30, [1, 2])
    for mine, same in zip(on(strict, first, second), on(shim, first, second), strict=True):
        np.testing.assert_array_equal(mine, same)
    frames, _ = noisy_frames(20, 30, 1, 1)
    found, expected = (sequence_on(device, frames, 1, 8) for device in (strict, shim))
    np.testing.assert_array_equal(found.flow, expected.flow)


# The public functions.

OnShim = Callable[[Any], np.ndarray]


def test_public_functions_go_to_the_gpu(on_shim: OnShim, shim: ShimDevice) -> None:
    first, second, _ = batch(33, 40, [1, 2])
    shim.launches.clear()
    flow, sure = clg(on_shim(first), on_shim(second), confidence=True, **SMALL)
    assert "step_along" in shim.launches
    expected, likely = clg(first, second, confidence=True, **SMALL)
    np.testing.assert_allclose(flow, expected, atol=1e-3, rtol=0)
    np.testing.assert_allclose(sure, likely, atol=1e-4, rtol=0)
    frame = prepare_clg(on_shim(first[0]), levels=2)
    flow = clg(frame, on_shim(second[1]), **SMALL)
    np.testing.assert_allclose(flow, clg(first[0], second[1], **SMALL), atol=1e-3, rtol=0)
    frames, _ = noisy_frames(20, 30, 1, 1)
    shim.launches.clear()
    found = clg_sequence(on_shim(frames), 1, 8, **SMALL)
    assert "move_frames" in shim.launches
    np.testing.assert_allclose(found.flow, clg_sequence(frames, 1, 8, **SMALL).flow, atol=1e-3)
    assert found.confidence is None
    still = clg_sequence(on_shim(frames), 4, 4, **SMALL)
    assert not still.flow.any()


GRAY = np.zeros((20, 30), np.uint8)


def test_arrays_of_both_kinds_are_refused(on_shim: OnShim) -> None:
    there = on_shim(GRAY)
    with pytest.raises(TypeError, match="next must be a CuPy array, as prev is"):
        clg(there, GRAY)
    with pytest.raises(TypeError, match="next must be a CuPy array, as prev is"):
        clg(there, prepare_clg(GRAY))


@pytest.mark.parametrize(
    ("prev", "next_", "options", "rule"),
    [
        (GRAY, GRAY.T, {}, r"next must have the height and width of prev, \(20, 30\)"),
        (GRAY.astype(np.int32), GRAY, {}, "prev must be uint8 or float32. Got int32"),
        (np.full((20, 30), np.nan, np.float32), GRAY, {}, "prev must be finite. Got nan"),
        (GRAY, np.full((20, 30), -1e7, np.float32), {}, r"next must lie within \+-1e\+06"),
        (GRAY, GRAY, {"alpha": 0}, "alpha must be at least 0.001"),
    ],
)
def test_bad_arguments_are_named(
    on_shim: OnShim, prev: Any, next_: Any, options: dict[str, Any], rule: str
) -> None:
    with pytest.raises(ValueError, match=rule):
        clg(on_shim(prev), on_shim(next_), **options)
