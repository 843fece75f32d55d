"""The encodings beside the HSV map, against their formulas in NumPy and OpenCV."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from apexflow.kernels.encode import (
    ENCODINGS,
    check_options,
    encode_hsv,
    encode_hsv_absolute,
    encode_magnitude_angle,
    encode_uv,
    encode_uv_strain,
    make_maps,
    mask_region,
    measure_noise,
    noise_of_confidence,
    optical_strain,
    remove_head_motion,
    suppress_noise,
)

SEEDS = st.integers(0, 2**32 - 1)
SIDES = st.integers(2, 40)


def make_flow(height: int, width: int, seed: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return rng.normal(0, 1.2, (height, width, 2)).astype(np.float32)


def resized(image: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    shrinks = size[0] <= image.shape[0] and size[1] <= image.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, size[::-1], interpolation=method)).reshape(
        *size, *image.shape[2:]
    )


def stretched(values: NDArray[np.float32]) -> NDArray[np.float64]:
    low, high = float(values.min()), float(values.max())
    return np.zeros(values.shape) if low == high else (values - low) / (high - low) * 255


def assert_rounded(bytes_: NDArray[np.uint8], exact: NDArray[np.floating[Any]]) -> None:
    """Bytes are the nearest ones; a tie may go either way."""
    assert bytes_.dtype == np.uint8
    assert np.abs(bytes_ - np.asarray(exact, np.float64)).max() <= 0.5 + 1e-3


@given(height=SIDES, width=SIDES, rows=SIDES, columns=SIDES, seed=SEEDS)
@settings(max_examples=40, deadline=None)
def test_uv_and_strain(height: int, width: int, rows: int, columns: int, seed: int) -> None:
    flow, size = make_flow(height, width, seed), (rows, columns)
    u, v = np.moveaxis(resized(flow, size), -1, 0)
    fixed = encode_uv(flow, size, max_displacement=1.5)
    assert_rounded(fixed[..., 0], 128 + 127 * np.clip(u / 1.5, -1, 1))
    assert_rounded(fixed[..., 1], 128 + 127 * np.clip(v / 1.5, -1, 1))
    assert not fixed[..., 2].any()
    minmax = encode_uv(flow, size, normalize="minmax")
    assert_rounded(minmax[..., 0], stretched(u))
    for convention in ("half", "quarter"):
        strain = resized(optical_strain(flow, convention=convention), size)
        published = encode_uv_strain(flow, size, convention=convention)
        np.testing.assert_array_equal(published[..., :2], minmax[..., :2])
        assert_rounded(published[..., 2], stretched(strain))
        absolute = encode_uv_strain(
            flow, size, convention=convention, normalize="fixed", max_strain=0.7
        )
        assert_rounded(absolute[..., 2], 255 * np.clip(strain / 0.7, 0, 1))


@given(height=SIDES, width=SIDES, seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_magnitude_angle(height: int, width: int, seed: int) -> None:
    flow = make_flow(height, width, seed)
    found = encode_magnitude_angle(flow, None, max_magnitude=2.5)
    x, y = np.moveaxis(flow.astype(np.float64), -1, 0)
    assert_rounded(found[..., 0], 255 * np.clip(np.hypot(x, y) / 2.5, 0, 1))
    angle = np.degrees(np.arctan2(y, x)) % 360
    error = np.abs(found[..., 1] - angle / 360 * 255)
    assert np.minimum(error, 255 - error).max() < 0.52  # OpenCV's angles are .01 degrees off
    assert not found[..., 2].any()
    minmax = encode_magnitude_angle(flow, None, normalize="minmax")
    assert (minmax[..., 0].min(), minmax[..., 0].max()) == (0, 255)


@given(height=SIDES, width=SIDES, seed=SEEDS)
@settings(max_examples=30, deadline=None)
def test_hsv_absolute_is_the_hsv_image_of_direction_and_fixed_length(
    height: int, width: int, seed: int
) -> None:
    flow = make_flow(height, width, seed)
    x, y = (np.ascontiguousarray(flow[..., i]) for i in range(2))
    magnitude, angle = cv2.cartToPolar(x, y, angleInDegrees=True)
    hsv = np.full((height, width, 3), 255, np.uint8)
    hsv[..., 0] = (angle / 2).astype(np.uint8)
    hsv[..., 2] = np.rint(np.minimum(magnitude / 1.5, 1) * 255)
    expected = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    np.testing.assert_array_equal(encode_hsv_absolute(flow, None, max_magnitude=1.5), expected)


def test_fixed_scales_compare_clips_and_minmax_does_not() -> None:
    flow = make_flow(28, 28, 3)
    still = np.zeros_like(flow)
    assert not encode_hsv_absolute(still).any()
    assert set(np.unique(encode_uv(still)[..., :2])) == {128}
    weak, strong = (encode_hsv_absolute(flow * factor, max_magnitude=9) for factor in (0.1, 1))
    assert weak.max() * 5 < strong.max()
    np.testing.assert_array_equal(
        encode_uv(flow * 4, normalize="minmax"), encode_uv(flow, normalize="minmax")
    )


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_make_maps_equals_the_encoding_of_each_flow(encoding: str, lead: tuple[int, ...]) -> None:
    flow = np.random.default_rng(5).normal(0, 1, (*lead, 2, 30, 24)).astype(np.float16)
    flow.flags.writeable = False
    maps = make_maps(flow, encoding, size=(15, 12))
    assert (maps.shape, maps.dtype) == ((*lead, 15, 12, 3), np.uint8)
    for index in np.ndindex(*lead):
        one = np.ascontiguousarray(np.moveaxis(flow[index].astype(np.float32), 0, -1))
        np.testing.assert_array_equal(maps[index], ENCODINGS[encoding](one, (15, 12)))
    np.testing.assert_array_equal(
        make_maps(flow, encoding, size=None)[..., 0, 0, :].shape, (*lead, 3)
    )


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_no_flow_makes_no_maps(encoding: str) -> None:
    assert make_maps(np.empty((0, 2, 8, 8), np.float32), encoding).shape == (0, 28, 28, 3)


@given(seed=SEEDS, head=st.tuples(st.floats(-3, 3), st.floats(-3, 3)))
@settings(max_examples=20, deadline=None)
def test_head_motion_is_what_the_nose_does(seed: int, head: tuple[float, float]) -> None:
    flow = make_flow(40, 30, seed) * np.float32(0.1)
    flow[10:20, 10:20] = 0
    moved = flow + np.array(head, np.float32)
    without = remove_head_motion(moved, (10.2, 9.8, 20.1, 19.9))
    np.testing.assert_allclose(without, flow, atol=1e-5)
    batch = remove_head_motion(np.stack([moved, flow]), (10, 10, 20, 20))
    np.testing.assert_allclose(batch, np.stack([flow, flow]), atol=1e-5)


def test_a_masked_region_has_no_flow_and_the_rest_is_kept() -> None:
    flow = make_flow(20, 30, 1)
    masked = mask_region(flow, (-4, 5, 12.4, 9.6))
    assert not masked[5:10, :12].any()
    keep = np.ones((20, 30), bool)
    keep[5:10, :12] = False
    np.testing.assert_array_equal(masked[keep], flow[keep])
    maps = make_maps(
        np.moveaxis(flow, -1, 0),
        "uv",
        size=None,
        head=(20, 10, 28, 18),
        mask=(-4, 5, 12.4, 9.6),
    )
    assert set(np.unique(maps[5:10, :12, :2])) == {128}
    with pytest.raises(ValueError, match=r"region must hold a pixel of the flow, 20x30"):
        mask_region(flow, (40, 5, 60, 9))


@pytest.mark.parametrize(
    ("encoding", "options", "match"),
    [
        ("rgb", {}, r"encoding must be one of .* Got 'rgb'"),
        ("hsv", {"gamma": 2}, r"options of hsv must be among .*least.* Got 'gamma'"),
        ("uv", {"gamma": 2}, r"options of uv must be among .*max_displacement.* Got 'gamma'"),
        ("uv", {"normalize": "z"}, r"normalize must be one of .* Got 'z'"),
        ("uv", {"max_displacement": 0}, "max_displacement must be above 0"),
        ("uv-strain", {"convention": "full"}, "convention must be one of"),
        ("uv-strain", {"max_strain": -1}, "max_strain must be above 0"),
        ("hsv-absolute", {"max_magnitude": "3"}, "max_magnitude must be a finite number"),
    ],
)
def test_bad_options_are_refused(encoding: str, options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        check_options(encoding, options)


@pytest.mark.parametrize("size", [(0, 4), (4,), 28, (4.0, 4)])
@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_bad_sizes_are_refused(encoding: str, size: Any) -> None:
    with pytest.raises(ValueError, match="size must be"):
        ENCODINGS[encoding](np.zeros((8, 8, 2), np.float32), size)


@pytest.mark.parametrize("lead", [(), (3,)])
def test_noise_is_taken_off_the_length_and_leaves_the_direction(lead):
    flow = np.random.default_rng(1).normal(0, 1, (*lead, 20, 30, 2)).astype(np.float32)
    flow[..., 0, 0, :] = 0
    left = suppress_noise(flow, 0.7)
    length, before = np.linalg.norm(left, axis=-1), np.linalg.norm(flow, axis=-1)
    np.testing.assert_allclose(length, np.maximum(before - 0.7, 0), atol=1e-6)
    cross = left[..., 0] * flow[..., 1] - left[..., 1] * flow[..., 0]
    np.testing.assert_allclose(cross, 0, atol=1e-5)
    assert ((left * flow).sum(axis=-1) >= 0).all()
    np.testing.assert_array_equal(suppress_noise(flow, 0), flow)
    with pytest.raises(ValueError, match="noise must be at least 0"):
        suppress_noise(flow, -1)


@pytest.mark.parametrize("encoding", sorted(ENCODINGS))
def test_a_flow_of_noise_alone_makes_the_map_of_no_motion(encoding):
    flow = np.random.default_rng(2).uniform(-0.02, 0.02, (2, 40, 50)).astype(np.float32)
    still = make_maps(np.zeros_like(flow), encoding)
    np.testing.assert_array_equal(make_maps(flow, encoding, noise=0.03), still)
    moving = flow.copy()
    moving[0, 10:30, 10:30] += 1
    assert (make_maps(moving, encoding, noise=0.03) != still).any()


def noisy_flow(peak: float, seed: int = 4) -> NDArray[np.float32]:
    """Flow (2, H, W) of smooth noise of about .015 px, and a motion of a part of it."""
    rng = np.random.default_rng(seed)
    flow = np.stack([cv2.GaussianBlur(rng.normal(size=(112, 112)), (0, 0), 6) for _ in "xy"])
    flow *= 0.012 / flow.std()
    y, x = np.mgrid[-1:1:112j, -1:1:112j]
    flow[0] += peak * np.exp(-8 * ((x - 0.3) ** 2 + (y - 0.2) ** 2))
    return flow.astype(np.float32)


def test_the_noise_of_a_flow_is_three_times_the_length_of_its_least_quarter():
    flow = np.moveaxis(np.stack([noisy_flow(0.0), noisy_flow(2.0)]), 1, -1)
    found = measure_noise(flow)
    lengths = np.hypot(*np.moveaxis(flow, -1, 0)).reshape(2, -1)
    np.testing.assert_allclose(found, 3 * np.quantile(lengths, 0.25, axis=1), rtol=1e-2)
    assert found[1] < 2 * found[0]  # the motion hardly counts
    assert measure_noise(flow[0]) == found[0]


@pytest.mark.parametrize(
    ("encoding", "options"),
    [
        ("hsv", {}),
        ("uv", {"normalize": "minmax"}),
        ("uv-strain", {}),
        ("magnitude-angle", {"normalize": "minmax"}),
    ],
)
def test_a_still_flow_is_not_stretched_over_a_map(encoding, options):
    still, moving = noisy_flow(0.0), noisy_flow(0.5)
    channels = slice(0, 1) if encoding == "magnitude-angle" else slice(None)
    ranges = {}
    for noise in (0.0, 0.03, "measured"):
        maps = make_maps(np.stack([still, moving]), encoding, noise=noise, options=options)
        ranges[noise] = np.ptp(maps[..., channels].astype(int), axis=(1, 2)).max(axis=1)
    assert ranges[0.0].min() > 200
    for noise in (0.03, "measured"):
        assert ranges[noise][0] < 80
        assert ranges[noise][1] > 200
    # By its own noise, whatever the others' is: as each one alone.
    both = make_maps(np.stack([10 * still, moving]), encoding, noise="measured", options=options)
    for flow, found in zip((10 * still, moving), both, strict=True):
        alone = make_maps(flow, encoding, noise="measured", options=options)
        np.testing.assert_array_equal(found, alone)


@given(seed=SEEDS, least=st.floats(0, 8))
@settings(max_examples=20, deadline=None)
def test_no_range_below_the_least_is_stretched(seed: int, least: float) -> None:
    flow = make_flow(9, 11, seed)
    u, v = np.moveaxis(flow, -1, 0)
    channels = encode_uv(flow, None, normalize="minmax", least=least)
    for values, found in ((u, channels[..., 0]), (v, channels[..., 1])):
        spread = max(np.ptp(values), least)
        assert_rounded(found, (values - values.min()) * 255 / spread)
    length = np.hypot(u, v)
    hsv = encode_hsv(flow, None, least=least).max(axis=-1)  # the value, truncated
    spread = max(np.ptp(length), least)
    assert np.abs(hsv - (length - length.min()) * 255 / spread).max() <= 1 + 1e-3
    strain = optical_strain(flow)
    third = encode_uv_strain(flow, None, least=least)[..., 2]
    spread = max(np.ptp(strain), least / 8)
    assert_rounded(third, (strain - strain.min()) * 255 / spread)


@pytest.mark.parametrize("encoding", ["hsv", "uv-strain"])
def test_noise_by_confidence_is_that_of_each_pixel(encoding: str) -> None:
    flow = np.stack([noisy_flow(0.0), noisy_flow(0.5)])
    sure = np.random.default_rng(0).uniform(0.5, 1, (2, 112, 112)).astype(np.float16)
    level = noise_of_confidence(sure)
    np.testing.assert_allclose(level, 1.7 * 0.05 * np.sqrt(1 / sure.astype(float) - 1), rtol=1e-5)
    left = np.moveaxis(suppress_noise(np.moveaxis(flow, 1, -1), level), -1, 1)
    found = make_maps(flow, encoding, noise="confidence", confidence=sure)
    for number in range(2):
        least = {"least": 5 * float(np.median(level[number]))}
        expected = make_maps(left[number], encoding, options=least)
        np.testing.assert_array_equal(found[number], expected)
    still = make_maps(np.zeros_like(flow), encoding)
    nothing = make_maps(flow, encoding, noise="confidence", confidence=np.zeros_like(sure))
    np.testing.assert_array_equal(nothing, still)
    with pytest.raises(ValueError, match="needs the confidence of the flow"):
        make_maps(flow, encoding, noise="confidence")
    with pytest.raises(ValueError, match="confidence must be that of each pixel"):
        make_maps(flow, encoding, noise="confidence", confidence=sure[:1])
