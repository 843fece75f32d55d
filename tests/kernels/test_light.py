"""Local normalisation against its formula in SciPy, and against light that changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from apexflow.kernels import normalize_light

SIDES = st.integers(1, 70)
SEEDS = st.integers(0, 2**32 - 1)


def formula(image, sigma=8.0, epsilon=4.0):
    """The definition in float64."""

    def average(plane):
        return gaussian_filter(plane, sigma, mode="mirror", truncate=4)

    detail = image - average(image.astype(np.float64))
    return 20 * detail / (np.sqrt(average(detail**2)) + epsilon)


def face(height=120, width=140, seed=0):
    """Return a smooth texture over 40..200 as float32."""
    noise = np.random.default_rng(seed).normal(size=(height, width))
    smooth = gaussian_filter(noise, 2) + 2 * gaussian_filter(noise, 12)
    return (120 + 40 * smooth / abs(smooth).max() * 2).astype(np.float32)


@given(
    height=SIDES,
    width=SIDES,
    seed=SEEDS,
    sigma=st.sampled_from([0.05, 1, 2.5, 8, 30]),
    epsilon=st.sampled_from([0.5, 4, 40]),
    dtype=st.sampled_from([np.uint8, np.float32]),
)
@example(224, 224, 0, 8, 4, np.uint8)
@example(5, 3, 0, 8, 4, np.uint8)
@example(1, 1, 2459645, 30, 0.5, np.uint8)
@settings(deadline=None, max_examples=60)
def test_it_is_the_formula(height, width, seed, sigma, epsilon, dtype):
    image = np.random.default_rng(seed).uniform(0, 255, (height, width)).astype(dtype)
    normalized = normalize_light(image, sigma=sigma, epsilon=epsilon)
    assert (normalized.dtype, normalized.shape) == (np.float32, image.shape)
    # Weights in float32 sum to 1 within a millionth: 2.6e-4 of 255, which 20 / epsilon multiplies.
    expected = formula(image, sigma, epsilon)
    np.testing.assert_allclose(normalized, expected, atol=1e-4 + 6e-3 / epsilon, rtol=1e-4)


@given(count=st.integers(1, 4), height=SIDES, width=SIDES, seed=SEEDS)
@settings(deadline=None, max_examples=20)
def test_batches_and_views_give_the_same_and_nothing_is_written(count, height, width, seed):
    images = np.random.default_rng(seed).integers(0, 256, (count, height, width), np.uint8)
    images.flags.writeable = False
    before = images.copy()
    single = np.stack([normalize_light(image) for image in images])
    np.testing.assert_array_equal(normalize_light(images), single)
    np.testing.assert_array_equal(normalize_light(images.astype(np.float32)), single)
    wide = np.asfortranarray(np.repeat(images, 2, axis=2))[:, :, ::2]
    np.testing.assert_array_equal(normalize_light(wide), single)
    np.testing.assert_array_equal(images, before)


@pytest.mark.parametrize("level", [0, 7, 255])
def test_flat_images_stay_flat(level):
    normalized = normalize_light(np.full((40, 50), level, np.uint8))
    assert abs(normalized).max() < 1e-3


def test_an_added_level_changes_nothing_and_a_gain_little():
    image = face()
    normalized = normalize_light(image)
    np.testing.assert_allclose(normalize_light(image + np.float32(30)), normalized, atol=1e-3)
    # A gain alone is undone but for epsilon, and with it entirely.
    brighter = np.float32(1.25) * image
    np.testing.assert_allclose(normalize_light(brighter, epsilon=5), normalized, atol=1e-3)
    np.testing.assert_allclose(
        normalize_light(brighter, epsilon=1e-3), normalize_light(image, epsilon=1e-3), atol=0.02
    )
    assert abs(normalize_light(brighter) - normalized).mean() < 0.08 * abs(normalized).mean()


def test_shade_that_wanders_is_taken_out():
    image = face()
    x = np.linspace(-1, 1, image.shape[1], dtype=np.float32)
    shaded = image * (1 + np.float32(0.2) * np.sin(2 * x))
    raw = np.abs(shaded - image).mean() / image.std()
    left = np.abs(normalize_light(shaded) - normalize_light(image)).mean()
    assert left / normalize_light(image).std() < 0.15 * raw


GRAY = np.zeros((20, 30), np.uint8)


@pytest.mark.parametrize(
    ("images", "options", "rule"),
    [
        ([1], {}, "images must be a NumPy array. Got list"),
        (GRAY.astype(np.int32), {}, "images must be uint8 or float32. Got int32"),
        (GRAY[0], {}, r"images must have 2 or 3 dimensions. Got shape \(30,\)"),
        (GRAY[:0], {}, "images must not be empty"),
        (np.full((4, 4), np.inf, np.float32), {}, "images must be finite. Got inf"),
        (np.full((4, 4), -2e6, np.float32), {}, r"images must lie within \+-1e\+06. Got 2e\+06"),
        (GRAY, {"sigma": 0}, "sigma must be above 0"),
        (GRAY, {"sigma": 1001}, "sigma must be at most 1000"),
        (GRAY, {"epsilon": 0}, "epsilon must be at least 0.001"),
        (GRAY, {"epsilon": np.nan}, "epsilon must be a finite number"),
    ],
)
def test_bad_arguments_are_named(images, options, rule):
    with pytest.raises(ValueError, match=rule):
        normalize_light(images, **options)
