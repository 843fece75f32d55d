"""Registration on a GPU against the CPU kernel and known motion."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from apexflow.kernels.gpu import Device
from apexflow.kernels.register import Registration
from apexflow.kernels.register.robust import FALLING, FLOOR, NOISE, SPREAD, TUKEY, fit_motion
from tests.kernels.cuda.build import ShimDevice
from tests.kernels.test_register import Scene, picture

MARGIN = 15
TOLERANCE = 1e-4  # px and degrees; measured 2e-6


def located(
    device: Device, registration: Registration, images: np.ndarray, starts: np.ndarray
) -> np.ndarray:
    """(x, y, rotation, scale) of each image."""
    there = device.xp.asarray(images), device.xp.asarray(starts)
    found = registration.on(device).locate_all(*there)
    return np.stack([device.to_host(part) for part in found], axis=1)


def moved_faces(seed: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A template, images in which it moves and deforms, and where its middle is about."""
    rng = np.random.default_rng(seed)
    size = height + 2 * MARGIN, width + 2 * MARGIN
    middle = MARGIN + (width - 1) / 2, MARGIN + (height - 1) / 2
    template = picture(Scene(seed), size, middle=middle, noise=2)
    images = [
        picture(
            Scene(seed),
            size,
            middle=middle,
            shift=tuple(rng.uniform(-0.8, 0.8, 2)),
            rotation=rng.normal(0, 0.4),
            scale=1 + rng.normal(0, 0.004),
            gain=rng.uniform(0.9, 1.05),
            noise=2,
            deform=(0.6 * width, 0.7 * height, 0.3 * height, 3.0),
        )
        for _ in range(3)
    ]
    inside = template[MARGIN:-MARGIN, MARGIN:-MARGIN]
    return inside, np.stack(images), np.tile(middle, (3, 1))


@pytest.mark.parametrize(
    "model", ["shift", pytest.param("similarity", marks=pytest.mark.addresses)]
)
@pytest.mark.parametrize("size", [(16, 16), (16, 151), (61, 90), (130, 97), (257, 262)])
@pytest.mark.parametrize("reach", ["median", "falling"])
def test_places_are_those_of_the_cpu(
    device: Device, model: Any, size: tuple[int, int], reach: Any
) -> None:
    template, images, starts = moved_faces(sum(size), *size)
    # As found, a pixel off, flat, half out of sight, far away.
    images = np.stack([*images, np.full_like(images[0], 90), images[0], images[1]])
    offsets = [[0, 0], [1, -1], [0.4, 0.7], [0, 0], [MARGIN + size[1] // 3, 0], [-300, 500]]
    starts = np.add(starts[0], offsets)
    registration = Registration(template, model=model, reach=reach)
    expected = np.stack(registration.locate_all(images, starts), axis=1)
    np.testing.assert_allclose(
        located(device, registration, images, starts), expected, rtol=0, atol=TOLERANCE
    )


def test_known_motion_is_found(device: Device) -> None:
    size, middle = (240, 260), (129.5, 119.5)
    shifts = np.random.default_rng(3).uniform(-0.5, 0.5, (3, 2))
    turns, scales = [0.8, -0.3, 0.0], [1.0, 1.006, 0.995]
    template = picture(Scene(3), size, middle=middle, noise=1)[20:220, 20:240]
    images = np.stack(
        [
            picture(Scene(3), size, middle=middle, shift=tuple(shift), rotation=turn, scale=scale)
            for shift, turn, scale in zip(shifts, turns, scales, strict=True)
        ]
    )
    registration = Registration(template, model="similarity")
    found = located(device, registration, images, np.tile(middle, (3, 1)))
    assert np.abs(found[:, :2] - middle - shifts).max() < 0.03
    assert np.abs(found[:, 2] - turns).max() < 0.03
    assert np.abs(found[:, 3] - scales).max() < 5e-4


@pytest.mark.parametrize("model", ["shift", "similarity"])
def test_a_flat_template_stays_at_the_start(device: Device, model: Any) -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, 64, 64), dtype=np.uint8)
    starts = np.array([[31.5, 30.25], [20, 40]])
    registration = Registration(np.full((50, 50), 90, np.uint8), model=model)
    found = located(device, registration, images, starts)
    np.testing.assert_array_equal(found, [[31.5, 30.25, 0, 1], [20, 40, 0, 1]])


@settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    seed=st.integers(0, 2**32 - 1),
    length=st.integers(1, 6) | st.integers(1, 300),
    similarity=st.booleans(),
    rounds=st.integers(1, 6),
    unseen=st.sampled_from([0.0, 0.3, 0.9, 1.0]),
    strength=st.sampled_from([1.0, 60.0, 900.0]),
    falling=st.sampled_from([(), FALLING]),
)
def test_the_fit_is_that_of_the_cpu(
    device: Device,
    seed: int,
    length: int,
    similarity: bool,
    rounds: int,
    unseen: float,
    strength: float,
    falling: tuple[float, ...],
) -> None:
    """Ties, few points, outliers, points that are not seen: all in one launch of two frames."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-100, 100, (length, 2))
    steps = rng.normal(0, 0.1, (2, length, 2))
    steps[1] = np.round(steps[1], 1)  # equal values in the medians
    steps[:, : length // 3] += rng.uniform(2, 9, (2, length // 3, 2))
    weights = strength * rng.uniform(0.5, 1, length) * (rng.random(length) > 0.2)
    seen = rng.random((2, length)) >= unseen
    xp = device.xp
    matrices, settled = xp.zeros((2, 2, 3)), xp.zeros(2, np.int32)
    device.kernel("register/register.cu", "fit_motions")(
        (2,),
        (128,),
        (
            *map(xp.asarray, (points, weights)),
            np.int32(length),
            *map(xp.asarray, (steps, seen.astype(np.int32))),
            np.int32(similarity),
            np.int32(rounds),
            xp.asarray(np.array(falling)),
            np.int32(len(falling)),
            *map(np.float64, (TUKEY, SPREAD, FLOOR, NOISE, 100.0, 0.5)),
            *(xp.empty((2, length)) for _ in range(2)),
            matrices,
            settled,
        ),
    )
    for frame in range(2):
        shown = weights * seen[frame]
        p = fit_motion(points, steps[frame], shown, similarity, rounds, np.array(falling))
        expected = np.array([[p[2], -p[3], p[0]], [p[3], p[2], p[1]]])
        np.testing.assert_allclose(device.to_host(matrices)[frame], expected, rtol=1e-6, atol=1e-9)
        rim = max(abs(p[0]), abs(p[1])) + 100 * (abs(p[2]) + abs(p[3]))
        if abs(rim - 0.5) > 1e-6:
            assert device.to_host(settled)[frame] == (rim < 0.5)


def test_images_that_do_not_fit_go_in_batches(shim: ShimDevice) -> None:
    template, images, starts = moved_faces(1, 60, 70)
    tight = ShimDevice(shim._folder, addresses=shim._addresses, free=5_000)
    registration = Registration(template)
    expected = located(shim, registration, images, starts)
    np.testing.assert_array_equal(located(tight, registration, images, starts), expected)
    assert tight.launches.count("fit_motions") > 3


def test_images_and_templates_of_a_card_are_taken(on_shim: Any) -> None:
    template, images, starts = moved_faces(2, 60, 70)
    here, there = Registration(template), Registration(on_shim(template))
    expected = np.stack(here.locate_all(images, starts))
    for registration in (here, there):
        for several in (starts, on_shim(starts)):
            found = np.stack(registration.locate_all(on_shim(images), several))
            np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    wide = on_shim(np.repeat(images, 2, axis=2))[:, :, ::2]
    np.testing.assert_allclose(
        here.locate(wide[0], tuple(starts[0])), expected[:, 0], rtol=0, atol=TOLERANCE
    )
    with pytest.raises(TypeError, match="images must be a CuPy array, as starts is"):
        here.locate_all(images, on_shim(starts))
    with pytest.raises(ValueError, match="images must be uint8"):
        here.locate_all(on_shim(images.astype(np.int32)), starts)
    with pytest.raises(ValueError, match=r"starts must be \(3, 2\). Got shape \(2, 2\)"):
        here.locate_all(on_shim(images), starts[:2])
    with pytest.raises(ValueError, match="starts must be finite"):
        here.locate_all(on_shim(images), starts + np.nan)
