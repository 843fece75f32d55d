"""CLG against its equations solved directly in SciPy, and against known motion."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.ndimage import correlate1d, gaussian_filter
from scipy.sparse.linalg import spsolve

from apexflow.kernels import clg, clg_sequence, expected_error, normalize_light, prepare_clg
from apexflow.kernels.flow_clg import sequence
from apexflow.kernels.flow_clg.sequence import Reach

SIDES = st.integers(1, 70)
SEEDS = st.integers(0, 2**32 - 1)
EXACT = {"tolerance": 1e-6, "max_iterations": 2000}


# The equations, in float64 and without any of the kernels' means.


def average(plane, sigma):
    return gaussian_filter(np.asarray(plane, np.float64), sigma, mode="mirror", truncate=4)


def slope(plane, axis):
    taps = np.array([1, -8, 0, 8, -1]) / 12
    return correlate1d(np.asarray(plane, np.float64), taps, axis=axis, mode="mirror")


def keys(distance):
    """Keys' kernel with A = -0.5, from its piecewise definition."""
    d, a = abs(distance), -0.5
    outer = np.where(d < 2, a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a, 0)
    return np.where(d <= 1, (a + 2) * d**3 - (a + 3) * d**2 + 1, outer)


def warped(image, flow):
    """Return the image moved by the flow."""
    height, width = image.shape
    y, x = np.mgrid[:height, :width].astype(np.float64)
    x, y = x + flow[..., 0], y + flow[..., 1]
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    value = np.zeros((height, width))
    for j in range(-1, 3):
        for i in range(-1, 3):
            rows, columns = np.clip(top + j, 0, height - 1), np.clip(left + i, 0, width - 1)
            value += keys(y - top - j) * keys(x - left - i) * image[rows, columns]
    return value


def second_differences(length):
    """Minus the Laplacian in one dimension, with borders across which nothing changes."""
    middle = np.full(length, 2.0)
    middle[0] -= 1
    middle[-1] -= 1
    sides = -np.ones(length - 1)
    return sparse.diags([middle, sides, sides], [0, 1, -1])


def solved(mean, change, flow, alpha, rho):
    """Solve (J - alpha Laplacian) f' = J f - b."""
    g_x, g_y = slope(mean, 1), slope(mean, 0)
    products = g_x * g_x, g_x * g_y, g_y * g_y, g_x * change, g_y * change
    j11, j12, j22, b1, b2 = (average(product, rho) for product in products)
    height, width = mean.shape
    rows = sparse.kron(second_differences(height), sparse.eye(width))
    smooth = alpha * (rows + sparse.kron(sparse.eye(height), second_differences(width)))
    a, b, c = (sparse.diags(plane.ravel()) for plane in (j11, j12, j22))
    matrix = sparse.bmat([[a + smooth, b], [b, c + smooth]]).tocsc()
    u, v = flow[..., 0], flow[..., 1]
    right = np.stack([j11 * u + j12 * v - b1, j12 * u + j22 * v - b2]).ravel()
    return np.moveaxis(spsolve(matrix, right).reshape(2, height, width), 0, -1)


def confidence_of(mean, change, step, flow, alpha, rho):
    """Return the confidence in a flow that has come by ``step`` from a warp."""
    g_x, g_y = slope(mean, 1), slope(mean, 0)
    j11, j12, j22 = (average(product, rho) for product in (g_x * g_x, g_x * g_y, g_y * g_y))
    pairs = np.stack([j11, j12, j12, j22], -1).reshape(*mean.shape, 2, 2)
    least = np.maximum(np.linalg.eigvalsh(pairs)[..., 0] - 5e-7 * (j11 + j22), 0)
    left = average((change + g_x * step[..., 0] + g_y * step[..., 1]) ** 2, rho)
    bent = sum(
        (correlate1d(flow, [-0.5, 0, 0.5], axis=axis, mode="nearest") ** 2).sum(-1)
        for axis in (0, 1)
    )
    squared = 0.72 / rho * (left + alpha * bent) / (least + alpha)
    with np.errstate(divide="ignore"):
        squared = squared + 0.05**2 * alpha / (1000 * least)
    return 1 / (1 + squared / 0.05**2)


def halved(image):
    image = np.pad(image, [(0, side % 2) for side in image.shape], mode="edge")
    return image.reshape(image.shape[0] // 2, 2, -1, 2).mean((1, 3))


def doubled(flow, height, width):
    """Twice the flow, at twice the size: bilinear between the centres of the coarse pixels."""

    def along(values, length):
        places = np.clip((np.arange(length) - 0.5) / 2, 0, len(values) - 1)
        before = np.floor(places).astype(int)
        share = (places - before)[:, None, None]
        after = np.minimum(before + 1, len(values) - 1)
        return values[before] * (1 - share) + values[after] * share

    return 2 * np.swapaxes(along(np.swapaxes(along(flow, height), 0, 1), width), 0, 1)


def reference(first, second, *, alpha=100.0, rho=8.0, levels=3, warps=2):
    """Return the flow and the confidence."""
    pyramid = [(np.asarray(first, np.float64), np.asarray(second, np.float64))]
    while len(pyramid) < levels and min(-(-side // 2) for side in pyramid[-1][0].shape) >= 16:
        pyramid.append(tuple(halved(image) for image in pyramid[-1]))
    flow = np.zeros((*pyramid[-1][0].shape, 2))
    for number, (a, b) in reversed(list(enumerate(pyramid))):
        if flow.shape[:2] != a.shape:
            flow = doubled(flow, *a.shape)
        for _ in range(warps):
            moved = warped(b, flow)
            flow = solved((a + moved) / 2, moved - a, flow, alpha, rho / 2**number)
    moved = warped(b, flow)
    return flow, confidence_of((a + moved) / 2, moved - a, np.zeros_like(flow), flow, alpha, rho)


# Images that are known between their pixels, too.


class Texture:
    """A sum of waves 7 to 40 px long."""

    def __init__(self, seed, waves=40, contrast=20.0):
        rng = np.random.default_rng(seed)
        angle, length = rng.uniform(0, np.pi, waves), rng.uniform(7, 40, waves)
        self.wave = 2 * np.pi / length * np.stack([np.cos(angle), np.sin(angle)])
        self.phase = rng.uniform(0, 2 * np.pi, waves)
        self.contrast = contrast * np.sqrt(2 / waves)

    def __call__(self, x, y):
        angles = x[..., None] * self.wave[0] + y[..., None] * self.wave[1] + self.phase
        return (self.contrast * np.sin(angles).sum(-1)).astype(np.float32)


def grid(height, width):
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return x, y


def swirl(height, width, length, seed):
    """Return a smooth flow as a function of places: of up to ``length`` px about the middle."""
    a, b = np.random.default_rng(seed).uniform(0, 6, 2)
    middle_x, middle_y, reach = width / 2, height / 2, min(height, width) / 3

    def flow(x, y):
        near = np.exp(-((x - middle_x) ** 2 + (y - middle_y) ** 2) / (2 * reach**2))
        return length * np.stack([near * np.cos(a + x / 60), near * np.sin(b + y / 70)], -1)

    return flow


def moving_frames(height, width, length, amplitudes, seed):
    """Return frames of a texture moved by amplitudes of one flow, and the flow."""
    texture, flow = Texture(seed), swirl(height, width, length, seed)
    x, y = grid(height, width)
    frames = []
    for amplitude in amplitudes:
        from_x, from_y = x, y
        for _ in range(30):  # whence the flow leads here
            moved = amplitude * flow(from_x, from_y)
            from_x, from_y = x - moved[..., 0], y - moved[..., 1]
        frames.append(texture(from_x, from_y))
    return np.stack(frames), flow(x, y)


def moving_pair(height, width, length, seed):
    (first, second), flow = moving_frames(height, width, length, (0, 1), seed)
    return first, second, flow


def error(flow, truth):
    return float(np.linalg.norm(flow - truth, axis=-1).mean())


# One pair.


@given(
    height=st.integers(3, 45),
    width=st.integers(3, 45),
    seed=SEEDS,
    alpha=st.sampled_from([20, 100, 1000]),
    rho=st.sampled_from([0.1, 1.5, 8]),
    noise=st.booleans(),
)
@example(24, 31, 0, 100, 8, False)
@settings(deadline=None, max_examples=25)
def test_one_warp_solves_the_equations(height, width, seed, alpha, rho, noise):
    first, second, _ = moving_pair(height, width, 1.0, seed)
    if noise:
        first, second = np.random.default_rng(seed).normal(0, 20, (2, height, width))
        first, second = first.astype(np.float32), second.astype(np.float32)
    options = {"alpha": alpha, "rho": rho, "levels": 1, "warps": 1}
    flow, sure = clg(first, second, confidence=True, **options, **EXACT)
    expected, likely = reference(first, second, **options)
    assert (flow.shape, flow.dtype) == ((height, width, 2), np.float32)
    assert (sure.shape, sure.dtype) == ((height, width), np.float32)
    np.testing.assert_allclose(flow, expected, atol=2e-4 * max(1, abs(expected).max()))
    np.testing.assert_allclose(sure, likely, atol=1e-3)


@pytest.mark.parametrize("shape", [(24, 31), (40, 50), (64, 64), (33, 70), (97, 66)])
@pytest.mark.parametrize("length", [0.3, 3])
def test_the_whole_pyramid_solves_the_equations(shape, length):
    first, second, _ = moving_pair(*shape, length, 5)
    expected, likely = reference(first, second)
    flow, sure = clg(first, second, confidence=True, **EXACT)
    np.testing.assert_allclose(flow, expected, atol=1e-4)
    np.testing.assert_allclose(sure, likely, atol=1e-3)
    # The defaults stop early.
    assert 1e-5 < abs(clg(first, second) - expected).max() < 0.03


def test_levels_are_left_out_below_16_px():
    first, second, _ = moving_pair(61, 33, 1, 1)  # 31 x 17, then 16 x 9
    two = clg(first, second, levels=2)
    np.testing.assert_array_equal(clg(first, second, levels=9), two)
    assert (clg(first, second, levels=1) != two).any()


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 40), (40, 1), (2, 2), (5, 3), (16, 16), (17, 31), (15, 100)]
)
def test_any_size_is_valid(shape):
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 20, (2, *shape)).astype(np.float32)
    flow, sure = clg(first, second, confidence=True)
    assert flow.shape == (*shape, 2)
    assert np.isfinite(flow).all()
    assert ((sure >= 0) & (sure <= 1)).all()


@pytest.mark.parametrize("shift", [(0.1, 0), (0, 0.25), (-0.5, 0.1), (1.5, -0.75)])
def test_a_shift_is_measured_to_a_few_thousandths(shift):
    """OpenCV's cubic (A = -0.75) measures .10 px .026 px short."""
    x, y = grid(96, 110)
    texture = Texture(3)
    flow = clg(texture(x, y), texture(x - shift[0], y - shift[1]))
    middle = flow[16:-16, 16:-16].mean((0, 1))
    np.testing.assert_allclose(middle, shift, atol=0.006)


@pytest.mark.parametrize("length", [0.2, 1, 4])
def test_known_motion_is_found(length):
    first, second, truth = moving_pair(160, 150, length, 11)
    assert error(clg(first, second), truth) < 0.06 * error(0, truth) + 0.003


def test_noise_is_averaged_out():
    first, second, truth = moving_pair(160, 150, 1, 2)
    rng = np.random.default_rng(0)
    noisy = [
        (image + rng.normal(0, 3, image.shape)).astype(np.float32) for image in (first, second)
    ]
    assert error(clg(*noisy), truth) < 0.1


@pytest.mark.parametrize("seed", range(3))
def test_swapped_frames_give_the_opposite_flow(seed):
    first, second, truth = moving_pair(80, 90, 0.3, seed)
    there, back = clg(first, second), clg(second, first)
    # But for the motion itself: what is seen at x in one frame is at x + f in the other.
    assert abs(there + back).max() < 0.05 * np.linalg.norm(truth, axis=-1).max()


@pytest.mark.parametrize("seed", range(5))
def test_invisible_noise_moves_the_flow_by_less_than_a_ten_thousandth(seed):
    first, second, _ = moving_pair(112, 120, 1, seed)
    noise = np.random.default_rng(seed).uniform(-2.5e-4, 2.5e-4, (2, *first.shape))
    flow = clg((first + noise[0]).astype(np.float32), (second + noise[1]).astype(np.float32))
    assert abs(flow - clg(first, second)).max() < 1e-4


@given(gain=st.floats(0.5, 2), level=st.floats(-50, 50))
@settings(deadline=None, max_examples=10)
def test_alpha_has_the_unit_of_squared_gray_levels(gain, level):
    first, second, _ = moving_pair(40, 50, 1, 3)
    brighter = [np.float32(gain) * image + np.float32(level) for image in (first, second)]
    flow = clg(*brighter, alpha=100 * gain**2)
    np.testing.assert_allclose(flow, clg(first, second), atol=2e-3)


def test_equal_and_flat_images_do_not_move():
    first, _, _ = moving_pair(60, 70, 0, 3)
    assert not clg(first, first).any()
    dark, bright = np.full((40, 41), 7, np.uint8), np.full((40, 41), 200, np.uint8)
    for other in (dark, bright):
        flow, sure = clg(dark, other, confidence=True)
        assert not flow.any()
        assert not sure.any()


def test_confidence_is_low_where_there_is_nothing_to_see():
    first, second, _ = moving_pair(100, 150, 0.5, 4)
    x, _ = grid(100, 50)
    for image in (first, second):
        image[:, :50] = 0
        image[:, 100:] = 20 * np.sin(x / 3)
    _, sure = clg(first, second, rho=3, confidence=True)
    flat, texture, stripes = (sure[:, start : start + 20] for start in (15, 65, 115))
    assert texture.min() > 0.5
    assert flat.max() < 1e-4
    assert stripes.max() < 0.1


def test_confidence_stands_for_the_error_that_noise_makes():
    """Whatever the noise, the images' contrast and the neighbourhood."""
    x, y = grid(128, 128)
    rng = np.random.default_rng(1)
    for noise, contrast, rho in ((2, 20, 8), (6, 20, 8), (2, 40, 8), (2, 20, 4)):
        scene = 128 + Texture(8, contrast=contrast)(x, y)
        pair = (scene + rng.normal(0, noise, (2, *scene.shape))).astype(np.float32)
        flow, sure = clg(*pair, rho=rho, confidence=True)
        told = np.sqrt((expected_error(sure) ** 2).mean())
        assert 0.4 < np.sqrt((flow**2).sum(-1).mean()) / told < 1.6


def test_confidence_is_low_where_the_images_do_not_agree():
    first, second, _ = moving_pair(96, 120, 0.3, 4)
    second[:, 80:] = np.random.default_rng(0).normal(0, 20, (96, 40))
    _, sure = clg(first, second, confidence=True)
    assert np.median(sure[:, 100:]) < 0.3 * np.median(sure[:, :60])


def test_the_error_is_given_back():
    sure = np.float32([[1, 0.5, 0.2, 0]])
    np.testing.assert_allclose(expected_error(sure), [[0, 0.05, 0.1, np.inf]], rtol=1e-6)
    for bad, rule in ((sure + 1, "within 0 and 1"), (sure.astype(int), "must be float32")):
        with pytest.raises(ValueError, match=rule):
            expected_error(bad)


def test_light_is_not_motion():
    """Light that drifts by 5% over a still scene, in shade that it does not reach evenly."""
    texture = Texture(6, contrast=25)
    x, y = grid(128, 128)
    shade = 1 + 0.3 * np.sin(x / 50)
    scene = (110 + texture(x, y)) * shade
    brighter = scene * (1 + 0.05 * np.cos(y / 40 + x / 70))
    rng = np.random.default_rng(0)
    frames = [np.rint(image + rng.normal(0, 1, image.shape)) for image in (scene, brighter)]
    first, second = (np.clip(frame, 0, 255).astype(np.uint8) for frame in frames)
    still = np.zeros((128, 128, 2))
    moved = error(clg(normalize_light(first), normalize_light(second)), still)
    assert moved < 0.03
    assert error(clg(first, second), still) > 5 * moved


@given(height=SIDES, width=SIDES, seed=SEEDS, count=st.integers(1, 3))
@settings(deadline=None, max_examples=15)
def test_batches_views_and_prepared_frames_give_the_same(height, width, seed, count):
    rng = np.random.default_rng(seed)
    first, second = rng.integers(0, 256, (2, count, height, width), np.uint8)
    for frames in (first, second):
        frames.flags.writeable = False
    before = first.copy(), second.copy()
    single = [clg(*pair, confidence=True) for pair in zip(first, second, strict=True)]
    flows, sures = (np.stack(parts) for parts in zip(*single, strict=True))
    flow, sure = clg(first, second, confidence=True)
    np.testing.assert_array_equal(flow, flows)
    np.testing.assert_array_equal(sure, sures)
    np.testing.assert_array_equal(clg(first, second), flows)
    np.testing.assert_array_equal(clg(first[:1], second[0]), flows[:1])
    wide = np.asfortranarray(np.repeat(first, 2, axis=2))[:, :, ::2]
    np.testing.assert_array_equal(clg(wide, second.astype(np.float32)), flows)
    prepared = prepare_clg(first[0])
    shared = np.stack([clg(first[0], frame) for frame in second])
    np.testing.assert_array_equal(clg(prepared, second), shared)
    np.testing.assert_array_equal(clg(prepared, prepare_clg(second[0])), shared[0])
    np.testing.assert_array_equal([first, second], before)


def test_threads_do_not_disturb_each_other():
    pairs = [moving_pair(64, 80, 1, seed)[:2] for seed in range(6)]
    expected = [clg(*pair) for pair in pairs]
    with ThreadPoolExecutor(4) as pool:
        flows = list(pool.map(lambda pair: clg(*pair), pairs * 3))
    np.testing.assert_array_equal(flows, expected * 3)


@pytest.mark.parametrize("reach", [3, 1e3, 1e6])
def test_images_without_any_likeness_are_read_inside(reach):
    """However wild the flow becomes, the warp stays within its planes."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, reach, (2, 33, 47)).clip(-1e6, 1e6).astype(np.float32)
    flow = clg(first, second, alpha=1e-3, rho=0.1, warps=5)
    assert np.isfinite(flow).all()


GRAY = np.zeros((20, 30), np.uint8)


@pytest.mark.parametrize(
    ("arguments", "options", "rule"),
    [
        ((GRAY, GRAY.T), {}, r"next must have the height and width of prev, \(20, 30\)"),
        ((GRAY.astype(np.int32), GRAY), {}, "prev must be uint8 or float32. Got int32"),
        ((GRAY[None, None], GRAY), {}, "prev must have 2 or 3 dimensions"),
        ((GRAY, GRAY[:0]), {}, "next must not be empty"),
        ((np.stack([GRAY] * 2), np.stack([GRAY] * 3)), {}, "as many frames as prev, 2. Got 3"),
        ((np.full((20, 30), np.nan, np.float32), GRAY), {}, "prev must be finite. Got nan"),
        ((GRAY, np.full((20, 30), 1e7, np.float32)), {}, r"next must lie within \+-1e\+06"),
        (([1], GRAY), {}, "prev must be a NumPy array"),
        ((GRAY, GRAY), {"alpha": 0}, "alpha must be at least 0.001. Got 0"),
        ((GRAY, GRAY), {"rho": 0}, "rho must be above 0. Got 0"),
        ((GRAY, GRAY), {"rho": np.inf}, "rho must be a finite number"),
        ((GRAY, GRAY), {"levels": 0}, "levels must be at least 1"),
        ((GRAY, GRAY), {"warps": 1.5}, "warps must be an integer"),
        ((GRAY, GRAY), {"max_iterations": 0}, "max_iterations must be at least 1"),
        ((GRAY, GRAY), {"tolerance": -1}, "tolerance must be at least 0"),
        ((GRAY, GRAY), {"tolerance": 1}, "tolerance must be below 1"),
        ((prepare_clg(GRAY, levels=2), GRAY), {}, "prev must be prepared with the levels of"),
    ],
)
def test_bad_arguments_are_named(arguments, options, rule):
    with pytest.raises(ValueError, match=rule):
        clg(*arguments, **options)


def test_prepare_takes_one_image():
    with pytest.raises(ValueError, match="image must have 2 dimensions"):
        prepare_clg(np.zeros((2, 20, 30), np.uint8))


# Many frames.


AMPLITUDES = (0, 0, 0.02, 0.1, 0.3, 0.55, 0.8, 0.95, 1, 1, 0.9, 0.75)


def sequence_reference(frames, onset, apex, *, reach=8, alpha=50.0, rho=8.0, rounds=2):
    """The many-frame form, frame by frame in float64; return flow and amplitudes by frame."""
    frames = np.asarray(frames, np.float64)
    side = {n: 0.0 for n in range(len(frames)) if abs(n - onset) <= min(reach, (apex - onset) / 2)}
    side |= {n: 0.0 for n in range(len(frames)) if 0 < onset - n <= reach}
    for n in range(len(frames)):
        if n not in side and -min(reach, (apex - onset) / 2) <= n - apex <= reach:
            side[n] = 1.0
    amplitude = dict(side)

    def mean_around(middle):
        near = [n for n in side if abs(n - middle) <= 2 and side[n] == side[middle]]
        return np.mean([frames[n] for n in near], axis=0)

    base = mean_around(onset)
    flow, _ = reference(base, mean_around(apex), alpha=2 * alpha, rho=rho)
    for _ in range(rounds):
        for n in side:
            for _ in range(2):
                rest = warped(frames[n], amplitude[n] * flow) - base
                rise = slope(base, 1) * flow[..., 0] + slope(base, 0) * flow[..., 1]
                values = np.sort(abs(rest[::2, ::2]).ravel())
                prior = 1000 * 2.2 * values[len(values) // 2] ** 2
                pull = prior * (side[n] - amplitude[n]) - (rise * rest).sum()
                amplitude[n] += pull / ((rise**2).sum() + prior)
        start = amplitude[onset]
        scale = min(max(amplitude[apex] - start, 0.7), 1.5)
        flow = flow * scale
        amplitude = {n: (value - start) / scale for n, value in amplitude.items()}
        moved = {n: warped(frames[n], amplitude[n] * flow) for n in side}
        median = np.sort(list(moved.values()), axis=0)[len(moved) // 2]
        weight = {n: 1 / (1 + (average(abs(moved[n] - median), 3) / 10) ** 4) for n in side}
        still = [n for n in side if abs(amplitude[n]) <= 0.35]
        base = sum(weight[n] * moved[n] for n in still) / sum(weight[n] for n in still)
        far = [n for n in side if amplitude[n] >= 0.6]
        rest = sum(weight[n] * amplitude[n] * (moved[n] - base) for n in far)
        rest = rest / sum(weight[n] * amplitude[n] ** 2 for n in far)
        before, flow = flow, solved(base + rest / 2, rest, flow, alpha, rho)
    sure = confidence_of(base + rest / 2, rest, flow - before, flow, alpha, rho)
    return flow, amplitude, sure


def noisy_frames(height, width, length, seed, noise=2.0, amplitudes=AMPLITUDES):
    frames, flow = moving_frames(height, width, length, amplitudes, seed)
    rng = np.random.default_rng(seed)
    return (frames + rng.normal(0, noise, frames.shape)).astype(np.float32), flow


@pytest.mark.parametrize(
    ("onset", "apex", "reach", "rounds"), [(1, 8, 8, 2), (0, 9, 2, 1), (2, 11, 3, 2)]
)
def test_a_sequence_solves_the_equations(onset, apex, reach, rounds):
    frames, _ = noisy_frames(40, 45, 1, 3)
    frames[6, 10:20, 10:20] += 30  # what only one frame shows
    found = clg_sequence(frames, onset, apex, reach=reach, rounds=rounds, confidence=True, **EXACT)
    flow, amplitudes, sure = sequence_reference(frames, onset, apex, reach=reach, rounds=rounds)
    np.testing.assert_allclose(found.flow, flow, atol=5e-4)
    assert set(np.flatnonzero(np.isfinite(found.amplitudes))) == set(amplitudes)
    for n, amplitude in amplitudes.items():
        assert abs(found.amplitudes[n] - amplitude) < 1e-4
    np.testing.assert_allclose(found.confidence, sure, atol=1e-3)


def test_many_frames_see_more_than_two():
    pairs, many = [], []
    for seed in range(3):
        frames, truth = noisy_frames(112, 112, 1, seed, noise=4)
        pairs.append(error(clg(frames[1], frames[8]), truth))
        many.append(error(clg_sequence(frames, 1, 8).flow, truth))
    assert sum(many) < 0.7 * sum(pairs)


@pytest.mark.parametrize(("noise", "most"), [(0, 0.01), (2, 0.06)])
def test_amplitudes_are_found(noise, most):
    for seed in range(3):
        frames, _ = noisy_frames(112, 112, 1, seed, noise=noise)
        assert abs(clg_sequence(frames, 1, 8).amplitudes - AMPLITUDES).max() < most


def test_noise_does_not_pull_amplitudes_to_half_pixels(monkeypatch):
    """Where interpolation swallows most of it; with a frame's own slope .3 came out as .57."""
    monkeypatch.setattr(sequence, "PRIOR", 0.0)
    found = []
    for seed in range(3):
        frames, _ = noisy_frames(112, 112, 1, seed, noise=4)
        found.append(clg_sequence(frames, 1, 8).amplitudes)
    assert abs(np.mean(found, axis=0) - AMPLITUDES).max() < 0.05


def test_frames_out_of_reach_take_no_part():
    frames, _ = noisy_frames(40, 40, 1, 0, amplitudes=np.linspace(0, 1, 15))
    found = clg_sequence(frames, 3, 12, reach=2)
    taking_part = [1, 2, 3, 4, 5, 10, 11, 12, 13, 14]
    assert list(np.flatnonzero(np.isfinite(found.amplitudes))) == taking_part
    changed = frames.copy()
    changed[[0, 6, 7, 8, 9]] = 255
    np.testing.assert_array_equal(clg_sequence(changed, 3, 12, reach=2).flow, found.flow)
    changed[10] = 255
    assert (clg_sequence(changed, 3, 12, reach=2).flow != found.flow).any()


@given(st.data())
@settings(deadline=None, max_examples=100)
def test_reach_ends_with_the_clip_and_half_way(data):
    count = data.draw(st.integers(1, 40))
    onset, apex = (data.draw(st.integers(0, count - 1)) for _ in range(2))
    reach = data.draw(st.integers(0, 20))
    part = Reach.of(np.arange(count), onset, apex, reach)
    assert part.chosen[part.onset] == onset
    assert part.chosen[part.apex] == apex
    for number, expected in zip(part.chosen, part.expected, strict=True):
        own, other = (onset, apex) if expected == 0 else (apex, onset)
        assert abs(number - own) <= min(reach, abs(number - other))
    left_out = np.setdiff1d(np.arange(count), part.chosen)
    assert all(min(abs(n - onset), abs(n - apex)) > reach for n in left_out)


def test_frames_that_are_missing_are_counted():
    """The numbers say when a frame was taken: what is out of reach need not be there at all."""
    frames, _ = noisy_frames(50, 40, 1, 1)
    whole = clg_sequence(frames, 1, 10, reach=2)
    there = [0, 1, 2, 3, 8, 9, 10, 11]
    found = clg_sequence(frames[there], 1, 6, numbers=there, reach=2)
    np.testing.assert_array_equal(found.flow, whole.flow)
    np.testing.assert_array_equal(found.amplitudes, whole.amplitudes[there])
    # Counted by place, frame 3 would lie half-way and frame 8 nearer to the onset than it does.
    part = Reach.of(np.array([0, 10, 11, 12]), 0, 3, 8)
    np.testing.assert_array_equal(part.expected, [0, 1, 1, 1])


def test_no_rounds_leave_the_flow_between_means():
    frames, _ = noisy_frames(50, 40, 1, 1)
    found = clg_sequence(frames, 1, 8, alpha=30, rounds=0, confidence=True)
    means = frames[:4].mean(0), frames[6:11].mean(0)
    flow, sure = clg(*means, alpha=60, confidence=True)
    np.testing.assert_array_equal(found.flow, flow)
    np.testing.assert_array_equal(found.confidence, sure)
    assert set(found.amplitudes[:10]) == {0, 1}


def test_the_apex_may_come_first():
    frames, _ = noisy_frames(50, 40, 1, 1)
    forwards, backwards = clg_sequence(frames, 1, 8), clg_sequence(frames[::-1], 10, 3)
    np.testing.assert_allclose(backwards.flow, forwards.flow, atol=1e-4)
    np.testing.assert_allclose(backwards.amplitudes[::-1], forwards.amplitudes, atol=1e-4)


def test_onset_and_apex_in_one_frame_do_not_move():
    frames, _ = noisy_frames(30, 40, 1, 1)
    flow, amplitudes, sure = clg_sequence(frames, 4, 4, alpha=50, confidence=True)
    assert not flow.any()
    assert amplitudes[4] == 0
    assert np.isnan(np.delete(amplitudes, 4)).all()
    expected = clg(frames[4], frames[4], alpha=100, confidence=True)[1]
    np.testing.assert_allclose(sure, expected, atol=1e-6)


@pytest.mark.parametrize("level", [0, 9])
def test_flat_frames_do_not_move(level):
    found = clg_sequence(np.full((12, 30, 40), level, np.uint8), 1, 8)
    assert not found.flow.any()
    np.testing.assert_array_equal(found.amplitudes, [0] * 5 + [1] * 7)


def test_still_frames_hardly_move():
    frames, truth = noisy_frames(96, 96, 0, 5)
    found = clg_sequence(frames, 1, 8)
    assert error(found.flow, truth) < 0.5 * error(clg(frames[1], frames[8]), truth)
    assert np.isfinite(found.amplitudes).all()


def test_a_blink_beside_the_apex_does_little_harm(monkeypatch):
    frames, truth = noisy_frames(96, 96, 1, 7)
    blinking = frames.copy()
    blinking[9:11, 40:56, 30:66] += 40
    lid = np.zeros((96, 96), bool)
    lid[36:60, 26:70] = True

    def harm():
        flow = clg_sequence(blinking, 1, 8).flow
        return np.linalg.norm(flow - truth, axis=-1)[lid].mean()

    weighted = harm()
    monkeypatch.setattr(sequence, "OUTLIER_LEVELS", 1e9)  # nothing counts as different
    assert weighted < 0.7 * harm()


def test_a_sequence_is_not_written_to_and_may_be_any_view():
    frames, _ = noisy_frames(33, 47, 1, 2)
    whole = np.rint(frames + 128).clip(0, 255).astype(np.uint8)
    whole.flags.writeable = False
    expected = clg_sequence(whole.astype(np.float32), 1, 8)
    wide = np.asfortranarray(np.repeat(whole, 2, axis=2))[:, :, ::2]
    for same in (whole, wide):
        found = clg_sequence(same, 1, 8)
        np.testing.assert_array_equal(found.flow, expected.flow)
        np.testing.assert_array_equal(found.amplitudes, expected.amplitudes)
    assert found.confidence is None
    assert (found.flow.dtype, found.amplitudes.dtype) == (np.float32, np.float32)


@given(count=st.integers(1, 6), height=SIDES, width=SIDES, seed=SEEDS)
@settings(deadline=None, max_examples=15)
def test_a_sequence_of_any_size_is_valid(count, height, width, seed):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (count, height, width), np.uint8)
    flow, amplitudes, sure = clg_sequence(frames, 0, count - 1, confidence=True)
    assert flow.shape == (height, width, 2)
    assert np.isfinite(flow).all()
    assert np.isfinite(amplitudes).all()
    assert ((sure >= 0) & (sure <= 1)).all()


STACK = np.zeros((5, 20, 30), np.uint8)


@pytest.mark.parametrize(
    ("arguments", "options", "rule"),
    [
        ((GRAY, 0, 0), {}, r"frames must have 3 dimensions. Got shape \(20, 30\)"),
        ((STACK.astype(int), 0, 4), {}, "frames must be uint8 or float32"),
        ((STACK[:0], 0, 0), {}, "frames must not be empty"),
        ((STACK, 5, 4), {}, "onset must be at most 4. Got 5"),
        ((STACK, 0, -1), {}, "apex must be at least 0. Got -1"),
        ((STACK, 0.5, 4), {}, "onset must be an integer. Got 0.5"),
        ((STACK, 0, 4), {"reach": -1}, "reach must be at least 0"),
        ((STACK, 0, 4), {"numbers": [0, 1]}, "numbers must be 5 integers, one a frame"),
        ((STACK, 0, 4), {"numbers": [0.0, 1, 2, 3, 4]}, "numbers must be 5 integers"),
        ((STACK, 0, 4), {"numbers": [0, 1, 3, 3, 4]}, "numbers must rise"),
        ((STACK, 0, 4), {"rounds": -1}, "rounds must be at least 0"),
        ((STACK, 0, 4), {"alpha": 0}, "alpha must be at least 0.001"),
        ((STACK, 0, 4), {"levels": 0}, "levels must be at least 1"),
    ],
)
def test_bad_arguments_of_a_sequence_are_named(arguments, options, rule):
    with pytest.raises(ValueError, match=rule):
        clg_sequence(*arguments, **options)


@pytest.mark.slow
@pytest.mark.parametrize("cpu", [("generic", ""), ("haswell", "+avx,+avx2,+fma")])
def test_other_cpus_agree(tmp_path, cpu):
    frames, _ = noisy_frames(50, 61, 1, 1)
    np.save(tmp_path / "frames.npy", frames)
    program = (
        "import numpy as np\n"
        "from apexflow.kernels import clg, clg_sequence, normalize_light\n"
        "frames = np.load('frames.npy')\n"
        "found = clg_sequence(normalize_light(frames), 1, 8)\n"
        "np.savez('found.npz', pair=clg(frames[1], frames[8]), flow=found.flow,\n"
        "         amplitudes=found.amplitudes)\n"
    )
    environment = os.environ | {
        "NUMBA_CPU_NAME": cpu[0],
        "NUMBA_CPU_FEATURES": cpu[1],
        "NUMBA_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True)
    expected = clg_sequence(normalize_light(frames), 1, 8)
    with np.load(tmp_path / "found.npz") as found:
        np.testing.assert_allclose(found["pair"], clg(frames[1], frames[8]), atol=1e-3)
        np.testing.assert_allclose(found["flow"], expected.flow, atol=1e-3)
        np.testing.assert_allclose(found["amplitudes"], expected.amplitudes, atol=1e-3)
