from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from apexflow.kernels.spline import sample, spline


def pixels(size: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    return np.stack([x, y], axis=-1)


@settings(deadline=None, max_examples=20)
@given(height=st.integers(24, 60), width=st.integers(24, 60), seed=st.integers(0, 1000))
def test_spline_goes_through_the_image(height, width, seed):
    image = np.random.default_rng(seed).uniform(0, 255, (height, width)).astype(np.float32)
    read = sample(spline(image), pixels(image.shape))
    np.testing.assert_allclose(read[1:-2, 1:-2], image[1:-2, 1:-2], atol=5e-3)
    between = pixels(image.shape)[12:-12, 12:-12] + [0.3, 0.6]
    expected = ndimage.map_coordinates(
        image.astype(np.float64), [between[..., 1], between[..., 0]], order=3, mode="mirror"
    )
    np.testing.assert_allclose(sample(spline(image), between), expected, atol=5e-3)
