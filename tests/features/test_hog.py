"""HOG-TOP against scikit-image plane by plane."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.feature import hog

from apexflow.features.hog import HogTop, hog_top


def histograms(image: np.ndarray, cells: tuple[int, int], bins: int) -> np.ndarray:
    """The summed lengths in each cell and bin, by scikit-image: its normalisation undone."""
    size = image.shape[0] // cells[0], image.shape[1] // cells[1]
    parts = hog(
        image,
        orientations=bins,
        pixels_per_cell=size,
        cells_per_block=cells,
        block_norm="L1",
        feature_vector=False,
    ).reshape(*cells, bins)
    down, across = np.zeros(image.shape), np.zeros(image.shape)
    down[1:-1] = image[2:] - image[:-2]
    across[:, 1:-1] = image[:, 2:] - image[:, :-2]
    return parts * np.hypot(down, across).sum()


@settings(max_examples=15)
@given(
    seed=st.integers(0, 2**32 - 1),
    frames=st.integers(3, 6),
    blocks=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    side=st.tuples(st.integers(3, 7), st.integers(3, 7)),
    bins=st.sampled_from((4, 8, 9)),
)
def test_each_plane_is_scikit_images(
    seed: int, frames: int, blocks: tuple[int, int], side: tuple[int, int], bins: int
) -> None:
    size = blocks[0] * side[0], blocks[1] * side[1]
    clip = np.random.default_rng(seed).normal(100, 40, (frames, *size)).astype(np.float32)
    wide = clip.astype(np.float64)
    # Slices of XT and YT have one row of cells: all of the time.
    xy = sum(histograms(image, blocks, bins) for image in wide)
    xt = np.zeros_like(xy)
    for y in range(size[0]):
        xt[y // side[0]] += histograms(wide[:, y], (1, blocks[1]), bins)[0]
    yt = np.zeros_like(xy)
    for x in range(size[1]):
        yt[:, x // side[1]] += histograms(wide[:, :, x], (1, blocks[0]), bins)[0]
    wanted = np.stack([xy, xt, yt], axis=2)
    wanted /= wanted.sum(-1, keepdims=True)
    found = hog_top(clip, blocks=blocks, bins=bins)
    np.testing.assert_allclose(found, wanted.ravel(), atol=1e-6)


def test_frames_without_a_gradient_have_none() -> None:
    assert not hog_top(np.full((4, 9, 9), 7, np.uint8), blocks=2).any()


def test_parts_name_every_number() -> None:
    options = HogTop(blocks=(2, 3), bins=4)
    assert len(options.parts.names) == 72
    assert options.parts.names[5] == "row 0, column 0, plane xt, gradient 45°"


@pytest.mark.parametrize("shape", [(2, 9, 9), (9, 2, 9), (9, 9)])
def test_too_few_frames_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="frames must have"):
        hog_top(np.zeros(shape, np.uint8))
