"""Farnebäck's flow against OpenCV's, against known motion, and against itself."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from apexflow.kernels import farneback, prepare_farneback

Image = NDArray[Any]

GAUSSIAN = cv2.OPTFLOW_FARNEBACK_GAUSSIAN
# Agreement asked, in px, with the box and with the Gaussian window.
TOLERANCE = {0: 1e-3, GAUSSIAN: 1e-2}
DEFAULTS = {
    "pyr_scale": 0.5,
    "levels": 3,
    "winsize": 15,
    "iterations": 3,
    "poly_n": 5,
    "poly_sigma": 1.2,
    "flags": 0,
}


def opencv(prev: Image, next_: Image, **options: Any) -> Image:
    return np.asarray(
        cv2.calcOpticalFlowFarneback(prev, next_, None, *(DEFAULTS | options).values())
    )


def end_point_difference(flow: Image, other: Image) -> float:
    assert flow.shape == other.shape
    return float(np.linalg.norm(flow.astype(np.float64) - other, axis=-1).max())


def converted(image: Image, dtype: type) -> Image:
    return np.rint(image).clip(0, 255).astype(dtype) if dtype is np.uint8 else image.astype(dtype)


def texture(height: int, width: int, seed: int, scale: float = 2.5) -> Image:
    """A smooth random texture in 0..255."""
    noise = np.random.default_rng(seed).random((height, width))
    smooth = cv2.GaussianBlur(noise, (0, 0), scale)
    return (smooth - smooth.min()) / np.ptp(smooth) * 255


def moved_pair(
    shape: tuple[int, int], seed: int, motion: tuple[float, float], dtype: type = np.uint8
) -> tuple[Image, Image]:
    """Two views of one texture; what is at p in the first is at p + motion in the second."""
    height, width = shape
    margin = 16
    whole = texture(height + 2 * margin, width + 2 * margin, seed).astype(np.float32)
    y, x = np.mgrid[:height, :width].astype(np.float32) + margin
    moved = cv2.remap(whole, x - np.float32(motion[0]), y - np.float32(motion[1]), cv2.INTER_CUBIC)
    return converted(whole[margin:-margin, margin:-margin], dtype), converted(moved, dtype)


def noise_pair(shape: tuple[int, int], seed: int, dtype: type = np.uint8) -> tuple[Image, Image]:
    """Two images that have nothing to do with each other: displacements of many pixels."""
    a, b = np.random.default_rng(seed).random((2, *shape)) * 255
    return converted(a, dtype), converted(b, dtype)


sides = st.integers(16, 100)
shapes = st.tuples(sides, sides)
dtypes = st.sampled_from([np.uint8, np.float32])
seeds = st.integers(0, 2**32 - 1)
# Without motion the flow at the border is a rounding error, whose sign decides what lies inside:
# see test_identical_frames_are_opencvs_until_rounding_decides.
speeds = st.one_of(st.floats(-3, -0.1), st.floats(0.1, 3))
motions = st.tuples(speeds, speeds)
windows = st.sampled_from([0, GAUSSIAN])
# Smaller windows and thinner polynomials make the normal equations of a textured image nearly
# singular; OpenCV then differs as much from itself when 1e-4 gray levels of noise are added.
parameters = st.fixed_dictionaries(
    {
        "pyr_scale": st.floats(0.2, 0.95),
        "levels": st.integers(0, 5),
        "winsize": st.integers(9, 40),
        "iterations": st.integers(0, 5),
        "poly_n": st.sampled_from([5, 7, 4, 9]),
        "poly_sigma": st.sampled_from([1.1, 1.2, 1.5, 0.0]),
        "flags": windows,
    }
)


@given(shape=shapes, seed=seeds, dtype=dtypes, motion=motions, options=parameters)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_agrees_with_opencv_at_any_size_and_setting(
    shape: tuple[int, int],
    seed: int,
    dtype: type,
    motion: tuple[float, float],
    options: dict[str, Any],
) -> None:
    prev, next_ = moved_pair(shape, seed, motion, dtype)
    difference = end_point_difference(
        farneback(prev, next_, **options), opencv(prev, next_, **options)
    )
    assert difference < TOLERANCE[options["flags"]]


@pytest.mark.slow
@given(shape=shapes, seed=seeds, dtype=dtypes, motion=motions, options=parameters)
@settings(max_examples=2000, deadline=None, derandomize=True)
def test_agrees_with_opencv_at_very_many_settings(
    shape: tuple[int, int],
    seed: int,
    dtype: type,
    motion: tuple[float, float],
    options: dict[str, Any],
) -> None:
    prev, next_ = moved_pair(shape, seed, motion, dtype)
    difference = end_point_difference(
        farneback(prev, next_, **options), opencv(prev, next_, **options)
    )
    assert difference < TOLERANCE[options["flags"]]


@given(shape=shapes, seed=seeds, dtype=dtypes, flags=windows)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_agrees_with_opencv_on_unrelated_noise(
    shape: tuple[int, int], seed: int, dtype: type, flags: int
) -> None:
    prev, next_ = noise_pair(shape, seed, dtype)
    difference = end_point_difference(
        farneback(prev, next_, flags=flags), opencv(prev, next_, flags=flags)
    )
    assert difference < TOLERANCE[flags]


@pytest.mark.parametrize("flags", [0, GAUSSIAN])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(224, 224), (131, 333), (97, 240), (480, 321)])
def test_agrees_with_opencv_at_real_sizes(shape: tuple[int, int], dtype: type, flags: int) -> None:
    for seed, motion in enumerate([(0.3, -0.2), (-2.7, 1.4), (6.5, 5.0)]):
        prev, next_ = moved_pair(shape, seed, motion, dtype)
        flow = farneback(prev, next_, flags=flags)
        assert (flow.shape, flow.dtype) == ((*shape, 2), np.float32)
        assert end_point_difference(flow, opencv(prev, next_, flags=flags)) < TOLERANCE[flags]


@given(height=st.integers(1, 15), width=st.integers(1, 15), seed=seeds, flags=windows)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_agrees_with_opencv_on_images_smaller_than_the_window(
    height: int, width: int, seed: int, flags: int
) -> None:
    prev, next_ = noise_pair((height, width), seed)
    difference = end_point_difference(
        farneback(prev, next_, flags=flags), opencv(prev, next_, flags=flags)
    )
    assert difference < TOLERANCE[flags]


@pytest.mark.parametrize("flags", [0, GAUSSIAN])
@pytest.mark.parametrize("winsize", range(1, 9))
def test_small_windows_are_opencvs_even_ones_and_one_pixel_included(
    winsize: int, flags: int
) -> None:
    # Low contrast, so that the regularised equations are well-conditioned pixel by pixel.
    prev, next_ = (image * np.float32(0.05) for image in moved_pair((50, 61), 1, (0.6, -0.4)))
    options = {"winsize": winsize, "flags": flags}
    flow, expected = farneback(prev, next_, **options), opencv(prev, next_, **options)
    assert np.abs(expected).max() > 0.05
    assert end_point_difference(flow, expected) < TOLERANCE[flags] / 10


@pytest.mark.parametrize("poly_n", [1, 2, 3, 5, 7, 12])
def test_polynomials_of_any_size_are_opencvs(poly_n: int) -> None:
    prev, next_ = moved_pair((70, 58), 3, (0.8, 0.5))
    options = {"poly_n": poly_n, "poly_sigma": 0.25 * poly_n, "winsize": 21, "levels": 0}
    difference = end_point_difference(
        farneback(prev, next_, **options), opencv(prev, next_, **options)
    )
    assert difference < 1e-3


@pytest.mark.parametrize("flags", [0, GAUSSIAN])
@pytest.mark.parametrize("value", [0, 137, 255])
def test_flat_images_do_not_move(value: int, flags: int) -> None:
    flat = np.full((40, 50), value, np.uint8)
    np.testing.assert_array_equal(farneback(flat, flat, flags=flags), np.zeros((40, 50, 2)))


@pytest.mark.parametrize("flags", [0, GAUSSIAN])
def test_identical_frames_are_opencvs_until_rounding_decides(flags: int) -> None:
    # OpenCV takes the last row and column as outside the image, so that some flow arises there.
    image = moved_pair((90, 70), 6, (0, 0))[0]
    flow = farneback(image, image, flags=flags, levels=0, iterations=2)
    expected = opencv(image, image, flags=flags, levels=0, iterations=2)
    assert np.abs(expected[-3:]).max() > 1e-3
    assert end_point_difference(flow, expected) < TOLERANCE[flags]
    np.testing.assert_array_equal(flow[:40, :30], np.zeros((40, 30, 2)))


def test_an_edge_on_flat_ground_is_opencvs() -> None:
    prev = np.zeros((60, 80), np.uint8)
    prev[20:40, 30:50] = 255
    next_ = np.roll(prev, (1, 2), (0, 1))
    assert end_point_difference(farneback(prev, next_), opencv(prev, next_)) < 1e-3


@pytest.mark.parametrize("flags", [0, GAUSSIAN])
def test_motion_out_of_the_image_is_opencvs(flags: int) -> None:
    # The texture leaves the image by a third, so that many samples lie outside.
    whole = converted(texture(120, 200, 5, 4.0), np.uint8)
    prev, next_ = whole[:, :150], np.ascontiguousarray(whole[:, 50:])
    difference = end_point_difference(
        farneback(prev, next_, flags=flags), opencv(prev, next_, flags=flags)
    )
    assert difference < TOLERANCE[flags]


@pytest.mark.parametrize("motion", [(0.2, 0.1), (-1.3, 0.7), (2.5, -3.0)])
def test_finds_known_motion(motion: tuple[float, float]) -> None:
    prev, next_ = moved_pair((160, 160), 7, motion)
    inner = farneback(prev, next_)[24:-24, 24:-24]
    assert np.abs(inner - motion).mean() < 0.05


def test_no_iterations_give_zero_flow() -> None:
    prev, next_ = moved_pair((64, 64), 0, (1, 1))
    np.testing.assert_array_equal(farneback(prev, next_, iterations=0), np.zeros((64, 64, 2)))


@given(shape=shapes, seed=seeds, options=parameters)
@settings(max_examples=15, deadline=None, derandomize=True)
def test_prepared_frames_give_the_same_bits(
    shape: tuple[int, int], seed: int, options: dict[str, Any]
) -> None:
    prev, next_ = moved_pair(shape, seed, (0.7, -0.4))
    flow = farneback(prev, next_, **options)
    expansion = {name: options[name] for name in ("pyr_scale", "levels", "poly_n", "poly_sigma")}
    first, second = prepare_farneback(prev, **expansion), prepare_farneback(next_, **expansion)
    for a, b in [(first, next_), (prev, second), (first, second), (first, next_)]:
        np.testing.assert_array_equal(farneback(a, b, **options), flow)


@pytest.mark.parametrize("flags", [0, GAUSSIAN])
def test_batches_are_their_pairs(flags: int) -> None:
    pairs = [moved_pair((48, 57), seed, (seed / 2, -0.5)) for seed in range(4)]
    prev, next_ = (np.stack(images) for images in zip(*pairs, strict=True))
    flows = farneback(prev, next_, flags=flags)
    assert flows.shape == (4, 48, 57, 2)
    for flow, pair in zip(flows, pairs, strict=True):
        np.testing.assert_array_equal(flow, farneback(*pair, flags=flags))
    for shared in (prev[0], prepare_farneback(prev[0])):
        expected = [farneback(prev[0], image, flags=flags) for image in next_]
        np.testing.assert_array_equal(farneback(shared, next_, flags=flags), expected)
    expected = [farneback(image, next_[0], flags=flags) for image in prev]
    np.testing.assert_array_equal(farneback(prev, next_[0], flags=flags), expected)
    assert farneback(prev[:1], next_[:1]).shape == (1, 48, 57, 2)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_views_of_any_layout_are_read_and_never_written(dtype: type) -> None:
    prev, next_ = moved_pair((60, 70), 2, (1.2, 0.3), dtype)
    expected = farneback(prev, next_)
    wide = np.zeros((120, 210), dtype)
    wide[::2, ::3] = prev
    read_only = next_.copy()
    read_only.flags.writeable = False
    views = [prev, wide[::2, ::3], np.asfortranarray(prev), prev[::-1][::-1], prev.T.copy().T]
    for view in views:
        before = view.copy()
        np.testing.assert_array_equal(farneback(view, read_only), expected)
        np.testing.assert_array_equal(view, before)


def test_threads_do_not_share_anything() -> None:
    pairs = [moved_pair((90, 101), seed, (0.5, seed / 8)) for seed in range(16)]
    expected = [farneback(*pair) for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        flows = list(pool.map(lambda pair: farneback(*pair), pairs))
    np.testing.assert_array_equal(flows, expected)


IMAGE = np.zeros((32, 40), np.uint8)


@pytest.mark.parametrize(
    ("prev", "next_", "options", "message"),
    [
        (IMAGE.astype(np.int16), IMAGE, {}, "prev must be uint8 or float32. Got int16"),
        (IMAGE, IMAGE.astype(np.int32), {}, "next must be uint8 or float32. Got int32"),
        (IMAGE[None, None], IMAGE, {}, r"prev must have 2 or 3 dimensions. Got shape \(1, 1, 32"),
        (IMAGE[:0], IMAGE, {}, "prev must not be empty"),
        (IMAGE, IMAGE[:, :-1], {}, r"next must have the height and width of prev, \(32, 40\)"),
        (IMAGE[None].repeat(2, 0), IMAGE[None].repeat(3, 0), {}, "next must have as many frames"),
        (IMAGE, np.full((32, 40), np.nan, np.float32), {}, "next must be finite. Got nan"),
        (np.full((32, 40), np.inf, np.float32), IMAGE, {}, "prev must be finite. Got inf"),
        (IMAGE, IMAGE, {"pyr_scale": 1.0}, "pyr_scale must be below 1. Got 1.0"),
        (IMAGE, IMAGE, {"pyr_scale": 0}, "pyr_scale must be above 0. Got 0"),
        (IMAGE, IMAGE, {"levels": -1}, "levels must be at least 0. Got -1"),
        (IMAGE, IMAGE, {"winsize": 0}, "winsize must be at least 1. Got 0"),
        (IMAGE, IMAGE, {"winsize": 15.0}, "winsize must be an integer. Got 15.0"),
        (IMAGE, IMAGE, {"iterations": -1}, "iterations must be at least 0. Got -1"),
        (IMAGE, IMAGE, {"poly_n": 0}, "poly_n must be at least 1. Got 0"),
        (IMAGE, IMAGE, {"poly_sigma": -1.0}, "poly_sigma must be at least 0. Got -1.0"),
        (IMAGE, IMAGE, {"flags": cv2.OPTFLOW_USE_INITIAL_FLOW}, r"flags must be 0 or .*\. Got 4"),
        (prepare_farneback(IMAGE, poly_n=7), IMAGE, {}, "prev must be prepared with .*poly_n=7"),
        (IMAGE, prepare_farneback(IMAGE[1:]), {}, "next must have the height and width of prev"),
    ],
)
def test_wrong_arguments_are_named(
    prev: Any, next_: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        farneback(prev, next_, **options)


def test_preparing_takes_one_image() -> None:
    with pytest.raises(ValueError, match="image must have 2 dimensions"):
        prepare_farneback(IMAGE[None])


AGREEMENT = """
import numpy as np
from tests.kernels.test_farneback import *
for flags in (0, GAUSSIAN):
    for pair in (moved_pair((75, 98), 4, (2.2, -1.1)), noise_pair((64, 53), 4)):
        assert end_point_difference(farneback(*pair, flags=flags), opencv(*pair, flags=flags)) < (
            TOLERANCE[flags]
        )
"""


@pytest.mark.slow  # test_portable has a sample of it
@pytest.mark.parametrize("cpu", ["generic", "haswell"])
def test_agrees_with_opencv_on_plainer_cpus(cpu: str, tmp_path: Path) -> None:
    import platform

    if cpu == "haswell" and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("an x86 CPU with AVX2 cannot be imitated on another architecture")
    environment = os.environ | {
        "NUMBA_CPU_NAME": cpu,
        "NUMBA_CPU_FEATURES": "+avx2,+fma" if cpu == "haswell" else "",
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", AGREEMENT],
        env=environment,
        cwd=root,
        check=False,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
