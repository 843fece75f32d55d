"""HSV maps against OpenCV's chain byte by byte, strain and angles against their formulas."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apexflow.kernels.encode import ENCODINGS, encode_hsv, magnitude_angle, optical_strain

SIDES = st.integers(16, 100)
SEEDS = st.integers(0, 2**32 - 1)
CELLS = st.sampled_from([(1, 1), (2, 2), (3, 3), (1, 2), (4, 1), (5, 3), (8, 8), (2, 8)])


def opencv_chain(flow, size=(28, 28), *, whole_vectors=True):
    """Reference: the chain of four OpenCV calls, with NumPy's truncation to bytes.

    With ``whole_vectors`` the image is padded for cvtColor, which rounds instead of
    truncating in the last columns that do not fill a vector.
    """
    magnitude, angle = cv2.cartToPolar(flow[..., 0], flow[..., 1], angleInDegrees=True)
    height, width = angle.shape
    hsv = np.zeros((height, -(-width // 64) * 64 if whole_vectors else width, 3), np.uint8)
    hsv[:, :width, 0] = angle / 2
    hsv[..., 1] = 255
    hsv[:, :width, 2] = cv2.normalize(magnitude, None, 0, 255, cv2.NORM_MINMAX)
    rgb = np.ascontiguousarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[:, :width])
    if size is None:
        return rgb
    return cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_AREA)


def make_flow(height, width, seed):
    """Return a flow of one of several characters, chosen by the seed."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(height, width, 2)).astype(np.float32)
    kinds = [
        lambda: noise,
        lambda: cv2.GaussianBlur(noise, (0, 0), 3),
        lambda: cv2.GaussianBlur(noise, (0, 0), 3) * np.float32(1e-3) + np.float32([2, -1]),
        lambda: rng.integers(-2, 3, noise.shape).astype(np.float32),
        lambda: noise * np.float32(1e4),
        lambda: noise * (noise > 0),
    ]
    return kinds[seed % len(kinds)]()


@pytest.mark.parametrize("seed", range(24))
def test_maps_of_faces_equal_opencv(seed):
    flow = make_flow(224, 224, seed)
    np.testing.assert_array_equal(encode_hsv(flow), opencv_chain(flow, whole_vectors=False))


def test_every_hue_and_value_equals_opencv():
    angle = np.radians(np.arange(0.5, 360, 0.5))[:, None]
    length = np.linspace(0, 255, 1024)
    flow = np.stack([np.cos(angle) * length, np.sin(angle) * length], -1).astype(np.float32)
    np.testing.assert_array_equal(encode_hsv(flow, None), opencv_chain(flow, None))


@given(height=SIDES, width=SIDES, seed=SEEDS)
@settings(deadline=None, max_examples=60)
def test_full_size_map_equals_opencv(height, width, seed):
    flow = make_flow(height, width, seed)
    got = encode_hsv(flow, size=None)
    np.testing.assert_array_equal(got, opencv_chain(flow, None))
    plain = opencv_chain(flow, None, whole_vectors=False)
    assert np.abs(got.astype(int) - plain).max() <= 1


@given(size=st.tuples(st.integers(1, 40), st.integers(1, 40)), cell=CELLS, seed=SEEDS)
@settings(deadline=None, max_examples=80)
def test_exact_cells_equal_opencv(size, cell, seed):
    flow = make_flow(size[0] * cell[0], size[1] * cell[1], seed)
    np.testing.assert_array_equal(encode_hsv(flow, size), opencv_chain(flow, size))


@given(height=SIDES, width=SIDES, size=st.tuples(SIDES, SIDES), seed=SEEDS)
@settings(deadline=None, max_examples=40)
def test_other_sizes_equal_opencv(height, width, size, seed):
    flow = make_flow(height, width, seed)
    np.testing.assert_array_equal(encode_hsv(flow, size), opencv_chain(flow, size))


def test_size_is_height_then_width():
    assert encode_hsv(make_flow(64, 96, 1), (16, 24)).shape == (16, 24, 3)


@pytest.mark.parametrize("spread", [1e-5, 1e-6, 1e-7, 0])
def test_almost_constant_flow_equals_opencv(spread):
    noise = np.random.default_rng(0).uniform(-1, 1, (64, 64, 2))
    flow = (np.array([3.0, -4.0]) + spread * noise).astype(np.float32)
    np.testing.assert_array_equal(encode_hsv(flow), opencv_chain(flow))


@pytest.mark.parametrize("vector", [(0, 0), (-0.0, 0), (3, 0), (-2.5, 1e-3)])
def test_constant_flow_is_black(vector):
    flow = np.broadcast_to(np.float32(vector), (30, 50, 2))
    assert not encode_hsv(flow, None).any()
    assert not encode_hsv(flow).any()


@given(height=st.integers(1, 5), width=st.integers(1, 5), seed=SEEDS)
@settings(deadline=None, max_examples=40)
def test_tiny_flows_equal_opencv(height, width, seed):
    flow = make_flow(height, width, seed)
    np.testing.assert_array_equal(encode_hsv(flow, None), opencv_chain(flow, None))


def test_right_is_red_and_down_is_yellow_green():
    flow = np.zeros((2, 3, 2), np.float32)
    flow[0, 0], flow[0, 1], flow[0, 2] = (1, 0), (0, 1), (-1, 0)
    image = encode_hsv(flow, None)
    assert image[0].tolist() == [[255, 0, 0], [127, 255, 0], [0, 254, 255]]
    assert not image[1].any()


@given(count=st.integers(1, 4), height=SIDES, width=SIDES, seed=SEEDS)
@settings(deadline=None, max_examples=20)
def test_batches_and_views_give_the_same(count, height, width, seed):
    flows = np.stack([make_flow(height, width, seed + i) for i in range(count)])
    before = flows.copy()
    flows.flags.writeable = False
    view = np.asfortranarray(np.repeat(flows, 2, axis=2))[:, :, ::2]
    for function in (encode_hsv, optical_strain, lambda f: magnitude_angle(f)[1]):
        single = np.stack([function(flow) for flow in flows])
        np.testing.assert_array_equal(function(flows), single)
        np.testing.assert_array_equal(function(view), single)
    np.testing.assert_array_equal(flows, before)


def test_encodings_give_bytes():
    flow = make_flow(56, 56, 1)
    for encode in ENCODINGS.values():
        image = encode(flow, size=(28, 28))
        assert (image.shape, image.dtype) == ((28, 28, 3), np.uint8)


@given(height=st.integers(2, 60), width=st.integers(2, 60), seed=SEEDS)
@settings(deadline=None, max_examples=40)
def test_strain_equals_its_formula(height, width, seed):
    flow = make_flow(height, width, seed)
    u_y, u_x = np.gradient(flow[..., 0].astype(np.float64))
    v_y, v_x = np.gradient(flow[..., 1].astype(np.float64))
    for convention, weight in (("half", 0.5), ("quarter", 0.25)):
        expected = np.sqrt(u_x**2 + v_y**2 + weight * (u_y + v_x) ** 2)
        got = optical_strain(flow, convention=convention)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6 * np.abs(flow).max())


@pytest.mark.parametrize(
    ("matrix", "half", "quarter"),
    [
        ([[0, 0], [0, 0]], 0, 0),  # translation
        ([[0.3, 0], [0, 0.4]], 0.5, 0.5),  # stretch along both axes
        ([[0, 0.2], [0, 0]], 0.2 / np.sqrt(2), 0.1),  # shear
        ([[0, -0.1], [0.1, 0]], 0, 0),  # rotation
    ],
)
def test_strain_of_known_deformations(matrix, half, quarter):
    y, x = np.mgrid[:20, :30]
    flow = (np.stack([x, y], -1) @ np.transpose(matrix) + [2, -1]).astype(np.float32)
    np.testing.assert_allclose(optical_strain(flow), half, atol=1e-5)
    np.testing.assert_allclose(optical_strain(flow, convention="quarter"), quarter, atol=1e-5)


@given(height=SIDES, width=SIDES, seed=SEEDS)
@settings(deadline=None, max_examples=20)
def test_magnitude_and_angle(height, width, seed):
    flow = make_flow(height, width, seed)
    magnitude, angle = magnitude_angle(flow)
    x, y = flow[..., 0].astype(np.float64), flow[..., 1].astype(np.float64)
    np.testing.assert_allclose(magnitude, np.hypot(x, y), rtol=1e-6)
    turn = (angle - np.degrees(np.arctan2(y, x)) + 180) % 360 - 180
    assert np.abs(turn[magnitude > 1e-9]).max(initial=0) < 0.01
    assert not angle[(x == 0) & (y == 0)].any()


@pytest.mark.parametrize("function", [encode_hsv, optical_strain, magnitude_angle])
@pytest.mark.parametrize(
    ("flow", "rule"),
    [
        (np.zeros((20, 20), np.float32), "flow must have 3 or 4 dimensions"),
        (np.zeros((20, 20, 3), np.float32), "last dimension"),
        (np.zeros((20, 20, 2), np.int32), "flow must be float32. Got int32"),
        (np.zeros((20, 0, 2), np.float32), "flow must not be empty"),
        (np.full((20, 20, 2), np.nan, np.float32), "flow must be finite. Got nan"),
        (np.full((2, 20, 20, 2), -np.inf, np.float32), "flow must be finite. Got -inf"),
        ([[0.0, 0.0]], "flow must be a NumPy array"),
    ],
)
def test_bad_flow_is_named(function, flow, rule):
    with pytest.raises(ValueError, match=rule):
        function(flow)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channel", [0, 1])
def test_one_bad_value_is_found(bad, channel):
    flows = make_flow(40, 40, 0)[None].repeat(3, 0)
    flows[1, 17, 23, channel] = bad
    with pytest.raises(ValueError, match=f"flow must be finite. Got {bad}"):
        encode_hsv(flows)


def test_overflow_is_named():
    flow = np.zeros((20, 20, 2), np.float32)
    flow[3, 3] = 1e38
    with pytest.raises(ValueError, match="squared length"):
        encode_hsv(flow)
    flow[3, 3] = 3e38
    with pytest.raises(ValueError, match="strain"):
        optical_strain(flow)


@pytest.mark.parametrize("size", [28, (28,), (0, 28), (28, 28.0), (28, True), "28"])
def test_bad_size_is_named(size):
    with pytest.raises(ValueError, match="size must be"):
        encode_hsv(np.zeros((56, 56, 2), np.float32), size)


def test_bad_strain_arguments_are_named():
    with pytest.raises(ValueError, match="convention must be one of"):
        optical_strain(np.zeros((5, 5, 2), np.float32), convention="third")
    with pytest.raises(ValueError, match="2x2"):
        optical_strain(np.zeros((1, 5, 2), np.float32))


def test_plain_cpu_agrees_within_a_level(tmp_path):
    flow = make_flow(120, 88, 1)
    np.save(tmp_path / "flow.npy", flow)
    program = (
        "import numpy as np\n"
        "from apexflow.kernels.encode import encode_hsv, optical_strain\n"
        "flow = np.load('flow.npy')\n"
        "np.savez('maps.npz', small=encode_hsv(flow, (15, 11)), full=encode_hsv(flow, None),"
        " strain=optical_strain(flow))\n"
    )
    root = Path(__file__).parents[2]
    environment = os.environ | {
        "NUMBA_CPU_NAME": "generic",
        "NUMBA_CPU_FEATURES": "",
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": str(root),
    }
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
    with np.load(tmp_path / "maps.npz") as maps:
        for name, size in (("small", (15, 11)), ("full", None)):
            difference = maps[name].astype(int) - encode_hsv(flow, size)
            # Rounding may move a vector by one hue step, 255 / 30 levels of one channel.
            assert np.abs(difference).max() <= (1 if size else 9)
        np.testing.assert_allclose(maps["strain"], optical_strain(flow), rtol=1e-5, atol=1e-7)
