"""Maps from the GPU implementations against the CPU kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apexflow.kernels.encode import (
    ENCODINGS,
    encode_hsv,
    encode_hsv_absolute,
    encode_magnitude_angle,
    encode_uv,
    encode_uv_strain,
    gpu,
    magnitude_angle,
    make_maps,
    optical_strain,
)
from apexflow.kernels.gpu import Device
from tests.kernels.cuda.build import ShimDevice
from tests.kernels.test_encode import make_flow

SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.integers(2, 40)
SIZES = [None, (28, 28), (14, 28), (1, 1), (56, 112), (20, 17), (57, 113), (100, 30), (61, 100)]


def make_flows(count: int, height: int, width: int, seed: int) -> Any:
    return np.stack([make_flow(height, width, seed + i) for i in range(count)])


def assert_within_a_level(got: Any, expected: Any, often: float = 0.01) -> None:
    """Bytes differ by at most one level, and those that differ are rare."""
    assert (got.dtype, got.shape) == (np.uint8, expected.shape)
    difference = np.abs(got.astype(int) - expected)
    assert difference.max() <= 1
    expected_count = often * difference.size
    # Of a few pixels many may differ by chance, and the channels of a pixel differ together.
    assert difference.sum() <= max(3, expected_count + 8 * expected_count**0.5)


@pytest.mark.addresses
@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 33, 45), (2, 5, 300)])
@pytest.mark.parametrize("convention", ["half", "quarter"])
def test_strain_equals_the_cpu(device: Device, shape: tuple[int, ...], convention: Any) -> None:
    flows = make_flows(*shape, seed=0)
    got = gpu.optical_strain(device.xp.asarray(flows), convention, device=device)
    np.testing.assert_array_equal(device.to_host(got), optical_strain(flows, convention=convention))


@pytest.mark.addresses
@pytest.mark.parametrize("shape", [(1, 1, 1), (6, 33, 45)])
def test_magnitude_and_angle_equal_the_cpu(device: Device, shape: tuple[int, ...]) -> None:
    flows = make_flows(*shape, seed=0)
    got = gpu.magnitude_angle(device.xp.asarray(flows), device=device)
    for mine, expected in zip(got, magnitude_angle(flows), strict=True):
        np.testing.assert_allclose(device.to_host(mine), expected, rtol=2e-7, atol=0)


@pytest.mark.addresses
@pytest.mark.parametrize("size", SIZES)
def test_hsv_map_is_the_cpu_s(device: Device, size: Any) -> None:
    flows = make_flows(6, 56, 112, seed=0)
    got = device.to_host(gpu.encode_hsv(device.xp.asarray(flows), size, 0.0, device=device))
    assert_within_a_level(got, encode_hsv(flows, size))


def test_every_hue_and_value_is_the_cpu_s(device: Device) -> None:
    angle = np.radians(np.arange(0.5, 360, 0.5))[:, None]
    length = np.linspace(0, 255, 256)
    flow = np.stack([np.cos(angle) * length, np.sin(angle) * length], -1).astype(np.float32)
    got = device.to_host(gpu.encode_hsv(device.xp.asarray(flow[None]), None, 0.0, device=device))
    assert_within_a_level(got[0], encode_hsv(flow, None), often=1e-4)


@pytest.mark.parametrize("spread", [1e-5, 1e-6, 1e-7, 0])
def test_map_of_almost_constant_flow_is_the_cpu_s(device: Device, spread: float) -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 2))
    flow = (np.array([3.0, -4.0]) + spread * noise).astype(np.float32)
    got = device.to_host(gpu.encode_hsv(device.xp.asarray(flow), None, 0.0, device=device))
    assert_within_a_level(got, encode_hsv(flow, None))


def both(
    device: Device, on_gpu: Callable[..., Any], flows: Any, size: Any, *args: Any
) -> np.ndarray[Any, Any]:
    return device.to_host(on_gpu(device.xp.asarray(flows), size, *args, device=device))


@given(height=SIDES, width=SIDES, rows=SIDES, columns=SIDES, seed=SEEDS)
@settings(max_examples=25)
def test_maps_of_any_size_are_the_cpu_s(
    device: Device, height: int, width: int, rows: int, columns: int, seed: int
) -> None:
    # Noise: to stretch a flow that hardly varies multiplies the last bits.
    flows = np.random.default_rng(seed).normal(0, 1.2, (2, height, width, 2)).astype(np.float32)
    size = rows, columns
    for normalize, least in (("fixed", 0.0), ("minmax", 0.0), ("minmax", 6.0)):
        got = both(device, gpu.encode_hsv, flows, size, least)
        assert_within_a_level(got, encode_hsv(flows, size, least=least))
        options = {"normalize": normalize, "least": least}
        got = both(device, gpu.encode_uv, flows, size, normalize, 1.5, least)
        assert_within_a_level(got, encode_uv(flows, size, max_displacement=1.5, **options))
        got = both(device, gpu.encode_magnitude_angle, flows, size, normalize, 1.5, least)
        expected = encode_magnitude_angle(flows, size, max_magnitude=1.5, **options)
        assert_within_a_level(got, expected)
        got = both(device, gpu.encode_uv_strain, flows, size, "half", normalize, (1.5, 0.7), least)
        limits = {"max_displacement": 1.5, "max_strain": 0.7}
        assert_within_a_level(got, encode_uv_strain(flows, size, **limits, **options))


@given(height=SIDES, rows=SIDES, columns=st.integers(2, 80), seed=SEEDS)
@settings(max_examples=25)
def test_absolute_hsv_map_is_the_cpu_s(
    device: Device, height: int, rows: int, columns: int, seed: int
) -> None:
    # Beyond its last whole vector cvtColor rounds instead of truncating: none here. Between two
    # pixels the fixed point of OpenCV's linear resize differs at some positions.
    flows, size = make_flows(2, height, 64, seed), (rows, columns)
    got = both(device, gpu.encode_hsv_absolute, flows, size, 1.5)
    assert_within_a_level(got, encode_hsv_absolute(flows, size, max_magnitude=1.5), often=0.3)


@given(height=SIDES, width=SIDES, rows=SIDES, columns=SIDES, channels=st.integers(1, 3), seed=SEEDS)
@settings(max_examples=40)
def test_resize_is_opencv_s(
    device: Device, height: int, width: int, rows: int, columns: int, channels: int, seed: int
) -> None:
    images = np.random.default_rng(seed).normal(size=(2, height, width, channels))
    images = images.astype(np.float32)
    got = device.to_host(gpu.resized(device.xp.asarray(images), (rows, columns), device=device))
    shrinks = rows <= height and columns <= width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    expected = [cv2.resize(image, (columns, rows), interpolation=method) for image in images]
    # Positions are float32 in some of OpenCV's ways to enlarge.
    np.testing.assert_allclose(got, np.reshape(expected, got.shape), atol=2e-5)


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
@pytest.mark.parametrize("lead", [(), (3,), (2, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_stored_flow_of_a_card_becomes_maps_there(
    shim: ShimDevice, on_shim: Any, encoding: str, lead: tuple[int, ...], dtype: Any
) -> None:
    flow = np.random.default_rng(1).normal(0, 1.2, (*lead, 2, 40, 64)).astype(dtype)
    changes: dict[str, Any] = {"head": (10, 8, 20, 25), "mask": (3, 3, 30, 7), "noise": 0.3}
    before = len(shim.launches)
    got = make_maps(on_shim(flow), encoding, size=(20, 32), **changes)
    assert len(shim.launches) > before
    assert_within_a_level(got, make_maps(flow, encoding, size=(20, 32), **changes))


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_no_flow_of_a_card_makes_no_maps(on_shim: Any, encoding: str) -> None:
    assert make_maps(on_shim(np.zeros((0, 2, 8, 8), np.float32)), encoding).shape == (0, 28, 28, 3)


def test_flow_may_begin_at_any_float(device: Device) -> None:
    flows = make_flows(2, 20, 30, seed=0)
    memory = device.xp.empty(flows.size + 1, np.float32)
    there = memory[1:].reshape(flows.shape)
    there[...] = device.xp.asarray(flows)
    for encoding, encode in ENCODINGS.items():
        on_gpu = getattr(gpu, encode.__name__)
        args = {
            "hsv": (0.0,),
            "hsv-absolute": (2.0,),
            "uv-strain": ("half", "minmax", (2.0, 0.1), 0.0),
        }.get(encoding, ("fixed", 2.0, 0.0))
        shifted = device.to_host(on_gpu(there, (10, 15), *args, device=device))
        np.testing.assert_array_equal(shifted, both(device, on_gpu, flows, (10, 15), *args))


@pytest.mark.parametrize("function", [*ENCODINGS.values(), optical_strain, magnitude_angle])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_flow_that_is_not_finite_is_refused(on_shim: Any, function: Any, wrong: float) -> None:
    flow = make_flow(20, 30, 0)
    flow[3, 4, 1] = wrong
    with pytest.raises(ValueError, match=f"flow must be finite. Got {wrong}"):
        function(on_shim(flow))


@pytest.mark.parametrize("function", [encode_hsv, optical_strain])
def test_flow_that_overflows_is_refused(on_shim: Any, function: Any) -> None:
    with pytest.raises(ValueError, match="flow must be small enough"):
        function(on_shim(make_flow(20, 30, 0) * np.float32(1e30)))


def test_views_and_inputs_are_left_as_they_are(on_shim: Any) -> None:
    flows = make_flows(2, 20, 30, seed=3)
    view = np.asfortranarray(np.repeat(flows, 2, axis=2))[:, :, ::2]
    before = flows.copy()
    for function in (*ENCODINGS.values(), optical_strain):
        np.testing.assert_array_equal(function(on_shim(view)), function(on_shim(flows)))
    np.testing.assert_array_equal(flows, before)
