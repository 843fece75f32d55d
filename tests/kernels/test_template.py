"""The template search against an independent brute force in exact integers."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from apexflow.kernels import Match, TemplateMatcher, match_template
from apexflow.kernels.template import blocks, cpu
from apexflow.kernels.template.spectrum import Spectrum
from apexflow.kernels.template.sums import one_channel, where, window_sums


def brute_force(region: np.ndarray, template: np.ndarray) -> tuple[int, int, float]:
    """Compare sign(score) * score ** 2 as fractions, position by position."""
    height, width = template.shape[:2]
    windows = sliding_window_view(region.astype(np.int64), (height, width), axis=(0, 1))
    windows = windows.reshape(*windows.shape[:2], -1, height * width)
    flat = np.moveaxis(template.reshape(height, width, -1), 2, 0).astype(np.int64)
    flat = flat.reshape(-1, height * width)
    area = height * width
    products = area * np.einsum("yxcn,cn->yx", windows, flat) - windows.sum(-1) @ flat.sum(-1)
    norms = area * (windows**2).sum((2, 3)) - (windows.sum(-1) ** 2).sum(-1)
    norm = area * int((flat**2).sum()) - int((flat.sum(-1) ** 2).sum())
    best, best_square = (0, 0), Fraction(-2)
    for y, x in np.ndindex(products.shape):
        product, scale = int(products[y, x]), int(norms[y, x]) * norm
        square = Fraction(product * abs(product), scale) if scale else Fraction(0)
        if square > best_square:
            best, best_square = (y, x), square
    root = float(abs(best_square)) ** 0.5
    return (*best, root if best_square >= 0 else -root)


def assert_exact(match: Match, region: np.ndarray, template: np.ndarray) -> None:
    y, x, score = brute_force(region, template)
    assert (match.y, match.x) == (y, x)
    assert match.score == pytest.approx(score, abs=1e-12)


def textured(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """A smooth random texture with some sensor noise."""
    image = cv2.GaussianBlur(rng.normal(0, 1, shape), (0, 0), 3)
    image = 128 + 40 * image / image.std() + rng.normal(0, 2, shape)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


@st.composite
def searches(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """A region and a template: any sizes, few or many gray levels, cut out or unrelated."""
    height, width = draw(st.integers(1, 24)), draw(st.integers(1, 24))
    h, w = draw(st.integers(1, height)), draw(st.integers(1, width))
    channels = draw(st.sampled_from([(), (1,), (3,)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    levels = draw(st.sampled_from([np.array([0, 255]), np.array([7, 8, 9]), np.arange(256)]))
    region = rng.choice(levels, (height, width, *channels)).astype(np.uint8)
    if draw(st.booleans()):
        y, x = draw(st.integers(0, height - h)), draw(st.integers(0, width - w))
        return region, region[y : y + h, x : x + w]
    return region, rng.choice(levels, (h, w, *channels)).astype(np.uint8)


@settings(deadline=None)
@given(searches())
def test_any_search_equals_brute_force(search):
    region, template = search
    match = match_template(region, template)
    assert_exact(match, region, template)
    assert all(type(value) is kind for value, kind in zip(match, (int, int, float), strict=True))


@settings(deadline=None)
@given(st.lists(searches(), min_size=2, max_size=4))
def test_a_matcher_never_depends_on_what_it_has_seen(several):
    matcher = TemplateMatcher(several[0][1])
    h, w = several[0][1].shape[:2]
    for region, _ in several:
        if (
            region.shape[2:] == several[0][1].shape[2:]
            and min(region.shape[0] - h, region.shape[1] - w) >= 0
        ):
            assert_exact(matcher.match(region), region, several[0][1])


@pytest.mark.parametrize("channels", [(), (3,)])
def test_score_is_the_one_of_opencv(channels):
    rng = np.random.default_rng(1)
    region = textured(rng, 70, 90, *channels)
    template = textured(rng, 40, 50, *channels)
    scores = cv2.matchTemplate(region, template, cv2.TM_CCOEFF_NORMED)
    match = match_template(region, template)
    assert (match.y, match.x) == np.unravel_index(scores.argmax(), scores.shape)
    assert match.score == pytest.approx(scores.max(), abs=1e-5)


def test_a_copy_scores_exactly_one():
    region = textured(np.random.default_rng(2), 60, 70)
    assert match_template(region, region[5:40, 9:60]) == Match(5, 9, 1.0)
    assert match_template(region, region) == Match(0, 0, 1.0)
    # Gain and offset do not matter.
    assert match_template(region // 2 * 2, region[5:40, 9:60] // 2 + 20) == Match(5, 9, 1.0)


@pytest.mark.parametrize("flat", [0, 7, 255])
def test_flat_windows_and_templates_score_zero(flat):
    rng = np.random.default_rng(3)
    texture = rng.integers(0, 256, (8, 9), dtype=np.uint8)
    flat_image = np.full((20, 20), flat, np.uint8)
    assert match_template(flat_image, texture) == Match(0, 0, 0.0)
    assert match_template(flat_image, flat_image[:5, :5]) == Match(0, 0, 0.0)
    assert match_template(texture, flat_image[:5, :5]) == Match(0, 0, 0.0)
    # One flat window among windows that correlate negatively is the best.
    region = np.concatenate([255 - texture, flat_image[:8, :9]], axis=0)
    assert_exact(match_template(region, texture), region, texture)


PATTERNS = {
    "columns": lambda y, x: x % 5 * 50,
    "rows": lambda y, x: y % 7 * 30,
    "checkerboard": lambda y, x: (y + x) % 2 * 255,
    "lattice": lambda y, x: (3 * y + 5 * x) % 11 * 20,
    "ramp": lambda y, x: x + 2 * y,
    "rounded ramp": lambda y, x: (x * 0.37 + y * 0.61).astype(int),
    "one pixel": lambda y, x: (y == 20) * (x == 17) * 255,
    "saturated": lambda y, x: (np.hypot(y - 20, x - 22) < 16) * 255,
}


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("at", [(0, 0), (6, 9), (17, 14)])
def test_exact_ties_go_to_the_first_in_row_major_order(pattern, at):
    region = np.fromfunction(PATTERNS[pattern], (40, 44), dtype=int).astype(np.uint8)
    template = region[at[0] : at[0] + 22, at[1] : at[1] + 25]
    assert_exact(match_template(region, template), region, template)
    colours = np.stack([region, 255 - region, region // 2], -1)
    template = colours[at[0] : at[0] + 22, at[1] : at[1] + 25]
    assert_exact(match_template(colours, template), colours, template)


def test_duplicated_patches_tie():
    rng = np.random.default_rng(4)
    region = rng.integers(0, 100, (40, 60), dtype=np.uint8)
    patch = rng.integers(0, 100, (12, 14), dtype=np.uint8)
    region[25:37, 3:17] = patch
    region[10:22, 40:54] = patch * 2 + 30  # the same up to gain and offset, and first
    assert match_template(region, patch) == Match(10, 40, 1.0)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (30, 34), (1, 34), (30, 1), (29, 33)])
@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_thin_and_full_templates(shape, channels):
    rng = np.random.default_rng(5)
    region = rng.integers(0, 6, (30, 34, *channels), dtype=np.uint8)
    template = rng.integers(0, 6, (*shape, *channels), dtype=np.uint8)
    assert_exact(match_template(region, template), region, template)


@pytest.mark.parametrize("channels", [(), (3,)])
def test_views_and_read_only_arrays_are_used_and_left_alone(channels):
    rng = np.random.default_rng(6)
    whole = textured(rng, 80, 90, *channels)
    template = whole[20:60:2, 70:10:-2]
    region = whole[::2, ::-2]
    whole.flags.writeable = region.flags.writeable = template.flags.writeable = False
    before = whole.copy()
    assert_exact(match_template(region, template), region, template)
    planes = np.moveaxis(np.moveaxis(whole, -1, 0).copy(), 0, -1)
    assert match_template(planes, template) == match_template(whole, template)
    np.testing.assert_array_equal(whole, before)


def test_a_matcher_keeps_its_own_template_and_can_be_pickled():
    rng = np.random.default_rng(7)
    region = textured(rng, 50, 60)
    template = region[10:40, 20:50].copy()
    matcher = TemplateMatcher(template)
    template[:] = 0
    assert matcher.match(region) == Match(10, 20, 1.0)
    assert pickle.loads(pickle.dumps(matcher)).match(region) == Match(10, 20, 1.0)


GOOD = np.zeros((20, 30), np.uint8)


@pytest.mark.parametrize(
    ("region", "template", "message"),
    [
        (GOOD, GOOD[:0], r"template must not be empty. Got shape \(0, 30\)"),
        (GOOD[:, :0], GOOD, "region must not be empty"),
        (GOOD.astype(np.float32), GOOD, "region must be uint8. Got float32"),
        (GOOD, GOOD.astype(np.int64), "template must be uint8. Got int64"),
        (GOOD[0], GOOD, "region must have 2 or 3 dimensions"),
        (GOOD, [[1]], "template must be a NumPy array. Got list"),
        (np.zeros((9, 9, 4), np.uint8), GOOD, "region must have 1 or 3 channels"),
        (np.zeros((20, 30, 3), np.uint8), GOOD, "region must have as many channels as template, 1"),
        (GOOD[1:], GOOD, r"region must be at least as large as template, \(20, 30\). Got"),
        (GOOD[:, 1:], GOOD, r"region must be at least as large as template, \(20, 30\). Got"),
        (GOOD, np.zeros((2**12, 2**11 + 1), np.uint8), "template must have at most 8388608"),
    ],
)
def test_bad_arguments_are_refused_by_name_rule_and_value(region, template, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        match_template(region, template)


def clip(rng: np.random.Generator, frames: int, *shape: int):
    """Frames of a texture that drifts by parts of a pixel, with noise and changing light."""
    scene = textured(rng, *shape).astype(np.float64)
    at = np.cumsum(rng.normal(0, 0.2, (frames, 2)), axis=0)
    for number, (dy, dx) in enumerate(at):
        move = np.array([[1, 0, dx], [0, 1, dy]])
        moved = cv2.warpAffine(scene, move, shape[1::-1], flags=cv2.INTER_CUBIC, borderMode=2)
        lit = moved * (1 + 0.03 * np.sin(number)) + 3 * np.cos(number)
        yield np.clip(np.rint(lit + rng.normal(0, 2, shape)), 0, 255).astype(np.uint8)


# Sizes at which the search by bounds is used: a row fills a vector.
SIZE, TOP, LEFT, HEIGHT, WIDTH = (60, 92), 5, 11, 46, 70


def patch(frame: np.ndarray) -> np.ndarray:
    return frame[TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH]


@pytest.fixture
def found_by_bounds(monkeypatch):
    """Which searches the bounds answered without the DFT: the tests below are about them."""
    answered = []
    bounded = TemplateMatcher._bounded

    def counting(self, *arguments):
        found = bounded(self, *arguments)
        answered.append(found[0].size > 0)
        return found

    monkeypatch.setattr(TemplateMatcher, "_bounded", counting)
    return answered


@pytest.mark.parametrize("channels", [(), (3,)])
def test_all_frames_of_a_clip(channels, found_by_bounds):
    rng = np.random.default_rng(8)
    frames = list(clip(rng, 12, *SIZE, *channels))
    matcher = TemplateMatcher(patch(frames[6]))
    for frame in frames:
        assert_exact(matcher.match(frame), frame, patch(frames[6]))
    assert all(found_by_bounds)


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 2**32),
    channels=st.sampled_from([(), (3,)]),
    margins=st.tuples(st.integers(0, 60), st.integers(0, 60)),
    size=st.tuples(st.integers(1, 40), st.integers(64, 150)),
    noise=st.sampled_from([0.0, 0.5, 3.0, 30.0]),
    gain=st.sampled_from([0.2, 1.0, 1.5]),
)
def test_any_search_by_bounds(seed, channels, margins, size, noise, gain):
    rng = np.random.default_rng(seed)
    shape = size[0] + margins[0], size[1] + margins[1]
    scene = textured(rng, *shape, *channels)
    y, x = (int(rng.integers(0, margin + 1)) for margin in margins)
    template = scene[y : y + size[0], x : x + size[1]]
    change = gain * scene + rng.normal(0, noise, scene.shape) + rng.normal(0, 20)
    frame = np.clip(np.rint(change), 0, 255).astype(np.uint8)
    padded = np.empty((shape[0], shape[1] + 5, *channels), np.uint8)
    padded[:, 2:-3] = frame
    assert_exact(match_template(padded[:, 2:-3], template), frame, template)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_ties_within_the_bounds(pattern):
    region = np.fromfunction(PATTERNS[pattern], SIZE, dtype=int).astype(np.uint8)
    template = patch(region)
    matcher = TemplateMatcher(template)
    rng = np.random.default_rng(10)
    for frame in (region, rng.choice(region.ravel(), SIZE), region // 2, 255 - region):
        assert_exact(matcher.match(frame), frame, template)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", ["texture", "noise", "saturated", "stripes"])
def test_bounds_are_never_below_what_they_bound(channels, kind):
    rng = np.random.default_rng(16)
    height, width, h, w = 83, 121, 50, 90
    region = textured(rng, height, width * channels).reshape(height, width, channels)
    if kind == "noise":
        region = rng.integers(0, 256, region.shape, dtype=np.uint8)
    elif kind == "saturated":
        region = (region > 128) * np.uint8(255)
    elif kind == "stripes":
        region = np.broadcast_to(np.arange(width)[:, None] % 8 * 30, region.shape).astype(np.uint8)
    template = np.clip(
        region[11 : 11 + h, 17 : 17 + w] + rng.normal(0, 9, (h, w, channels)), 0, 255
    )
    matcher = TemplateMatcher(template.astype(np.uint8))
    matcher.match(region)
    pattern, image = matcher._pattern, where(region)
    sums, norms = window_sums(image, h, w)
    lengths = np.sqrt(norms / (h * w))
    everywhere = np.arange(norms.size)
    scores = cpu.exact_products(image, sums, pattern, everywhere) / np.sqrt(pattern.norm)
    scores = scores / np.sqrt(norms.ravel())
    of_blocks = blocks.block_sums(image, pattern.centres)
    _, cells = cpu._bound_cells(image, *of_blocks, pattern, lengths)
    of_cells = np.kron(cells, np.ones((3, 3)))[: norms.shape[0], : norms.shape[1]] / lengths
    region_blocks = cpu._blocks(image, *of_blocks, pattern.fine, norms.shape)

    def bounded(score):
        windows = cpu._windows(
            cells, 0, cells.size - 1, lengths, -np.inf, norms.size, region_blocks
        )
        np.testing.assert_array_equal(windows.positions, everywhere)
        return cpu._bounds(windows, region_blocks, pattern.fine, lengths, score)

    positions, bounds = bounded(-np.inf)
    np.testing.assert_array_equal(positions, everywhere)
    assert (of_cells.ravel() >= scores).all()
    assert (bounds >= scores).all()
    # What may reach a score is never given up on the way, strip by strip.
    for score in np.quantile(scores, (0.5, 0.9, 0.99)):
        assert set(np.flatnonzero(scores >= score)) <= set(bounded(score)[0])


def test_cuts_flashes_and_clipped_regions_within_a_clip(found_by_bounds):
    rng = np.random.default_rng(9)
    frames = list(clip(rng, 3, *SIZE))
    template = patch(frames[1])
    disturbed = [
        frames[0],
        frames[1],
        rng.integers(0, 256, SIZE, dtype=np.uint8),
        frames[2],
        np.full(SIZE, 255, np.uint8),
        frames[1],
        255 - frames[1],
        frames[0][:53, 6:],
        frames[1][:53, 6:],
        textured(rng, *SIZE),
        frames[2],
        frames[2] // 200 * 255,
    ]
    matcher = TemplateMatcher(template)
    for frame in disturbed:
        assert_exact(matcher.match(frame), frame, template)
    assert any(found_by_bounds)
    assert not all(found_by_bounds)


def test_gray_frames_in_three_channels_equal_one_channel():
    rng = np.random.default_rng(11)
    frames = list(clip(rng, 4, *SIZE))
    template = patch(frames[2])
    gray, colour = TemplateMatcher(template), TemplateMatcher(np.stack([template] * 3, -1))
    for frame in frames:
        of_colour, of_gray = colour.match(np.stack([frame] * 3, -1)), gray.match(frame)
        assert of_colour[:2] == of_gray[:2]
        assert of_colour.score == pytest.approx(of_gray.score, abs=1e-15)
    tinted = np.stack([frames[0], frames[0], np.roll(frames[0], 3)], -1)
    assert_exact(colour.match(tinted), tinted, np.stack([template] * 3, -1))


def test_one_channel_of_three_that_are_equal():
    rng = np.random.default_rng(17)
    for _ in range(50):
        gray = rng.integers(0, 256, (rng.integers(1, 9), rng.integers(22, 90), 1), dtype=np.uint8)
        image = np.repeat(gray, 3, axis=2)
        np.testing.assert_array_equal(one_channel(image), gray)
        image[tuple(rng.integers(image.shape))] ^= 1 << rng.integers(8)
        assert one_channel(image) is None
    assert one_channel(gray) is None


@pytest.mark.parametrize("channels", [1, 3])
def test_sums_of_all_windows(channels):
    rng = np.random.default_rng(18)
    for height, width in rng.integers(1, 110, (40, 2)):
        h, w = rng.integers(1, height + 1), rng.integers(1, width + 1)
        region = rng.choice([0, 1, 128, 254, 255], (height, width, channels)).astype(np.uint8)
        windows = sliding_window_view(region.astype(np.int64) - 128, (h, w), axis=(0, 1))
        sums, norms = window_sums(where(region), h, w)
        expected = windows.sum((3, 4))
        np.testing.assert_array_equal(sums, expected)
        squares = (windows**2).sum((2, 3, 4))
        np.testing.assert_array_equal(norms, h * w * squares - (expected**2).sum(2))


def test_sums_of_high_and_wide_windows():
    for shape in ((70000, 40, 3), (2, 400000, 3), (2, 1200000, 1)):
        region = np.full(shape, 255, np.uint8)
        region[::7] = region[:, ::5] = 0
        h, w = max(1, shape[0] - 1), shape[1] - 3
        sums, norms = window_sums(where(region), h, w)
        last = region[-h:, -w:].astype(np.int64) - 128
        np.testing.assert_array_equal(sums[-1, -1], last.sum((0, 1)))
        assert norms[-1, -1] == h * w * (last**2).sum() - (last.sum((0, 1)) ** 2).sum()


@pytest.mark.slow
@pytest.mark.parametrize("channels", [(), (3,)])
def test_frames_of_full_size(channels):
    rng = np.random.default_rng(12)
    frames = list(clip(rng, 6, 680, 580, *channels))
    template = frames[3][40:640, 40:540]
    matcher = TemplateMatcher(template)
    for frame in [*frames, rng.integers(0, 256, frames[0].shape, dtype=np.uint8)]:
        scores = cv2.matchTemplate(
            frame.astype(np.float32) - 128, template.astype(np.float32) - 128, cv2.TM_CCOEFF_NORMED
        )
        match = matcher.match(frame)
        assert match.score == pytest.approx(scores.max(), abs=1e-5)
        near = np.argwhere(scores > scores.max() - 1e-5)
        best = [brute_force(frame[y : y + 600, x : x + 500], template)[2] for y, x in near]
        assert (match.y, match.x) == tuple(near[int(np.argmax(best))])


@pytest.mark.parametrize("pattern", [*PATTERNS, "texture", "noise"])
@pytest.mark.parametrize("channels", [1, 3])
def test_spectra_are_as_exact_as_they_say(pattern, channels):
    rng = np.random.default_rng(14)
    shape = 97, 131
    if pattern in PATTERNS:
        plane = np.fromfunction(PATTERNS[pattern], shape, dtype=int).astype(np.uint8)
    else:
        plane = textured(rng, *shape) if pattern == "texture" else rng.integers(0, 256, shape)
    planes = (plane, 255 - plane, np.roll(plane, 7))[:channels]
    region = np.stack(planes, -1).astype(np.uint8)
    template = np.ascontiguousarray(region[9:80, 12:105])
    sums, _ = window_sums(where(region), *template.shape[:2])
    template_sums = window_sums(where(template), *template.shape[:2])[0].ravel()
    windows = sliding_window_view(region.astype(np.int64), template.shape[:2], axis=(0, 1))
    flat = np.moveaxis(template, 2, 0).astype(np.int64)
    expected = flat[0].size * np.einsum("yxchw,chw->yx", windows, flat)
    expected -= windows.sum((3, 4)) @ flat.sum((1, 2))
    exact = Spectrum(template, template_sums, shape, np.float64)
    np.testing.assert_array_equal(exact.products(region, sums)[0], expected)
    products, error = Spectrum(template, template_sums, shape, np.float32).products(region, sums)
    assert np.abs(products - expected).max() <= error / 4


def test_threads_may_share_a_matcher():
    rng = np.random.default_rng(13)
    frames = list(clip(rng, 8, *SIZE))
    matcher = TemplateMatcher(patch(frames[4]))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(matcher.match, frames * 5))
    assert found == [match_template(frame, patch(frames[4])) for frame in frames] * 5
