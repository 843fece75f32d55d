"""HOOF, Bi-WOOF and MDMO against loops over pixels."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apexflow.features.main_direction import Mdmo, mdmo
from apexflow.features.oriented_flow import BiWoof, Hoof, bi_woof, hoof

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.tuples(st.integers(4, 13), st.integers(4, 13))
BLOCKS = st.tuples(st.integers(1, 4), st.integers(1, 4))
BINS = st.sampled_from((2, 5, 8))


def random_flow(seed: int, size: tuple[int, ...]) -> np.ndarray:
    """Vectors of all lengths, a fifth of them 0."""
    rng = np.random.default_rng(seed)
    flow = rng.normal(size=(*size, 2)) * rng.uniform(0, 3)
    flow[rng.random(size) < 0.2] = 0
    return flow.astype(np.float32)


def bin_of(x: float, y: float, bins: int) -> int:
    angle = np.arctan2(float(y), float(x))
    return min(int((angle + (2 * np.pi if angle < 0 else 0)) / (2 * np.pi) * bins), bins - 1)


def block(place: int, size: int, count: int) -> int:
    return max(i for i in range(count) if i * size // count <= place)


@settings(max_examples=30)
@given(seed=SEEDS, size=SIZES, blocks=BLOCKS, bins=BINS, symmetric=st.booleans())
def test_hoof_is_a_sum_over_pixels(
    seed: int, size: tuple[int, int], blocks: tuple[int, int], bins: int, symmetric: bool
) -> None:
    flow = random_flow(seed, size)
    sums = np.zeros((*blocks, bins))
    for i in range(size[0]):
        for j in range(size[1]):
            x, y = flow[i, j].astype(float)
            at = bin_of(x, y, bins)
            if symmetric:
                at = min(int((np.arctan2(y, abs(x)) + np.pi / 2) / np.pi * bins), bins - 1)
            sums[block(i, size[0], blocks[0]), block(j, size[1], blocks[1]), at] += np.hypot(x, y)
    total = sums.sum(-1, keepdims=True)
    wanted = np.divide(sums, total, out=np.zeros_like(sums), where=total > 0)
    found = hoof(flow, blocks=blocks, bins=bins, symmetric=symmetric)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted.ravel(), atol=1e-6)


def strain(flow: np.ndarray) -> np.ndarray:
    """The norm of the strain tensor, by `numpy.gradient`."""
    (uy, ux), (vy, vx) = (np.gradient(flow[..., i].astype(float)) for i in (0, 1))
    return np.sqrt(ux**2 + vy**2 + (uy + vx) ** 2 / 2)


@settings(max_examples=30)
@given(seed=SEEDS, size=SIZES, blocks=BLOCKS, bins=BINS)
def test_bi_woof_weighs_by_motion_and_by_strain(
    seed: int, size: tuple[int, int], blocks: tuple[int, int], bins: int
) -> None:
    flow = random_flow(seed, size)
    deformed = strain(flow)
    wanted = np.zeros((*blocks, bins))
    for r in range(blocks[0]):
        for c in range(blocks[1]):
            pixels = [
                (i, j)
                for i in range(size[0])
                for j in range(size[1])
                if (block(i, size[0], blocks[0]), block(j, size[1], blocks[1])) == (r, c)
            ]
            weight = np.mean([deformed[at] for at in pixels])
            for at in pixels:
                x, y = flow[at].astype(float)
                wanted[r, c, bin_of(x, y, bins)] += np.hypot(x, y) / len(pixels) * weight
    found = bi_woof(flow, blocks=blocks, bins=bins)
    np.testing.assert_allclose(found, wanted.ravel(), rtol=1e-4, atol=1e-6)


@settings(max_examples=30)
@given(seed=SEEDS, size=SIZES, count=st.integers(1, 4), bins=BINS)
def test_mdmo_is_the_mean_of_the_fullest_bin(
    seed: int, size: tuple[int, int], count: int, bins: int
) -> None:
    flows = random_flow(seed, (count, *size))
    boxes = [(0, 0, 3, 2), (1, 1, size[1], size[0]), (-5.0, -5.0, 2.4, 99.0)]
    means = []
    for x0, y0, x1, y1 in ((0, 0, 3, 2), (1, 1, size[1], size[0]), (0, 0, 2, size[0])):
        of_pairs = []
        for flow in flows:
            vectors = [tuple(v) for v in flow[y0:y1, x0:x1].reshape(-1, 2).astype(float)]
            by_bin: list[list] = [[] for _ in range(bins)]
            for x, y in vectors:
                if x or y:
                    by_bin[bin_of(x, y, bins)].append((x, y))
            fullest = max(by_bin, key=len)
            of_pairs.append(np.mean(fullest, axis=0) if fullest else np.zeros(2))
        means.append(np.mean(of_pairs, axis=0))
    lengths = np.array([np.hypot(*mean) for mean in means])
    angles = np.array([np.arctan2(y, x) % (2 * np.pi) for x, y in means])
    longest = lengths.max() or 1
    found = mdmo(flows, boxes=boxes, bins=bins, weight=0.3)
    np.testing.assert_allclose(found[:3], 0.3 * lengths / longest, atol=1e-6)
    np.testing.assert_allclose(found[3:], 0.7 * angles, atol=1e-5)


def test_hoof_does_not_know_left_from_right_unless_told() -> None:
    right = np.full((6, 6, 2), (1, 0.5), np.float32)
    left = right * np.float32([-1, 1])
    np.testing.assert_array_equal(hoof(left, blocks=2), hoof(right, blocks=2))
    circle = [hoof(one, blocks=2, symmetric=False) for one in (left, right)]
    assert (circle[0] != circle[1]).any()


@pytest.mark.parametrize("method", [hoof, bi_woof, lambda flow: mdmo(flow, boxes=[(0, 0, 5, 5)])])
def test_what_does_not_move_is_nothing(method: Callable) -> None:
    assert not method(np.zeros((6, 7, 2), np.float32)).any()


@pytest.mark.parametrize("method", [hoof, bi_woof, lambda flow: mdmo(flow, boxes=[(0, 0, 5, 5)])])
def test_flow_that_is_not_finite_is_refused(method: Callable) -> None:
    flow = np.zeros((6, 7, 2), np.float32)
    flow[2, 3, 1] = np.nan
    with pytest.raises(ValueError, match="flow must be finite"):
        method(flow)


def test_parts_name_every_number() -> None:
    assert Hoof(blocks=(1, 2), bins=4).parts.names[5] == "row 0, column 1, direction -45°"
    assert Hoof(symmetric=False, bins=4).parts.names[1].endswith("direction 90°")
    assert len(BiWoof(blocks=(8, 8)).parts) == 512
    assert Mdmo(regions=("eyes", "mouth")).parts.names[5] == "number direction, region right eyes"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hoof(np.zeros((4, 4, 2), np.float32), blocks=5), "as many rows as the image"),
        (lambda: hoof(np.zeros((2, 4, 4), np.float32)), "flow must be"),
        (lambda: hoof(np.zeros((9, 9, 2), np.float32), bins=1), "bins must be at least 2"),
        (lambda: mdmo(np.zeros((4, 4, 2), np.float32), boxes=[(5, 5, 6, 6)]), "each hold a pixel"),
        (lambda: mdmo(np.zeros((4, 4, 2), np.float32), boxes=[]), "boxes must name one"),
        (lambda: Mdmo(regions=("ears",)), "regions must be some of"),
        (lambda: Mdmo(weight=1.0), "weight must be below 1"),
    ],
)
def test_what_cannot_be_is_said(call: Callable, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
