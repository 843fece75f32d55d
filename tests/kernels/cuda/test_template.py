"""The search on a GPU against brute force in exact integers and against the CPU kernel."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from apexflow.kernels import Match, TemplateMatcher, match_template
from apexflow.kernels.gpu import Device
from apexflow.kernels.template.gpu import DeviceMatcher
from tests.kernels.cuda.build import ShimDevice
from tests.kernels.test_template import PATTERNS, assert_exact, clip, searches, textured

SAMPLED = settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def with_channels(images: np.ndarray) -> np.ndarray:
    return images if images.ndim == 4 else images[..., None]


def search(device: Device, regions: np.ndarray, template: np.ndarray) -> list[Match]:
    found = TemplateMatcher(template).on(device).match_all(device.xp.asarray(regions))
    y, x, score = (device.to_host(part).tolist() for part in found)
    return [Match(*values) for values in zip(y, x, score, strict=True)]


def assert_all_exact(device: Device, regions: np.ndarray, template: np.ndarray) -> None:
    found = search(device, with_channels(regions), template)
    for match, region in zip(found, regions, strict=True):
        assert_exact(match, region, template)


@SAMPLED
@given(searches())
def test_any_search_equals_brute_force(device: Device, one: tuple[np.ndarray, np.ndarray]) -> None:
    region, template = one
    assert_all_exact(device, np.stack([region, 255 - region, region // 2]), template)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_exact_ties_go_to_the_first_in_row_major_order(device: Device, pattern: str) -> None:
    region = np.fromfunction(PATTERNS[pattern], (40, 44), dtype=int).astype(np.uint8)
    regions = np.stack([region, 255 - region, np.roll(region, 3, axis=1)])
    assert_all_exact(device, regions, region[6:28, 9:34])
    colours = np.stack([regions, 255 - regions, regions // 2], -1)
    assert_all_exact(device, colours, colours[0, 6:28, 9:34])


@pytest.mark.addresses
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (30, 34), (1, 34), (30, 1), (29, 33)])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_thin_and_full_templates(device: Device, shape: tuple[int, int], channels: Any) -> None:
    rng = np.random.default_rng(5)
    regions = rng.integers(0, 6, (2, 30, 34, *channels), dtype=np.uint8)
    assert_all_exact(device, regions, rng.integers(0, 6, (*shape, *channels), dtype=np.uint8))


@pytest.mark.parametrize("flat", [0, 7, 255])
def test_flat_windows_and_templates_score_zero(device: Device, flat: int) -> None:
    texture = np.random.default_rng(3).integers(0, 256, (8, 9), dtype=np.uint8)
    flat_image = np.full((20, 20), flat, np.uint8)
    assert search(device, flat_image[None, ..., None], texture) == [Match(0, 0, 0.0)]
    assert search(device, texture[None, ..., None], flat_image[:5, :5]) == [Match(0, 0, 0.0)]
    # One flat window among windows that correlate negatively is the best.
    region = np.concatenate([255 - texture, flat_image[:8, :9]], axis=0)
    assert_all_exact(device, region[None], texture)


def test_a_copy_scores_exactly_one(device: Device) -> None:
    region = textured(np.random.default_rng(2), 60, 70)
    darker = region // 2 + 9
    regions = np.stack([region // 2 * 2, darker])[..., None]
    assert search(device, regions, darker[5:40, 9:60]) == [Match(5, 9, 1.0)] * 2


@pytest.mark.parametrize("channels", [(), (3,)])
def test_all_frames_of_a_clip_equal_the_cpu(device: Device, channels: Any) -> None:
    rng = np.random.default_rng(8)
    frames = np.stack(list(clip(rng, 5, 90, 84, *channels)))
    frames[3] = rng.integers(0, 256, frames[3].shape)
    template = frames[2, 9:81, 8:75]
    matcher = TemplateMatcher(template)
    found = search(device, with_channels(frames), template)
    for match, frame in zip(found, frames, strict=True):
        expected = matcher.match(frame)
        assert match[:2] == expected[:2]
        assert match.score == pytest.approx(expected.score, abs=1e-12)


def kinds(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Images on which rounding shows in different ways."""
    y, x = np.mgrid[:72, :66]
    return {
        "face": textured(rng, 72, 66),
        "noise": rng.integers(0, 256, (72, 66)),
        "extremes": rng.choice([0, 255], (72, 66)),
        "ramp": x + 2 * y,
        "stripes": x % 8 * 30,
        "wave": 128 + 120 * np.sin(0.3 * x + 0.2 * y),
        "step": (x > 30) * 255,
        "point": (x == 31) * (y == 40) * 255,
        "nearly flat": 200 + (rng.random((72, 66)) < 0.01),
    }


def exact_correlations(matcher: DeviceMatcher, regions: np.ndarray, means: np.ndarray) -> Any:
    template = matcher._template.astype(np.int64) - 128 - matcher._means
    centred = regions.astype(np.int64) - 128 - means[:, None, None]
    windows = sliding_window_view(centred, template.shape[:2], axis=(1, 2))
    return np.einsum("nyxchw,hwc->nyx", windows, template)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_bound_of_the_error_holds_and_is_not_loose(device: Device, channels: int) -> None:
    rng = np.random.default_rng(4)
    images = np.stack([kind.astype(np.uint8) for kind in kinds(rng).values()])
    images = np.stack([images, images // 2, 255 - images][:channels], -1)
    for template in images[:, 6:66, 5:58]:
        matcher = TemplateMatcher(template).on(device)
        found = matcher.correlate(device.xp.asarray(images))
        correlations, means, errors = map(device.to_host, found)
        exact = exact_correlations(matcher, images, means)
        wrong = np.abs(correlations[:, : exact.shape[1], : exact.shape[2]] - exact).max(axis=(1, 2))
        assert (wrong <= 0.2 * errors).all()
        norms = np.sqrt(((images - 128.0 - means[:, None, None]) ** 2).sum(axis=(1, 2, 3)))
        centred = template.astype(float) - 128 - matcher._means
        assert (errors <= 1e-4 * norms * np.linalg.norm(centred) + 1e-9).all()


@SAMPLED
@given(searches(), st.integers(0, 2**32), st.sampled_from([100, 3000]), st.booleans())
def test_any_error_within_the_bound_changes_nothing(
    device: Device,
    one: tuple[np.ndarray, np.ndarray],
    seed: int,
    factor: int,
    worst: bool,
) -> None:
    """The maps are disturbed as much as a bound allows, so that the recheck must decide."""
    region, template = one
    matcher = TemplateMatcher(template).on(device)
    if matcher._norm == 0:
        return
    regions = device.xp.asarray(with_channels(region[None]))
    correlations, means, errors = matcher.correlate(regions)
    # Far above the true error: many positions must be multiplied exactly.
    errors = errors * factor
    signs = np.random.default_rng(seed).uniform(-1, 1, correlations.shape)
    if worst:
        best = TemplateMatcher(template).match(region)
        signs[:] = 1
        signs[0, best.y, best.x] = -1
    disturbed = device.to_host(correlations) + signs * device.to_host(errors) * 0.99
    disturbed = device.xp.asarray(disturbed.astype(np.float32))
    y, x, score = map(device.to_host, matcher.choose(regions, disturbed, means, errors))
    assert_exact(Match(int(y[0]), int(x[0]), float(score[0])), region, template)


@st.composite
def scores_that_nearly_tie(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Products and norms that float64 cannot tell apart: near each other, or multiples."""
    rng, count = np.random.default_rng(draw(st.integers(0, 2**32))), draw(st.integers(1, 300))
    # Up to 2 ** 62, the largest that there are.
    bits = draw(st.sampled_from([(62, 62, 0), (42, 22, 20), (20, 10, 6)]))
    product, norm = (int(rng.integers(2 ** (n - 2), 2**n - 2)) for n in bits[:2])
    factors = rng.integers(1, 2 ** bits[2] + 1, count)
    change = rng.integers(0, draw(st.integers(1, 2)), (2, count))  # none: exact ties
    products, norms = factors * product + change[0], factors**2 * norm + change[1]
    sign = draw(st.sampled_from([-1, 1]))
    products *= sign
    flat = draw(st.lists(st.integers(0, count - 1), max_size=2))
    products[flat] = norms[flat] = 0
    return products, norms


@SAMPLED
@given(scores_that_nearly_tie())
def test_scores_are_compared_exactly(device: Device, scores: tuple[np.ndarray, np.ndarray]) -> None:
    products, norms = scores
    squares = [
        Fraction(p * abs(p), max(n, 1))
        for p, n in zip(products.tolist(), norms.tolist(), strict=True)
    ]
    xp, columns, count = device.xp, 7, products.size
    y, x = xp.empty(1, np.int32), xp.empty(1, np.int32)
    order = np.random.default_rng(count).permutation(count)
    device.kernel("template/template.cu", "choose_best")(
        (1,),
        (128,),
        (
            xp.asarray(order.astype(np.int32)),
            xp.asarray(np.array([count], np.int32)),
            xp.asarray(products[order]),
            xp.asarray(norms[order]),
            np.int32(count),
            np.int32(columns),
            np.float64(1.0),
            y,
            x,
            xp.empty(1),
        ),
    )
    best = int(device.to_host(y)[0]) * columns + int(device.to_host(x)[0])
    assert best == squares.index(max(squares))


def test_regions_that_do_not_fit_go_in_batches(shim: ShimDevice) -> None:
    frames = np.stack(list(clip(np.random.default_rng(1), 5, 40, 50)))[..., None]
    template = frames[2, 4:36, 5:44]
    tight = ShimDevice(shim._folder, addresses=shim._addresses, free=150_000)
    assert search(tight, frames, template) == search(shim, frames, template)
    assert tight.launches.count("choose_best") > 1
    assert tight.launches.count("choose_best") < 5


def test_frames_and_templates_of_a_card_are_taken(on_shim: Any, shim: ShimDevice) -> None:
    rng = np.random.default_rng(1)
    frames = np.stack(list(clip(rng, 3, 40, 50)))
    template = frames[1, 4:36, 5:44].copy()
    here, there = TemplateMatcher(template), TemplateMatcher(on_shim(template))
    for matcher in (here, there):
        for frame in frames:
            assert matcher.match(on_shim(frame)) == pytest.approx(here.match(frame), abs=1e-12)
    assert match_template(on_shim(frames[1]), on_shim(template)) == Match(4, 5, 1.0)
    everything = on_shim(np.pad(frames, [(0, 0), (3, 3), (2, 2)]))
    view = everything[:, 3:-3, 2:-2]
    before = everything.copy()
    found, expected = there.match_all(view), here.match_all(frames)
    for part, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(part, wanted, atol=1e-12)
        assert part.dtype == wanted.dtype
    np.testing.assert_array_equal(everything, before)
    with pytest.raises(TypeError, match="template must be a CuPy array, as region is"):
        match_template(on_shim(frames[1]), template)
    with pytest.raises(ValueError, match="region must be uint8"):
        here.match(on_shim(frames[1].astype(np.float32)))
    with pytest.raises(ValueError, match=r"regions must be at least as large as template"):
        here.match_all(on_shim(frames[:, :20]))
    with pytest.raises(ValueError, match=r"regions must have as many channels as template, 1"):
        here.match_all(on_shim(np.zeros((2, 40, 50, 3), np.uint8)))


@pytest.mark.slow
@pytest.mark.parametrize("channels", [(), (3,)])
def test_frames_of_full_size(device: Device, channels: Any) -> None:
    rng = np.random.default_rng(12)
    frames = np.stack(list(clip(rng, 3, 680, 580, *channels)))
    frames[2] = rng.integers(0, 256, frames[2].shape)
    template = frames[1, 40:640, 40:540]
    matcher = TemplateMatcher(template)
    found = search(device, with_channels(frames), template)
    for match, frame in zip(found, frames, strict=True):
        expected = matcher.match(frame)
        assert match[:2] == expected[:2]
        assert match.score == pytest.approx(expected.score, abs=1e-12)


@pytest.mark.slow
def test_the_bound_of_the_error_holds_at_full_size(device: Device) -> None:
    y, x = np.mgrid[:680, :580]
    images = [
        next(iter(clip(np.random.default_rng(1), 1, 680, 580))),
        np.random.default_rng(2).integers(0, 256, (680, 580)),
        128 + 120 * np.sin(0.03 * x + 0.02 * y),
        x // 3 + y // 12,
        (x > 300) * 255,
    ]
    regions = np.stack([image.astype(np.uint8) for image in images])[..., None]
    for template in regions[:, 40:640, 40:540]:
        matcher = TemplateMatcher(template).on(device)
        found = matcher.correlate(device.xp.asarray(regions))
        correlations, means, errors = map(device.to_host, found)
        centred = regions[..., 0] - 128.0 - means[:, :, None]
        kernel = np.zeros((680, 580))
        kernel[:600, :500] = template[..., 0] - 128.0 - matcher._means
        # Exact once rounded: float64's error is far below a half.
        product = np.fft.rfft2(centred) * np.fft.rfft2(kernel).conj()
        exact = np.rint(np.fft.irfft2(product, s=(680, 580)))[:, :81, :81]
        wrong = np.abs(correlations[:, :81, :81] - exact).max(axis=(1, 2))
        assert (wrong <= 0.2 * errors).all()
