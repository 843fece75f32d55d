"""The GPU implementation of local normalisation against the CPU kernel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from apexflow.kernels import normalize_light
from apexflow.kernels.gpu import Device
from apexflow.kernels.light import gpu
from apexflow.kernels.light.gaussian import gaussian_taps
from tests.kernels.cuda.build import ShimDevice
from tests.kernels.cuda.strict_arrays import StrictDevice
from tests.kernels.test_light import SEEDS, face


def on(device: Device, images: Any, sigma: float = 8.0, epsilon: float = 4.0) -> np.ndarray:
    """Normalise on the device, from a host array to a host array."""
    there, taps = device.xp.asarray(images), gaussian_taps(sigma)
    return device.to_host(gpu.normalize(there, taps, np.float32(epsilon), device=device))


@given(
    count=st.integers(1, 3),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=SEEDS,
    sigma=st.sampled_from([0.05, 1, 2.5, 8]),
    dtype=st.sampled_from([np.uint8, np.float32]),
)
@example(2, 17, 300, 0, 8, np.uint8)
@settings(deadline=None, max_examples=20)
def test_it_equals_the_cpu(
    device: Device, count: int, height: int, width: int, seed: int, sigma: float, dtype: Any
) -> None:
    images = np.random.default_rng(seed).uniform(0, 255, (count, height, width)).astype(dtype)
    normalized = on(device, images, sigma)
    assert (normalized.dtype, normalized.shape) == (np.float32, images.shape)
    expected = normalize_light(images, sigma=sigma)
    # Nothing but rounding, which is the same where the CPU fuses as the GPU does.
    np.testing.assert_allclose(normalized, expected, atol=1e-3, rtol=0)


@pytest.mark.addresses
def test_a_small_batch_reads_and_writes_inside(device: Device) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 19, 33), np.uint8)
    np.testing.assert_allclose(on(device, images), normalize_light(images), atol=1e-3, rtol=0)


@pytest.mark.parametrize("free", [1 << 30, 1 << 18, 0])
def test_an_image_does_not_depend_on_its_batch(shim: ShimDevice, free: int) -> None:
    images = np.stack([face(60, 70, seed) for seed in range(4)])
    device = ShimDevice(shim._folder, addresses=shim._addresses, free=free)
    alone = np.stack([on(shim, image) for image in images])
    np.testing.assert_array_equal(on(device, images), alone)


def test_no_array_of_the_device_meets_one_of_the_host(shim: ShimDevice) -> None:
    images = np.stack([face(30, 40, seed) for seed in range(2)])
    np.testing.assert_array_equal(on(StrictDevice(shim), images), on(shim, images))


def test_the_public_function_goes_to_the_gpu(
    on_shim: Callable[[Any], np.ndarray], shim: ShimDevice
) -> None:
    image = face(40, 50)
    shim.launches.clear()
    normalized = normalize_light(on_shim(image))
    assert shim.launches == ["blur_down", "blur_across"] * 2
    np.testing.assert_allclose(normalized, normalize_light(image), atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match=r"images must be finite\. Got nan"):
        normalize_light(on_shim(np.full((4, 5), np.nan, np.float32)))
