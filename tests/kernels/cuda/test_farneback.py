"""Farnebäck's flow on a GPU against the CPU's.

Where the CPU fuses `muladd` the two are the same to the last bit. That is not asked for, since
not every CPU does; but then both must stay within the tolerance wherever the equations are
well-conditioned.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from apexflow.bench import cases
from apexflow.kernels import farneback, prepare_farneback
from apexflow.kernels.flow_farneback import gpu
from apexflow.kernels.flow_farneback.arguments import check_averaging, check_expansion
from apexflow.kernels.gpu import Device
from tests.kernels.cuda.build import ShimDevice
from tests.kernels.test_farneback import (
    GAUSSIAN,
    converted,
    dtypes,
    end_point_difference,
    motions,
    moved_pair,
    noise_pair,
    parameters,
    seeds,
    shapes,
    texture,
    windows,
)

Image = NDArray[Any]
TOLERANCE = 1e-3  # px


def on_gpu(device: Device, prev: Any, next_: Any, **options: Any) -> Image:
    """Compute the flow on a device, from images of the host or prepared frames, and fetch it."""
    expansion = check_expansion(**expansion_of(options))
    averaging = {"winsize": 15, "iterations": 3, "flags": 0}
    averaging |= {name: options[name] for name in averaging.keys() & options}
    frames = [device.xp.asarray(f) if isinstance(f, np.ndarray) else f for f in (prev, next_)]
    flow = gpu.farneback(*frames, expansion, check_averaging(**averaging), device=device)
    assert flow.dtype == np.float32
    return device.to_host(flow)


def prepared(device: Device, image: Image, **options: Any) -> Any:
    expansion = check_expansion(**expansion_of(options))
    return gpu.prepare(device.xp.asarray(image), expansion, device=device)


def expansion_of(options: dict[str, Any]) -> dict[str, Any]:
    defaults = {"pyr_scale": 0.5, "levels": 3, "poly_n": 5, "poly_sigma": 1.2}
    return defaults | {name: options[name] for name in defaults.keys() & options}


def assert_agrees(device: Device, prev: Any, next_: Any, **options: Any) -> None:
    flow, expected = on_gpu(device, prev, next_, **options), farneback(prev, next_, **options)
    assert end_point_difference(flow, expected) < TOLERANCE


@given(shape=shapes, seed=seeds, dtype=dtypes, motion=motions, options=parameters)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_agrees_with_the_cpu_at_any_size_and_setting(
    device: Device,
    shape: tuple[int, int],
    seed: int,
    dtype: type,
    motion: tuple[float, float],
    options: dict[str, Any],
) -> None:
    assert_agrees(device, *moved_pair(shape, seed, motion, dtype), **options)


@pytest.mark.slow
@given(shape=shapes, seed=seeds, dtype=dtypes, motion=motions, options=parameters)
@settings(max_examples=1000, deadline=None, derandomize=True)
def test_agrees_with_the_cpu_at_very_many_settings(
    device: Device,
    shape: tuple[int, int],
    seed: int,
    dtype: type,
    motion: tuple[float, float],
    options: dict[str, Any],
) -> None:
    assert_agrees(device, *moved_pair(shape, seed, motion, dtype), **options)


@given(shape=shapes, seed=seeds, dtype=dtypes, flags=windows)
@settings(max_examples=15, deadline=None, derandomize=True)
def test_agrees_with_the_cpu_on_unrelated_noise(
    device: Device, shape: tuple[int, int], seed: int, dtype: type, flags: int
) -> None:
    assert_agrees(device, *noise_pair(shape, seed, dtype), flags=flags)


@given(height=st.integers(1, 15), width=st.integers(1, 15), seed=seeds, flags=windows)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_images_smaller_than_the_window(
    device: Device, height: int, width: int, seed: int, flags: int
) -> None:
    assert_agrees(device, *noise_pair((height, width), seed), flags=flags)


@pytest.mark.addresses
@pytest.mark.parametrize("flags", [0, GAUSSIAN])
@pytest.mark.parametrize("shape", [(1, 1), (3, 70), (70, 3), (33, 257), (41, 64)])
def test_shapes_that_leave_blocks_half_empty(
    device: Device, shape: tuple[int, int], flags: int
) -> None:
    assert_agrees(device, *noise_pair(shape, 1, np.float32), flags=flags)


@pytest.mark.parametrize("flags", [0, GAUSSIAN])
def test_the_pair_of_the_benchmark(device: Device, flags: int) -> None:
    assert_agrees(device, *cases.pair(224), **cases.FARNEBACK, flags=flags)


@pytest.mark.addresses
@pytest.mark.parametrize("flags", [0, GAUSSIAN])
@pytest.mark.parametrize("winsize", [1, 2, 3, 4, 5, 8, 39, 200])
def test_windows_of_any_size(device: Device, winsize: int, flags: int) -> None:
    # Low contrast, so that the regularised equations are well-conditioned pixel by pixel.
    prev, next_ = (image * np.float32(0.05) for image in moved_pair((50, 61), 1, (0.6, -0.4)))
    assert_agrees(device, prev, next_, winsize=winsize, flags=flags)


@pytest.mark.addresses
@pytest.mark.parametrize("poly_n", [1, 2, 3, 7, 12, 40])
def test_polynomials_of_any_size(device: Device, poly_n: int) -> None:
    prev, next_ = moved_pair((37, 58), 3, (0.8, 0.5))
    assert_agrees(device, prev, next_, poly_n=poly_n, poly_sigma=0.25 * poly_n, winsize=21)


@pytest.mark.addresses
@pytest.mark.parametrize("side", [1, 3, 15, 101])
def test_running_sums_keep_what_rounding_leaves(device: Device, side: int) -> None:
    # Of a strong edge that the window has left, the rounding of the changes from row to row
    # remains, as in OpenCV. It decides the flow of faint texture below the edge.
    rows = np.random.default_rng(side).random((2, 5, 40, 13), np.float32)
    rows[:, :, :4] *= 1e8
    reach = side // 2
    # The first row stands for those above; OpenCV counts it twice in a window of one row.
    first = rows[:, :, :1].astype(np.float64) * max(side, 2)
    y = np.arange(1, 40 + reach)
    changes = rows[:, :, np.minimum(y, 39)] - rows[:, :, np.maximum(y - side, 0)]
    expected = np.cumsum(np.concatenate([first, changes], axis=2), axis=2)[:, :, reach:]
    out = device.xp.empty(rows.shape, np.float32)
    arguments = device.xp.asarray(rows), out, np.int32(side), np.int32(40), np.int32(13)
    device.kernel(gpu.SOURCE, "slide")((1, 2), (96,), arguments)
    np.testing.assert_array_equal(device.to_host(out), expected.astype(np.float32))


@pytest.mark.parametrize("flags", [0, GAUSSIAN])
def test_faint_texture_below_a_strong_edge(device: Device, flags: int) -> None:
    prev, next_ = moved_pair((90, 75), 1, (0.6, -0.4), np.float32)
    prev, next_ = (np.float32(50) + image * np.float32(0.01) for image in (prev, next_))
    prev[:4] = 255 * (np.arange(75) // 3 % 2)
    next_[:4] = np.roll(prev[:4], 1, axis=1)
    assert_agrees(device, prev, next_, flags=flags)


@pytest.mark.parametrize("flags", [0, GAUSSIAN])
@pytest.mark.parametrize("value", [0, 137, 255])
def test_flat_images_do_not_move(device: Device, value: int, flags: int) -> None:
    flat = np.full((40, 50), value, np.uint8)
    np.testing.assert_array_equal(on_gpu(device, flat, flat, flags=flags), np.zeros((40, 50, 2)))


@pytest.mark.parametrize("flags", [0, GAUSSIAN])
def test_motion_out_of_the_image(device: Device, flags: int) -> None:
    whole = converted(texture(120, 200, 5, 4.0), np.uint8)
    assert_agrees(device, whole[:, :150], whole[:, 50:], flags=flags)


@pytest.mark.parametrize("scale", [1e-9, 4e6])
def test_values_of_any_scale(device: Device, scale: float) -> None:
    prev, next_ = (image * np.float32(scale) for image in moved_pair((60, 50), 2, (1.1, 0.3)))
    assert_agrees(device, prev, next_)


def test_no_iterations_give_zero_flow(device: Device) -> None:
    flow = on_gpu(device, *moved_pair((64, 64), 0, (1, 1)), iterations=0)
    np.testing.assert_array_equal(flow, np.zeros((64, 64, 2)))


def batch(shape: tuple[int, int] = (48, 67)) -> tuple[Image, Image]:
    """Four pairs that move differently."""
    pairs = [moved_pair(shape, seed, (seed / 2, -0.5)) for seed in range(4)]
    prev, next_ = zip(*pairs, strict=True)
    return np.stack(prev), np.stack(next_)


@pytest.mark.addresses
@pytest.mark.parametrize("flags", [0, GAUSSIAN])
def test_batches_are_their_pairs(device: Device, flags: int) -> None:
    prev, next_ = batch()
    flows = on_gpu(device, prev, next_, flags=flags)
    assert flows.shape == (4, 48, 67, 2)
    for flow, *pair in zip(flows, prev, next_, strict=True):
        np.testing.assert_array_equal(flow, on_gpu(device, *pair, flags=flags))
    one = on_gpu(device, prev[:1], next_[:1], flags=flags)
    np.testing.assert_array_equal(one, flows[:1])
    assert end_point_difference(flows, farneback(prev, next_, flags=flags)) < TOLERANCE


@pytest.mark.addresses
def test_a_frame_may_be_shared_or_prepared(device: Device) -> None:
    prev, next_ = batch()
    onset = np.repeat(prev[:1], 4, axis=0)
    forth, back = on_gpu(device, onset, next_), on_gpu(device, next_, onset)
    frame = prepared(device, prev[0])
    for shared in (prev[0], frame):
        np.testing.assert_array_equal(on_gpu(device, shared, next_), forth)
        np.testing.assert_array_equal(on_gpu(device, next_, shared), back)
    np.testing.assert_array_equal(on_gpu(device, frame, next_[2]), forth[2])
    np.testing.assert_array_equal(on_gpu(device, frame, prepared(device, next_[1])), forth[1])


def test_a_batch_beyond_the_memory_is_computed_in_parts(shim: ShimDevice) -> None:
    prev, next_ = batch()
    whole = on_gpu(shim, prev, next_), on_gpu(shim, prev[0], next_)
    for pairs in (1, 3):
        small = ShimDevice(shim._folder, addresses=shim._addresses, free=pairs * 48 * 67 * 4 * 32)
        np.testing.assert_array_equal(on_gpu(small, prev, next_), whole[0])
        assert small.launches.count("slide") == -(-4 // pairs) * 3
        small.launches.clear()
        np.testing.assert_array_equal(on_gpu(small, prev[0], next_), whole[1])
        # The shared frame is expanded once, whatever the number of parts.
        assert small.launches.count("expand") == 1 + -(-4 // pairs)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_public_functions_take_arrays_of_the_card(
    on_shim: Callable[[Any], Any], dtype: type
) -> None:
    prev, next_ = moved_pair((60, 70), 2, (1.2, 0.3), dtype)
    expected = farneback(prev, next_, winsize=9, poly_n=7)
    wide = on_shim(np.zeros((120, 210), dtype))
    wide[::2, ::3] = prev
    for view in (on_shim(prev), wide[::2, ::3], on_shim(prev.T).T):
        before = view.copy()
        flow = farneback(view, on_shim(next_), winsize=9, poly_n=7)
        assert end_point_difference(flow, expected) < TOLERANCE
        np.testing.assert_array_equal(view, before)
    frame = prepare_farneback(on_shim(prev), levels=1)
    assert [c.shape for c in frame.coefficients] == [(1, 5, 60, 70)]


def test_arrays_of_host_and_card_do_not_mix(on_shim: Callable[[Any], Any]) -> None:
    image = np.zeros((32, 40), np.uint8)
    with pytest.raises(TypeError, match=r"next must be a CuPy array, as prev is"):
        farneback(on_shim(image), image)
    with pytest.raises(TypeError, match=r"prev must be a CuPy array, as next is"):
        farneback(prepare_farneback(image), on_shim(image))


@pytest.mark.parametrize(
    ("prev", "options", "message"),
    [
        (np.zeros((32, 40), np.int16), {}, "prev must be uint8 or float32. Got int16"),
        (np.zeros((32, 41), np.uint8), {}, "next must have the height and width of prev"),
        (np.full((32, 40), np.nan, np.float32), {}, "prev must be finite. Got nan"),
        (np.zeros((32, 40), np.uint8), {"winsize": 0}, "winsize must be at least 1. Got 0"),
    ],
)
def test_wrong_arguments_are_named_as_on_the_cpu(
    on_shim: Callable[[Any], Any], prev: Image, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        farneback(on_shim(prev), on_shim(np.zeros((32, 40), np.uint8)), **options)
