"""LBP-TOP against scikit-image plane by plane, and against a loop over voxels."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.feature import local_binary_pattern

from apexflow.features.lbp import LbpTop, lbp_top, uniform_labels

SEEDS = st.integers(0, 2**32 - 1)


def planes(frames: np.ndarray, radius: int, neighbours: int) -> list[np.ndarray]:
    """The label of every voxel in XY, XT and YT, by scikit-image, cut to those with neighbours."""

    def labels(image: np.ndarray) -> np.ndarray:
        return local_binary_pattern(image, neighbours, radius, method="nri_uniform").astype(int)

    inside = (slice(radius, -radius),) * 3
    xy = np.stack([labels(image) for image in frames])
    xt = np.stack([labels(image) for image in frames.swapaxes(0, 1)]).swapaxes(0, 1)
    yt = np.stack([labels(image) for image in np.moveaxis(frames, 2, 0)])
    return [plane[inside] for plane in (xy, xt, np.moveaxis(yt, 0, 2))]


def histograms(labels: list[np.ndarray], blocks: tuple[int, int], count: int) -> np.ndarray:
    """The histogram of each block and plane, by slices."""
    found = []
    _, height, width = labels[0].shape
    rows = [i * height // blocks[0] for i in range(blocks[0] + 1)]
    columns = [i * width // blocks[1] for i in range(blocks[1] + 1)]
    for y0, y1 in pairwise(rows):
        for x0, x1 in pairwise(columns):
            for plane in labels:
                counts = np.bincount(plane[:, y0:y1, x0:x1].ravel(), minlength=count)
                found.append(counts / counts.sum())
    return np.concatenate(found).astype(np.float32)


@settings(max_examples=12)
@given(
    seed=SEEDS,
    shape=st.tuples(st.integers(7, 11), st.integers(13, 22), st.integers(13, 22)),
    radius=st.integers(1, 3),
    neighbours=st.sampled_from((4, 6, 8)),
    blocks=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    levels=st.sampled_from((2, 8, 256)),
)
def test_each_plane_is_scikit_images(
    seed: int,
    shape: tuple[int, int, int],
    radius: int,
    neighbours: int,
    blocks: tuple[int, int],
    levels: int,
) -> None:
    frames = np.random.default_rng(seed).integers(0, levels, shape).astype(np.uint8)
    count = neighbours * (neighbours - 1) + 3
    wanted = histograms(planes(frames, radius, neighbours), blocks, count)
    found = lbp_top(frames, blocks=blocks, radii=radius, neighbours=neighbours)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, wanted)


def one_by_one(
    frames: np.ndarray, radii: tuple[int, int, int], neighbours: tuple[int, int, int]
) -> np.ndarray:
    """The histograms of one block, by a loop over voxels and neighbours, as the paper has it."""
    rx, ry, rt = radii
    n, height, width = frames.shape
    found = []
    for (row, r), (column, c), count in (
        ((1, ry), (2, rx), neighbours[0]),
        ((0, rt), (2, rx), neighbours[1]),
        ((0, rt), (1, ry), neighbours[2]),
    ):
        counts = np.zeros(count * (count - 1) + 3)
        for t in range(rt, n - rt):
            for y in range(ry, height - ry):
                for x in range(rx, width - rx):
                    bits = []
                    for p in range(count):
                        at = np.array([t, y, x], float)
                        at[row] += round(-r * np.sin(2 * np.pi * p / count), 5)
                        at[column] += round(c * np.cos(2 * np.pi * p / count), 5)
                        bits.append(bilinear(frames, at, row, column) >= frames[t, y, x])
                    counts[label(bits)] += 1
        found.append(counts / counts.sum())
    return np.concatenate(found)


def bilinear(frames: np.ndarray, at: np.ndarray, row: int, column: int) -> float:
    low = np.floor(at).astype(int)
    part = at - low
    total = 0.0
    for dr in (0, 1):
        for dc in (0, 1):
            place = low.copy()
            place[row] += dr
            place[column] += dc
            down = part[row] if dr else 1 - part[row]
            across = part[column] if dc else 1 - part[column]
            if weight := down * across:
                total += weight * frames[tuple(place)]
    return total


def label(bits: list[bool]) -> int:
    count = len(bits)
    changes = sum(bits[i] != bits[i - 1] for i in range(count))
    if changes > 2:
        return count * (count - 1) + 2
    ones = sum(bits)
    if ones in (0, count):
        return 0 if not ones else count * (count - 1) + 1
    first = next(i for i in range(count) if bits[i] and not bits[i - 1])
    return 1 + (ones - 1) * count + (-first % count)


def test_radii_and_neighbours_of_each_axis_are_its_own() -> None:
    # Floats: no two neighbours are equal, so that rounding decides nothing.
    frames = np.random.default_rng(1).normal(size=(9, 10, 12)).astype(np.float32)
    radii, neighbours = (1, 2, 3), (8, 4, 6)
    found = lbp_top(frames, blocks=1, radii=radii, neighbours=neighbours)
    np.testing.assert_allclose(found, one_by_one(frames, radii, neighbours), atol=1e-7)


@pytest.mark.parametrize("neighbours", [4, 5, 8])
def test_the_labels_are_those_of_the_definition(neighbours: int) -> None:
    found = uniform_labels(neighbours)
    for code, value in enumerate(found):
        assert value == label([bool(code >> i & 1) for i in range(neighbours)])


def test_frames_that_are_one_colour_have_one_pattern() -> None:
    options = LbpTop(blocks=(2, 2), radii=(1, 1, 1))
    for level in range(256):
        found = options(np.full((3, 9, 9), level, np.uint8)).reshape(2, 2, 3, 59)
        assert (found[..., 57] == 1).all()


def test_a_view_and_its_copy_give_the_same() -> None:
    frames = np.random.default_rng(2).integers(0, 256, (18, 40, 22), np.uint8)
    view = frames[::2, ::-2, 1::2]
    before = frames.copy()
    np.testing.assert_array_equal(
        lbp_top(view, blocks=2, radii=2), lbp_top(view.copy(), blocks=2, radii=2)
    )
    np.testing.assert_array_equal(frames, before)


def test_parts_name_every_number() -> None:
    options = LbpTop(blocks=(2, 3), radii=(1, 1, 1), neighbours=(8, 4, 4))
    frames = np.random.default_rng(3).integers(0, 256, (5, 12, 12), np.uint8)
    assert len(options.parts) == len(options.parts.names) == len(options(frames)) == 6 * (59 + 30)
    assert options.parts.names[59 + 15] == "row 0, column 0, pattern yt 0"


@pytest.mark.parametrize(
    ("frames", "options", "message"),
    [
        ((8, 20, 20), {}, "frames must have at least 9 frames for the radius 4 along t. Got 8."),
        ((9, 20, 2), {}, "at least 3 columns for the radius 1 along x. Got 2."),
        ((9, 6, 20), {}, "blocks must have at most as many rows as the image has pixels there, 4"),
        ((9, 20, 20), {"radii": (1, 1)}, "radii must be one number or 3."),
        ((9, 20, 20), {"radii": 0}, "radii must be at least 1. Got 0."),
        ((9, 20, 20), {"neighbours": 3}, "neighbours must be at least 4. Got 3."),
        ((9, 20, 20), {"blocks": 5.0}, "blocks must be an integer. Got 5.0."),
        ((9, 20, 20, 3), {}, "frames must have 3 dimensions"),
    ],
)
def test_what_cannot_be_is_said(frames: tuple[int, ...], options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        lbp_top(np.zeros(frames, np.uint8), **options)


def test_frames_that_are_not_finite_are_refused() -> None:
    frames = np.zeros((9, 20, 20), np.float32)
    frames[3, 4, 5] = np.nan
    with pytest.raises(ValueError, match="frames must be finite"):
        lbp_top(frames)
